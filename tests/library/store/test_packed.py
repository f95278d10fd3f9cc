"""A packed library: small, and when opened an ordinary library of what its int8 rows say."""

import json
from pathlib import Path

import pytest
from building import built, tasks  # noqa: F401  (fixtures)
from differences import delta_distance, delta_norm

from api.cli.main import main
from library.errors import AdapterFileError, MissingPath, OutputExists, UnknownName, UsageError
from library.store.catalogue import (
    check_library,
    files_of,
    open_catalogue,
    read_adapter,
    records,
)
from library.store.folder import LibraryFolder
from library.store.open import open_library
from library.store.packed import pack_library, unpacked
from library.store.plan import JobPlan


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


def test_a_copy_of_a_copy_names_the_original(built: Path, packed: Path, tmp_path: Path) -> None:
    ids = {record["task"]: record["id"] for record in records(open_library(str(built)))}
    source = open_library(str(packed))
    assert pack_library(source, tmp_path / "again", ["task3"]) == 1
    copy = open_library(str(tmp_path / "again"))
    (record,) = records(copy)
    assert (record["task"], record["parents"]) == ("task3", [ids["task3"]])
    provenance = json.loads(files_of(copy, record["id"])["provenance.json"])
    assert provenance["details"]["storage"] == "int8"
    assert provenance["parents"] == [ids["task3"]]


def test_the_plan_is_of_the_packed_tasks_alone(built: Path, packed: Path) -> None:
    whole, part = open_library(str(built)).plan(), open_library(str(packed)).plan()
    assert set(part.tasks) == {"task1", "task3"} < set(whole.tasks)
    assert all(part.tasks[name] == whole.tasks[name] for name in part.tasks)
    assert part.shards == ((JobPlan("task1"), JobPlan("task3")),)
    assert (part.layout, part.recipe, part.config) == (whole.layout, whole.recipe, whole.config)


@pytest.mark.parametrize(("cut", "recipe"), [(-1, "truncated:lora"), (0, "lora"), (1, "lora")])
def test_only_a_lower_rank_cuts(cut: int, recipe: str, built: Path, tmp_path: Path) -> None:
    source = open_library(str(built))
    rank = source.plan().layout.rank
    assert pack_library(source, tmp_path / "out", rank=rank + cut) == len(records(source))
    copy = open_library(str(tmp_path / "out"))
    assert copy.plan().layout.rank == rank + min(cut, 0)
    for record in records(copy):
        assert (record["recipe"], record["rank"]) == (recipe, rank + min(cut, 0))
        assert record["layout_digest"] == copy.plan().layout.digest


def test_what_is_not_there_is_not_packed_and_nothing_is_replaced(
    built: Path, tmp_path: Path
) -> None:
    source, out = open_library(str(built)), tmp_path / "out"
    with pytest.raises(UnknownName, match="other"):
        pack_library(source, out, ["task1", "other"])
    empty = LibraryFolder(tmp_path / "empty")
    empty.write_json("library.json", source.read_json("library.json"))
    with pytest.raises(UnknownName):
        pack_library(empty, out)
    assert not out.exists()
    with pytest.raises(MissingPath):
        unpacked(out)
    pack_library(source, out, ["task1"])
    with pytest.raises(OutputExists):
        pack_library(source, out, ["task2"])
    assert [record["task"] for record in records(open_library(str(out)))] == ["task1"]
    pack_library(source, out, ["task2"], overwrite=True)
    assert [record["task"] for record in records(open_library(str(out)))] == ["task2"]


@pytest.mark.parametrize("name", ["library.json", "records.jsonl", "adapters.safetensors"])
@pytest.mark.parametrize("content", [b"{", b"{}"])
def test_a_file_of_another_content_is_damage(name: str, content: bytes, packed: Path) -> None:
    (packed / name).write_bytes(content)
    with pytest.raises(AdapterFileError, match="damaged"):
        unpacked(packed)
