"""Authored tasks: as users would put them, several over the same inputs.

A file of banks/authored holds the inputs of one kind, such as messages to a bike repair shop, and
tasks over them: classification by defined labels, a decision by a rule, extraction, structured
output, rewriting. Since the inputs are the same, only the description explains an answer. Each task
has three wordings in different registers. All of it was written for this project, text by text,
with the help of a language model; nothing is from a public data set.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from library.canonical import file_digest, json_digest
from library.files import require_present
from library.tasks.files import Example, MalformedTask, Task, locating
from training.synthetic.banks import BANKS, UNTRIMMED, is_trimmed

AUTHORED = BANKS / "authored"
WORDINGS = 3


def read_authored(folder: Path = AUTHORED) -> tuple[Task, ...]:
    """All tasks of a folder's *.json, by file, in their order; all of their rows are for training.

    Raises:
        MissingPath: there is no such folder.
        MalformedTask: a file is not of this form, or a task's name is taken.
    """
    require_present(folder)
    tasks: dict[str, Task] = {}
    for path in sorted(folder.glob("*.json")):
        with locating(path):
            data = json.loads(path.read_text(encoding="utf-8"))
            rows = _rows(path, data)
            for column, about in enumerate(data["tasks"], start=1):
                task = _task(path, about, rows, column)
                if task.name in tasks:
                    raise MalformedTask(path, "", f"there are two tasks named {task.name}")
                tasks[task.name] = task
    return tuple(tasks.values())


def authored_digest(folder: Path = AUTHORED) -> str:
    """SHA-256 of a folder's files, names and contents: what was trained on."""
    return json_digest({path.name: file_digest(path) for path in folder.glob("*.json")})


def _rows(path: Path, data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A file's rows: an input and an answer for each task. No input comes twice."""
    rows = [_texts(row) for row in data["rows"]]
    for number, row in enumerate(rows):
        if len(row) != 1 + len(data["tasks"]):
            fault = f"{len(row) - 1} answers, where the file has {len(data['tasks'])} tasks"
            raise MalformedTask(path, f"row {number}", fault)
    if len({row[0] for row in rows}) < len(rows):
        raise MalformedTask(path, "", "an input comes twice")
    return rows


def _task(
    path: Path, about: Mapping[str, Any], rows: Sequence[tuple[str, ...]], column: int
) -> Task:
    """The task whose answers stand in a column; raises what `locating` turns."""
    name, wordings = f"authored/{about['name']}", _texts(about["wordings"])
    if len(set(wordings)) != WORDINGS:
        raise MalformedTask(path, name, f"a task has {WORDINGS} different wordings")
    labels = about["labels"]
    if labels is not None and not {row[column] for row in rows} <= set(_texts(labels)):
        raise MalformedTask(path, name, "an answer is none of its labels")
    return Task(
        name=name,
        definition=wordings[0],
        paraphrases=wordings[1:],
        instances=tuple(
            Example(f"{name}/{number}", row[0], (row[column],)) for number, row in enumerate(rows)
        ),
        categories=(path.stem,),
        authored=True,
    )


def _texts(values: Any) -> tuple[str, ...]:
    """A list of texts, none of them empty or with spaces at its ends."""
    if not isinstance(values, list):
        raise ValueError("a list of texts is missing")
    for value in values:
        if not is_trimmed(value):
            raise ValueError(UNTRIMMED)
        value.encode("utf-8")  # JSON can hold lone surrogates, which no tokenizer takes
    return tuple(values)
