"""Tasks: a description with input/output examples, read from three kinds of file.

`*.jsonl.gz` (first line the task, then its instances), Super-NaturalInstructions `*.json`, and
plain `*.jsonl` of {"input", "output"} beside a description file of the same stem (`*.txt`) and, if
there is one, a file of paraphrases (`*.paraphrases.txt`, a line of `---` between two).
"""

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from library.errors import LorasmithError, MissingPath, TaskFileError
from library.files import STANDARD_INPUT, read_input

TEST_ROWS = 40
TUNE_ROWS = 20
TRAIN_ROWS = 200
TASK_SUFFIXES = (".jsonl.gz", ".jsonl", ".json")
PARAPHRASES_SUFFIX = ".paraphrases.txt"
# Our names of what Super-NaturalInstructions' files say beside the definition and the instances.
_SNI_FIELDS = {
    "summary": "Summary",
    "categories": "Categories",
    "source": "Source",
    "license": "Instance License",
}
_MALFORMED = (
    OSError, EOFError, ValueError, LookupError, TypeError, RecursionError, csv.Error, zlib.error,
)  # fmt: skip


class MalformedTask(TaskFileError):
    """A fault in a task file.

    Attributes:
        path: of the file.
        position: such as "line 3", or nothing where the fault is of the whole file.
        fault: in words that are the same for every fault of this kind.
    """

    def __init__(self, path: Path, position: str, fault: str) -> None:
        super().__init__(f"{path}{', ' if position else ''}{position}: {fault}")
        self.path, self.position, self.fault = path, position, fault


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
    """A task and its rows in file order. `name` is unique within a folder: a task file's stem.

    A task that is `authored` was written for training: it has neither tune nor test rows, and its
    labels are never swapped for others, as they mean what they say.
    """

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
    authored: bool = False

    @property
    def test(self) -> tuple[Example, ...]:
        """The last 40 rows; none if authored."""
        return () if self.authored else self.instances[-TEST_ROWS:]

    @property
    def tune(self) -> tuple[Example, ...]:
        """The 20 rows before the test rows; none if authored."""
        return () if self.authored else self.instances[-TEST_ROWS - TUNE_ROWS : -TEST_ROWS]

    @property
    def train(self) -> tuple[Example, ...]:
        """Up to 200 of the first rows; none that are test or tune rows."""
        kept = 0 if self.authored else TEST_ROWS + TUNE_ROWS
        return self.instances[: max(0, len(self.instances) - kept)][:TRAIN_ROWS]

    @property
    def descriptions(self) -> tuple[str, ...]:
        """Definition, then summary and paraphrases where there are."""
        return tuple(text for text in (self.definition, self.summary, *self.paraphrases) if text)


def read_tasks(
    path: Path, on_broken: Callable[[Path, LorasmithError], None] | None = None
) -> list[Task]:
    """Every task of a folder (or the one task of a file or pipe), sorted by name.

    Paraphrases also come from `descriptions*.jsonl.gz` and licence classes from `index*.csv` in the
    folder or its parent. A file that cannot be read is given to `on_broken`, if there is one, and
    left out.

    Raises:
        MissingPath: nothing is there.
        TaskFileError: a file is not in one of the formats, or two tasks have one name.
    """
    folder = path if path.is_dir() else path.parent
    tasks: dict[str, Task] = {}
    for file in task_paths(path):
        try:
            task = read_task(file)
        except LorasmithError as error:
            if on_broken is None:
                raise
            on_broken(file, error)
            continue
        if task.name in tasks:
            raise TaskFileError(f"{path} holds two tasks named {task.name}")
        tasks[task.name] = task
    paraphrases = _read_paraphrases(folder)
    classes = _read_license_classes(folder)
    return [
        replace(
            tasks[name],
            paraphrases=tuple(paraphrases.get(name, tasks[name].paraphrases)),
            license_class=classes.get(name, ""),
        )
        for name in sorted(tasks)
    ]


