"""Run by a fresh interpreter: prints digests of all that must not depend on the process.

Arguments: number of threads, a checkpoint, a library, a base folder, and a `lorasmith compose`
command whose last word is its new folder.
"""

import json
import sys
from pathlib import Path

import tiny
import torch

from library.canonical import digest
from library.layout import layout_of
from library.peft.write import to_peft


def main(threads: str, checkpoint: str, library: str, base: str, *command: str) -> None:
    torch.set_num_threads(int(threads))
    found = generated(Path(checkpoint), library, base) | {"merged": merged([*command])}
    for family in ("llama", "gemma2", "phi3", "gpt2"):
        layout = layout_of(tiny.config(family), rank=3)
        files = to_peft(tiny.adapter(layout), base_name="b")
        found[family] = [layout.digest, digest(files.config_bytes + files.weights)]
    print(json.dumps(found))


def generated(checkpoint: Path, library: str, base: str) -> dict[str, list[str]]:
    from generator.engine import open_engine, read_generator
    from generator.request import Request
    from library.base.models import resolve_base

    engine, found = open_engine([read_generator(checkpoint)], library), {}
    request = Request("Multiply the two numbers.")
    for name in ("auto", "text-to-lora", "compose", "nearest"):
        files = engine.generate(name, request, resolve_base(base)).files
        found[name] = [files.id, digest(files.files["provenance.json"])]
    return found


def merged(command: list[str]) -> dict[str, str]:
    from api.cli.main import main as run

    assert run(command) == 0
    return {file.name: digest(file.read_bytes()) for file in Path(command[-1]).iterdir()}


main(*sys.argv[1:])
