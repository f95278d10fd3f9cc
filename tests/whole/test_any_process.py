"""The same bytes in any process, whatever its hash seed and number of threads."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from api.cli.main import main
from generator.engine import Engine
from generator.request import Request
from library.base.models import BaseReference
from library.canonical import digest
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE
from library.peft.write import to_peft

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def merged(small_library: Path) -> list[str]:
    """`lorasmith compose` for all adapters of the small library, but for where to."""
    parents = sorted((small_library / "lib" / "adapters").iterdir())
    return ["compose", *map(str, parents), "--method", "ties", "--out"]


@pytest.fixture(scope="module")
def processes(
    small_checkpoint: Path, small_library: Path, tiny_base: Path, merged: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[dict[str, Any]]:  # fmt: skip
    """What two processes of other hash seeds print, at work with one and two threads."""
    script = (tiny.ROOT / "tests" / "support" / "fresh_process.py").read_text(encoding="utf-8")
    paths = [str(small_checkpoint), str(small_library / "lib"), str(tiny_base)]
    running = []
    for seed, threads in enumerate(("1", "2")):
        out = str(tmp_path_factory.mktemp("merged") / "out")
        running.append(tiny.start_python(script, threads, *paths, *merged, out, hash_seed=seed))
    return [json.loads(tiny.output_of(process).splitlines()[-1]) for process in running]


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3", "gpt2"])
def test_layouts_and_files(family: str, processes: list[dict[str, Any]]) -> None:
    layout = layout_of(tiny.config(family), rank=3)
    files = to_peft(tiny.adapter(layout), base_name="b")
    for process in processes:
        assert process[family] == [layout.digest, digest(files.config_bytes + files.weights)]


@pytest.mark.parametrize("name", ["auto", "text-to-lora", "compose", "nearest"])
def test_generated_adapters(
    name: str, processes: list[dict[str, Any]], engine: Engine, base: BaseReference
) -> None:
    files = engine.generate(name, Request("Multiply the two numbers."), base).files
    for process in processes:
        assert process[name] == [files.id, digest(files.files[PROVENANCE_FILE])]


def test_merged_adapters(
    processes: list[dict[str, Any]], merged: list[str], tmp_path: Path
) -> None:
    assert main([*merged, str(tmp_path / "out")]) == 0
    made = {file.name: digest(file.read_bytes()) for file in (tmp_path / "out").iterdir()}
    assert len(made) >= 3
    assert [process["merged"] for process in processes] == [made, made]
