"""Tasks: a description with input/output examples, read from three kinds of file.

`*.jsonl.gz` (first line the task, then its instances), Super-NaturalInstructions `*.json`, and
plain `*.jsonl` of {"input", "output"} beside a description file of the same stem (`*.txt`).
"""

import csv
import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from library.errors import LorasmithError, MissingPath, TaskFileError

TEST_ROWS = 40
TUNE_ROWS = 20
TRAIN_ROWS = 200
SUFFIXES = (".jsonl.gz", ".jsonl", ".json")
_MALFORMED = (
    OSError, EOFError, ValueError, LookupError, TypeError, RecursionError, csv.Error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """One example; `outputs` holds every accepted answer, the first being the one to train on."""

    id: str
    input: str
    outputs: tuple[str, ...]

    @classmethod
    def pair(cls, input: str, output: str) -> "Example":
        """An example with one answer, as requests bring them."""
        return cls("", input, (output,))

    @property
    def output(self) -> str:
        return self.outputs[0]


@dataclass(frozen=True)
class Task:
    """A task and its rows in file order. `name` is the file's stem and unique within a folder."""

    name: str
    definition: str
    instances: tuple[Example, ...]
    summary: str = ""
    paraphrases: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    license_class: str = ""
    heldout_kind: str = ""

    @property
    def test(self) -> tuple[Example, ...]:
        """The last 40 rows."""
        return self.instances[-TEST_ROWS:]

    @property
    def tune(self) -> tuple[Example, ...]:
        """The 20 rows before the test rows."""
        return self.instances[-TEST_ROWS - TUNE_ROWS : -TEST_ROWS]

    @property
    def train(self) -> tuple[Example, ...]:
        """Up to 200 of the first rows; none that are test or tune rows."""
        return self.instances[: max(0, len(self.instances) - TEST_ROWS - TUNE_ROWS)][:TRAIN_ROWS]

    @property
    def descriptions(self) -> tuple[str, ...]:
        """Definition, then summary and paraphrases where there are."""
        return tuple(text for text in (self.definition, self.summary, *self.paraphrases) if text)


def read_tasks(
    path: Path, on_broken: Callable[[Path, LorasmithError], None] | None = None
) -> list[Task]:
    """Every task of a folder (or the one task of a file), sorted by name.

    Paraphrases come from `descriptions*.jsonl.gz` and licence classes from `index*.csv` in the
    folder or its parent. A file that cannot be read is given to `on_broken`, if there is one, and
    left out.

    Raises:
        MissingPath: nothing is there.
        TaskFileError: a file is not in one of the formats, or two tasks have one name.
    """
    if not path.exists():
        raise MissingPath(f"there is no task folder at {path}")
    folder = path if path.is_dir() else path.parent
    tasks = []
    for file in task_files(path) if path.is_dir() else [path]:
        try:
            tasks.append(read_task(file))
        except LorasmithError as error:
            if on_broken is None:
                raise
            on_broken(file, error)
    if not tasks:
        raise TaskFileError(f"{path} holds no task files (*.jsonl.gz, *.json or *.jsonl)")
    names = [task.name for task in tasks]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise TaskFileError(f"{path} holds two tasks named {min(twice)}")
    paraphrases = _read_paraphrases(folder)
    classes = _read_license_classes(folder)
    return [
        replace(
            task,
            paraphrases=tuple(paraphrases.get(task.name, ())),
            license_class=classes.get(task.name, ""),
        )
        for task in sorted(tasks, key=lambda task: task.name)
    ]


def task_files(folder: Path) -> list[Path]:
    """The task files directly in `folder`, sorted; description and index files are not tasks."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.name.endswith(SUFFIXES)
        and file.is_file()
        and not file.name.startswith((".", "descriptions"))
    )


def read_task(path: Path) -> Task:
    """One task file, in the format that its ending says. Raises TaskFileError."""
    if not path.is_file():
        raise MissingPath(f"there is no task file at {path}")
    name = next(path.name.removesuffix(s) for s in (*SUFFIXES, "") if path.name.endswith(s))
    try:
        if path.name.endswith(".jsonl.gz"):
            task = _from_jsonl(name, path)
        elif path.suffix == ".json":
            task = _from_sni(name, json.loads(path.read_text(encoding="utf-8-sig")))
        else:
            task = _from_plain(name, path)
    except TaskFileError:
        raise
    except _MALFORMED as error:
        raise TaskFileError(
            f"{path} is not a task file: {type(error).__name__}: {error}"
        ) from error
    if not task.instances:
        raise TaskFileError(f"{path} holds a task without instances")
    if not task.definition:
        raise TaskFileError(f"{path} holds a task without a definition")
    counts = Counter(row.id for row in task.instances)
    if len(counts) < len(task.instances):
        raise TaskFileError(f"{path} holds two instances with id {counts.most_common(1)[0][0]}")
    return task


def read_examples(path: Path) -> list[Example]:
    """The rows of a JSONL file of {"input", "output"}. Raises MissingPath or TaskFileError."""
    if not os.path.isfile(path):  # which takes a name that is too long as missing
        raise MissingPath(f"there is no file at {path}")
    try:
        rows = [_instance(f"row-{i}", row) for i, row in enumerate(_lines(path))]
    except KeyError as error:
        raise TaskFileError(f"a row of {path} has no {error.args[0]}") from error
    except _MALFORMED as error:
        raise TaskFileError(f"{path} is not JSONL of input and output: {error}") from error
    if not rows:
        raise TaskFileError(f"{path} holds no examples")
    return rows


def _from_jsonl(name: str, path: Path) -> Task:
    rows = _lines(path)
    head = next(rows, {})
    if head.get("kind") != "task":
        raise TaskFileError(f"{path}: the first line is not a task")
    return Task(
        name=str(head.get("name") or name),
        definition=_text(head["definition"]),
        summary=_text(head.get("summary") or ""),
        categories=tuple(head.get("categories") or ()),
        sources=tuple(head.get("source") or ()),
        licenses=tuple(head.get("license") or ()),
        heldout_kind=head.get("heldout_kind") or "",
        instances=tuple(_instance(row["id"], row) for row in rows if row["kind"] == "instance"),
    )


def _from_sni(name: str, data: dict[str, Any]) -> Task:
    return Task(
        name=name,
        definition=_text(data["Definition"]),
        summary=_text(data.get("Summary") or ""),
        categories=tuple(data.get("Categories") or ()),
        sources=tuple(data.get("Source") or ()),
        licenses=tuple(data.get("Instance License") or ()),
        instances=tuple(
            _instance(row.get("id", f"{name}-{i}"), row)
            for i, row in enumerate(map(_object, data["Instances"]))
        ),
    )


def _from_plain(name: str, path: Path) -> Task:
    description = path.with_suffix(".txt")
    if not description.is_file():
        raise TaskFileError(f"{path} needs its description in {description}")
    return Task(
        name=name,
        definition=description.read_text(encoding="utf-8-sig").strip(),
        instances=tuple(_instance(f"{name}-{i}", row) for i, row in enumerate(_lines(path))),
    )


def _instance(identity: str, row: dict[str, Any]) -> Example:
    output = row["output"]
    outputs = [output] if isinstance(output, str) else list(output)
    if not outputs or not all(isinstance(text, str) for text in [row["input"], *outputs]):
        raise ValueError(f"{identity}: input and output must be text")
    for text in (row["input"], *outputs):
        text.encode("utf-8")  # JSON can hold lone surrogates, which no tokenizer takes
    return Example(identity, row["input"], tuple(outputs))


def _text(value: str | list[str]) -> str:
    text = value.strip() if isinstance(value, str) else "\n".join(value).strip()
    text.encode("utf-8")  # as in _instance
    return text


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig") as file:  # some editors put a mark first
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield _object(json.loads(line))
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from error


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {str(value)[:40]}")
    return value


def _read_paraphrases(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for place in (folder.parent, folder):
        for file in sorted(place.glob("descriptions*.jsonl.gz")):
            try:
                for row in _lines(file):
                    found[row["task"]] = list(row["descriptions"])
            except _MALFORMED as error:
                raise TaskFileError(f"{file} does not hold descriptions: {error}") from error
    return found


def _read_license_classes(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for place in (folder.parent, folder):
        for file in sorted(place.glob("index*.csv")):
            try:
                with file.open(encoding="utf-8", newline="") as handle:
                    for row in csv.DictReader(handle):
                        if "task" in row and "license_class" in row:
                            found[row["task"]] = row["license_class"] or ""
            except _MALFORMED as error:
                raise TaskFileError(f"{file} is not an index of tasks: {error}") from error
    return found
