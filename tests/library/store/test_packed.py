"""A packed library: small, and when opened an ordinary library of what its int8 rows say."""

from pathlib import Path

import pytest
from building import built, tasks  # noqa: F401  (fixtures)
from differences import delta_distance, delta_norm

from api.cli.main import main
from library.errors import AdapterFileError, UsageError
from library.store.catalogue import (
    check_library,
    open_catalogue,
    read_adapter,
    records,
)
from library.store.open import open_library


@pytest.fixture
def packed(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "packed"
    wanted = ["--task", "task1", "--task", "task3"]
    assert main(["library", "pack", "--library", str(built), "--out", str(out), *wanted]) == 0
    return out


def test_what_comes_out_is_close_to_what_went_in(built: Path, packed: Path) -> None:
    source, copy = open_library(str(built)), open_library(str(packed))
    layout = copy.plan().layout
    ids = {record["task"]: record["id"] for record in records(source)}
    assert [record["task"] for record in records(copy)] == ["task1", "task3"]
    assert check_library(open_catalogue(copy)) == []
    for record in records(copy):
        (parent,) = record["parents"]
        assert parent == ids[record["task"]] != record["id"]
        ours = read_adapter(copy, record["id"], layout)
        theirs = read_adapter(source, parent, layout)
        for key in ours.A:
            pair = (theirs.A[key], theirs.B[key])
            error = delta_distance(ours.A[key], ours.B[key], *pair)
            assert (error < 0.02 * delta_norm(*pair)).all()


def test_it_is_opened_alike_and_is_not_changed(packed: Path, tmp_path: Path) -> None:
    first = open_library(str(packed))
    files = {f: f.read_bytes() for f in Path(first.location).rglob("*") if f.is_file()}
    again = packed.rename(tmp_path / "elsewhere")
    assert open_library(str(again)).location == first.location
    assert all(f.read_bytes() == content for f, content in files.items())
    with pytest.raises(UsageError, match="packed"):
        open_library(str(again), write=True)


def test_other_rows_are_refused(packed: Path) -> None:
    file = packed / "adapters.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 64
    file.write_bytes(content)
    with pytest.raises(AdapterFileError, match="damaged"):
        open_library(str(packed))


def test_a_lower_rank_is_the_best_approximation(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    arguments = ["--library", str(built), "--out", str(out), "--rank", "2"]
    assert main(["library", "pack", *arguments]) == 0
    source, copy = open_library(str(built)), open_library(str(out))
    whole = source.plan().layout
    cut = copy.plan().layout
    assert cut.rank == 2 and len(records(copy)) == len(records(source))
    for record in records(copy):
        assert (record["rank"], record["recipe"]) == (2, "truncated:lora")
        ours = read_adapter(copy, record["id"], cut)
        best = read_adapter(source, record["parents"][0], whole).with_rank(2)
        for key in ours.A:
            pair = (best.A[key], best.B[key])
            error = delta_distance(ours.A[key], ours.B[key], *pair)
            assert (error < 0.02 * delta_norm(*pair)).all()
