"""A small library that is built by command, for tests that need one."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from api.cli.main import main
from library.store.catalogue import records
from library.store.open import open_library

WORDS = ["red", "green", "blue", "white", "black", "brown", "grey", "pink", "gold", "cyan", "lime"]

BUILD = ("--steps", "6", "--slots", "2", "--rows", "2", "--shard-size", "3", "--lr", "0.01")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five tasks of 70 rows."""
    folder = tmp_path_factory.mktemp("tasks")
    write_colours(folder, range(5))
    return folder


def write_colours(folder: Path, numbers: Iterable[int]) -> None:
    """Tasks of these numbers, of 70 rows each."""
    folder.mkdir(exist_ok=True)
    for n in numbers:
        rows = [
            {"input": f"{WORDS[(i + n) % 11]} {i}", "output": WORDS[(i * n) % 11]}
            for i in range(70)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"task{n}.jsonl").write_text(lines)
        (folder / f"task{n}.txt").write_text(f"Name a colour, the way of task {n}.")


def command(tasks: Path, base: Path, out: str, *more: str) -> list[str]:
    return ["library", "build", "--tasks", str(tasks), "--base", str(base), "--out", out,
            *BUILD, *more]  # fmt: skip


@pytest.fixture(scope="module")
def built(tasks: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("libraries") / "whole"
    assert main(command(tasks, tiny_base, str(out))) == 0
    return out


def content(library: Path | str) -> list[dict[str, Any]]:
    """All records, less the time, which must be all that differs between builds."""
    stored = records(open_library(str(library)))
    return [{k: v for k, v in record.items() if k != "created"} for record in stored]
