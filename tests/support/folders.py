"""Adapter folders for the tests of verification, and exit codes."""

import json
from typing import Any

import tiny

from api.cli.main import main
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE, Provenance, finish
from library.peft.write import CONFIG_FILE, to_peft

LAYOUT = layout_of(tiny.config("llama"), ["q_proj", "v_proj"], rank=4)

Files = dict[str, bytes]


def sound() -> Files:
    """A finished adapter of ours with its provenance."""
    files = to_peft(tiny.adapter(LAYOUT), base_name="owner/base")
    provenance = Provenance("text-to-lora", "c" * 64, "Add.", 0, "cpu-f64-torch", LAYOUT.digest, {})
    return finish(files, provenance).files


def with_config(files: Files, **changes: Any) -> Files:
    config = json.loads(files[CONFIG_FILE]) | changes
    return {**files, CONFIG_FILE: json.dumps(config).encode()}


def bare(files: Files) -> Files:
    return {name: content for name, content in files.items() if name != PROVENANCE_FILE}


def exit_code(*arguments: Any) -> int:
    return main(["verify", *map(str, arguments)])
