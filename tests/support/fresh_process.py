"""Run by a fresh interpreter: prints digests of all that must not depend on the process.

Arguments: number of threads, and a checkpoint and a base folder to generate with, if any.
"""

import json
import sys
from pathlib import Path

import tiny
import torch

from library.canonical import digest
from library.layout import layout_of
from library.peft.write import to_peft

FAMILIES = ("llama", "gemma2", "phi3", "gpt2")


def main(threads: str, checkpoint: str = "", base: str = "") -> None:
    torch.set_num_threads(int(threads))
    found = {}
    for family in FAMILIES:
        layout = layout_of(tiny.config(family), rank=3)
        files = to_peft(tiny.adapter(layout), base_name="b")
        content = files.config_bytes + files.weights
        found[family] = [layout.digest, digest(content)]
    if checkpoint:
        from generator.engine import Engine, read_generator
        from generator.request import Request
        from library.base.models import resolve_base

        engine = Engine([read_generator(Path(checkpoint))])
        made = engine.generate("text-to-lora", Request("A task."), resolve_base(base))
        found["generated"] = [made.files.id, digest(made.files.files["provenance.json"])]
    print(json.dumps(found))


main(*sys.argv[1:])