def task_paths(path: Path) -> list[Path]:
    """The task files of a folder, or the file, pipe or `-` itself.

    Raises MissingPath; TaskFileError: the folder holds none.
    """
    if path.is_dir():
        files = task_files(path)
        if not files:
            raise TaskFileError(f"{path} holds no task files (*.jsonl.gz, *.json or *.jsonl)")
        return files
    if path != STANDARD_INPUT and not os.path.lexists(path):
        raise MissingPath(f"there is no task folder or file at {path}")
    return [path]


def task_files(folder: Path) -> list[Path]:
    """The task files directly in `folder`, sorted; description and index files are not tasks."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.name.endswith(TASK_SUFFIXES)
        and file.is_file()
        and not file.name.startswith((".", "descriptions"))
    )


def read_task(path: Path) -> Task:
    """One task, from a file in the format of its ending, or from a pipe or `-` by its content.

    Raises MissingPath or MalformedTask.
    """
    content = read_input(path)
    name = next(path.name.removesuffix(s) for s in (*TASK_SUFFIXES, "") if path.name.endswith(s))
    with locating(path):
        text = file_text(content, path)
        sni = not path.name.endswith(TASK_SUFFIXES) and '"Definition"' in text
        if path.suffix == ".json" or sni:
            task = _from_sni(name, path, json.loads(text))
        else:
            task = _from_lines(name, path, list(_json_lines(path, text)))
    if not task.instances:
        raise MalformedTask(path, "", "the task has no instances")
    if not task.definition:
        raise MalformedTask(path, "", "the task has no definition")
    if len({row.id for row in task.instances}) < len(task.instances):
        raise MalformedTask(path, "", "two instances have one id")
    return task


def read_examples(path: Path) -> list[Example]:
    """The rows of JSON lines of {"input", "output"} in a file, a pipe or `-`.

    Several accepted answers are a list, as "output" or "outputs".
    Raises MissingPath or TaskFileError.
    """
    content = read_input(path)
    with locating(path):
        lines = list(_json_lines(path, file_text(content, path)))
    if not lines:
        raise TaskFileError(f"{path} holds no examples")
    return [
        _example(path, f"line {number}", f"row-{i}", row) for i, (number, row) in enumerate(lines)
    ]


def _from_lines(name: str, path: Path, lines: list[tuple[int, dict[str, Any]]]) -> Task:
    """A task from JSON lines: ours, which begin with the task, or plain ones with a description."""
    head = lines[0][1] if lines else {}
    if head.get("kind") != "task":
        if path.suffix == ".gz":
            raise MalformedTask(path, "", "the first line is not a task")
        return _from_plain(name, path, lines)
    instances = tuple(
        _example(path, f"line {number}", str(row.get("id", f"{name}-{i}")), row)
        for i, (number, row) in enumerate(lines[1:])
        if row.get("kind", "instance") == "instance"
    )
    with locating(path, f"line {lines[0][0]}"):
        return _task(str(head.get("name") or name), head, instances)


def _task(name: str, head: Mapping[str, Any], instances: Iterable[Example]) -> Task:
    """A task of the members of our files' first line."""
    return Task(
        name=name,
        definition=_text(head["definition"]),
        summary=_text(head.get("summary") or ""),
        categories=tuple(head.get("categories") or ()),
        sources=tuple(head.get("source") or ()),
        licenses=tuple(head.get("license") or ()),
        heldout_kind=head.get("heldout_kind") or "",
        instances=tuple(instances),
    )


def _from_plain(name: str, path: Path, lines: list[tuple[int, dict[str, Any]]]) -> Task:
    description = path.with_suffix(".txt")
    if not description.is_file():
        raise MalformedTask(path, "", f"its description {description.name} is not beside it")
    return Task(
        name=name,
        definition=description.read_text(encoding="utf-8-sig").strip(),
        instances=tuple(
            _example(path, f"line {number}", f"{name}-{i}", row)
            for i, (number, row) in enumerate(lines)
        ),
        paraphrases=_plain_paraphrases(path.with_suffix(PARAPHRASES_SUFFIX)),
    )


