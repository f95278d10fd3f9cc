"""Authored tasks: a file's form, what is refused, and what those of this repository hold."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from library.errors import MissingPath
from library.tasks.files import MalformedTask
from training.synthetic.authored import AUTHORED, authored_digest, read_authored
from training.synthetic.banks import plain

REPORT = tiny.ROOT / "docs" / "results" / "authored.json"
WORDINGS = ["Sort: a or b.", "a or b?", "is it a, is it b"]


def domain(**changes: Any) -> dict[str, Any]:
    task = {"name": "sorting", "labels": ["a", "b"], "wordings": WORDINGS} | changes
    other = {"name": "copying", "labels": None, "wordings": ["Copy.", "copy", "Copy it, please."]}
    rows = [["first", "a", "first"], ["second", "b", "second"]]
    return {"domain": "letters", "tasks": [task, other], "rows": rows}


def written(folder: Path, name: str, content: Any) -> Path:
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_tasks_of_one_file_have_its_inputs_and_their_own_answers(tmp_path: Path) -> None:
    sorting, copying = read_authored(written(tmp_path, "letters", domain()))
    assert (sorting.name, sorting.categories) == ("authored/sorting", ("letters",))
    assert sorting.descriptions == tuple(WORDINGS)
    assert [(row.input, row.output) for row in sorting.train] == [("first", "a"), ("second", "b")]
    assert [(row.input, row.output) for row in copying.train] == [
        ("first", "first"),
        ("second", "second"),
    ]
    assert not sorting.test and not sorting.tune, "all rows are for training"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (domain(labels=["a"]), "an answer is none of its labels"),
        (domain(wordings=WORDINGS[:2]), "3 different wordings"),
        (domain(wordings=[*WORDINGS[:2], WORDINGS[0]]), "3 different wordings"),
        (domain(name="copying"), "two tasks named authored/copying"),
        (domain(labels="ab"), "a list of texts is missing"),
        (domain() | {"rows": ["first"]}, "a list of texts is missing"),
        (domain() | {"rows": [["first", "a"]]}, "row 0: 1 answers, where the file has 2 tasks"),
        (domain() | {"rows": [["first", "a", "x", "y"]]}, "row 0: 3 answers"),
        (domain() | {"rows": [["first", "a", "x"]] * 2}, "an input comes twice"),
        (domain() | {"rows": [["first", "a", "\ud800"]]}, "half of a surrogate pair"),
        (domain() | {"rows": [["first ", "a", "first"]]}, "begin or end with spaces"),
        ({"rows": []}, "'tasks' is missing"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, content: Any, fault: str) -> None:
    with pytest.raises(MalformedTask, match=fault) as refusal:
        read_authored(written(tmp_path, "letters", content))
    assert "letters.json" in str(refusal.value)


def test_the_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    before = authored_digest(written(tmp_path, "letters", domain()))
    assert authored_digest(tmp_path) == before
    (tmp_path / "letters.json").rename(tmp_path / "signs.json")
    renamed = authored_digest(tmp_path)
    assert (
        len({before, renamed, authored_digest(written(tmp_path, "signs", domain(name="x")))}) == 3
    )


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPath, match="nowhere"):
        read_authored(tmp_path / "nowhere")


def test_what_is_in_this_repository() -> None:
    tasks, said = read_authored(), json.loads(REPORT.read_text())
    rows = [row for task in tasks for row in task.train]
    assert (len(tasks), len(rows)) == (said["tasks"], said["rows"])
    assert len({row.input for row in rows}) == said["inputs"]
    wordings = [plain(text) for task in tasks for text in task.descriptions]
    assert len(set(wordings)) == len(wordings)
    for task in tasks:
        assert len(task.train) >= 15 and len({row.input for row in task.train}) == len(task.train)
        assert not any(row.input in text for row in task.train for text in task.descriptions)


def test_every_label_stands_in_every_wording() -> None:
    for path in AUTHORED.glob("*.json"):
        for task in json.loads(path.read_text(encoding="utf-8"))["tasks"]:
            for wording in task["wordings"]:
                missing = [
                    x for x in task["labels"] or () if x.casefold() not in wording.casefold()
                ]
                assert not missing, (path.name, task["name"], missing)
