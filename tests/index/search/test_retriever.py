"""A retriever follows a library that grows: only what is new is read and embedded."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import LIBRARY_TASKS, write_tasks

from api.cli.main import main
from index.search.retriever import Retriever
from library.store import catalogue
from library.store.folder import LibraryFolder

LATER = {"verse": "Write a verse about the sea.", "divide": "Divide one number by the other."}


@pytest.fixture
def place(small_library: Path, tmp_path: Path) -> Path:
    write_tasks(tmp_path / "later", LATER)
    return shutil.copytree(small_library / "lib", tmp_path / "lib")


def grow(place: Path) -> None:
    assert (
        main(["library", "add", "--tasks", f"{place.parent}/later", "--library", f"{place}"]) == 0
    )


def tasks_near(retriever: Retriever, text: str) -> list[str]:
    return [n.task for n in retriever.nearest(retriever.embed(text), 9)]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many records were read, and how many texts embedded."""
    counts = Counter[str]()
    read, embed = catalogue.read_record, Retriever.embed

    def reading(folder: LibraryFolder, path: str) -> Any:
        counts["read"] += 1
        return read(folder, path)

    def embedding(self: Retriever, text: str) -> Any:
        counts["embedded"] += 1
        return embed(self, text)

    monkeypatch.setattr(catalogue, "read_record", reading)
    monkeypatch.setattr(Retriever, "embed", embedding)
    return counts


def test_it_sees_what_was_added_and_reads_nothing_else(
    place: Path, base: Any, encoder: Any, work: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORASMITH_CACHE", str(place.parent / "cache"))
    before = Retriever(LibraryFolder(place), base, encoder)
    query = before.embed(LATER["verse"])
    near = before.nearest(query, 9)
    assert {n.task for n in near} == set(LIBRARY_TASKS) and near[0].task == "poem"
    adapter = before.adapter(near[0].id)
    assert before.followed() is before
    work.clear()
    grow(place)
    work.clear()  # of what the command read
    after = before.followed()
    assert after.followed() is after and work == {"read": 2}
    found = after.nearest(query, 9)
    assert work == {"read": 2, "embedded": 2}
    assert [n.task for n in found[:2]] == ["verse", "poem"] and len(found) == 5
    assert {r["task"] for r in after.experts} == {*LIBRARY_TASKS, *LATER}
    assert after.adapter(near[0].id) is adapter
    assert before.nearest(query, 9) == near  # who holds the older one is not disturbed
    fresh = Retriever(LibraryFolder(place), base, encoder)
    assert fresh.nearest(query, 9) == found
    assert all(
        torch.equal(a, b)
        for n in found
        for a, b in zip(fresh.adapter(n.id).factors(), after.adapter(n.id).factors(), strict=True)
    )


def test_it_sees_what_was_removed(place: Path, base: Any, encoder: Any) -> None:
    before = Retriever(LibraryFolder(place), base, encoder)
    assert "poem" in tasks_near(before, "A poem.")
    assert main(["library", "remove", "poem", "--library", str(place)]) == 0
    assert set(tasks_near(before.followed(), "A poem.")) == {"sum", "sub"}


def test_a_record_that_goes_while_it_is_read_is_left_out(
    place: Path, base: Any, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = catalogue.read_record

    def gone(folder: LibraryFolder, path: str) -> Any:
        if path.endswith("poem.json"):
            (place / path).unlink()
        return read(folder, path)

    monkeypatch.setattr(catalogue, "read_record", gone)
    found = catalogue.records(LibraryFolder(place))
    assert [record["task"] for record in found] == ["sub", "sum"]


def test_a_search_index_of_the_library_is_brought_up_to_date(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", "build", "--library", str(place)]) == 0
    grow(place)
    log = (place / "index" / "000001.log").read_text()
    assert all(task in log for task in LATER)
    shutil.copytree(next((place / "adapters").iterdir()), place.parent / "foreign")
    assert main(["library", "import", f"{place.parent}/foreign", "--library", str(place)]) == 0
    assert "foreign" in (place / "index" / "000001.log").read_text()
    times = {f: f.stat().st_mtime_ns for f in (place / "index").rglob("*") if f.is_file()}
    capsys.readouterr()
    command = ["search", LATER["verse"], "--library", str(place), "--json"]
    assert main(command) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results[0]["task"] == "verse" and len(results) == 6
    after = {f: f.stat().st_mtime_ns for f in times}
    assert after == times  # the search had nothing to write