def _plain_paraphrases(file: Path) -> tuple[str, ...]:
    """The texts between lines of `---`; none if there is no such file."""
    if not file.is_file():
        return ()
    with locating(file):
        content = file.read_text(encoding="utf-8-sig")
    texts = tuple(text.strip() for text in re.split(r"^---[ \t]*$", content, flags=re.MULTILINE))
    if not all(texts) or len(set(texts)) < len(texts):
        raise MalformedTask(file, "", "a paraphrase is empty or there twice")
    return texts


def _from_sni(name: str, path: Path, data: dict[str, Any]) -> Task:
    head = {"definition": data["Definition"]}
    head |= {member: data.get(field) for member, field in _SNI_FIELDS.items()}
    instances = (
        _example(path, f"instance {i + 1}", str(row.get("id", f"{name}-{i}")), row)
        for i, row in enumerate(map(_object, data["Instances"]))
    )
    return _task(name, head, instances)


def _example(path: Path, position: str, identity: str, row: dict[str, Any]) -> Example:
    with locating(path, position):
        output = row["outputs"] if "outputs" in row else row["output"]
        outputs = [output] if isinstance(output, str) else list(output)
        texts = [row["input"], *outputs]
        if not outputs or not all(isinstance(text, str) for text in texts):
            raise ValueError("input and output must be text")
        for text in texts:
            text.encode("utf-8")  # JSON can hold lone surrogates, which no tokenizer takes
    return Example(identity, row["input"], tuple(outputs))


def _text(value: str | list[str]) -> str:
    text = value.strip() if isinstance(value, str) else "\n".join(value).strip()
    text.encode("utf-8")  # as in _example
    return text


def file_text(content: bytes, path: Path) -> str:
    """The text of a file's content, unpacked if it is gzipped. Raises what `locating` turns."""
    if path.suffix == ".gz" or content.startswith(b"\x1f\x8b"):  # gzip's magic number
        content = gzip.decompress(content)
    return content.decode("utf-8-sig")  # some editors put a mark first


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The object of every line that is not blank, with the line's number."""
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if line.strip():
            with locating(path, f"line {number}"):
                value = _object(json.loads(line))
            yield number, value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


@contextmanager
def locating(path: Path, position: str = "") -> Iterator[None]:
    """Turn every error that malformed content causes into a MalformedTask."""
    try:
        yield
    except _MALFORMED as error:
        raise MalformedTask(path, position, _fault(error)) from error


def _fault(error: Exception) -> str:
    """The same words for every fault of a kind, without names and numbers of the one case."""
    match error:
        case json.JSONDecodeError():
            return f"not JSON ({error.msg})"
        case KeyError():
            return f"{error.args[0]!r} is missing"
        case UnicodeEncodeError():
            return "a text holds half of a surrogate pair"
        case UnicodeDecodeError():
            return "not UTF-8"
        case OSError() | EOFError() | zlib.error():
            return f"cannot be read ({error})"
        case RecursionError():
            return "nested too deeply"
    return str(error)


def _read_paraphrases(folder: Path) -> dict[str, list[str]]:
    paraphrases: dict[str, list[str]] = {}
    for file in _beside(folder, "descriptions*.jsonl.gz"):
        with locating(file):
            for number, row in _json_lines(file, file_text(file.read_bytes(), file)):
                with locating(file, f"line {number}"):
                    paraphrases[row["task"]] = list(row["descriptions"])
    return paraphrases


def _read_license_classes(folder: Path) -> dict[str, str]:
    classes: dict[str, str] = {}
    for file in _beside(folder, "index*.csv"):
        with locating(file), file.open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle):
                if "task" in row and "license_class" in row:
                    classes[row["task"]] = row["license_class"] or ""
    return classes


def _beside(folder: Path, pattern: str) -> list[Path]:
    """Files of the folder's parent, then of the folder, which count more."""
    return [file for parent in (folder.parent, folder) for file in sorted(parent.glob(pattern))]
