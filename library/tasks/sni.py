"""Rebuild our task files from a clone of Super-NaturalInstructions (allenai/natural-instructions).

The manifest says which instances, in what order. Beyond that a task file differs from SNI's in
this: inputs and answers are stripped, empty and repeated answers are gone and of the others the
first few are kept; one or two positive examples are kept; the summary is the one that
`tasks/README.md` has (none in train_extra); type and labels come from the kept instances.
Wang et al. 2022, "Super-NaturalInstructions".
"""

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.canonical import json_digest
from library.errors import MissingPath, TaskFileError
from library.progress import Progress
from library.tasks.sni_manifest import INDEX_FILES, Line, SniTask, example_digest, index_bytes

MOST_LABELS = 20  # a task with at most so many different first answers is classification
_MALFORMED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Rebuilt:
    """Files by their path in the folder, how many are tasks, and a sentence for each other task."""

    files: dict[str, bytes]
    tasks: int
    problems: tuple[str, ...]


def rebuild_tasks(clone: Path, tasks: Sequence[SniTask], progress: Progress) -> Rebuilt:
    """The task and index files of the tasks that the clone (or its tasks/ folder) still holds.

    Each is compared with the manifest's digests. Equal clones give equal
    bytes.

    Raises:
        MissingPath: there is no clone.
        TaskFileError: the folder is not SNI's.
    """
    if not clone.is_dir():
        raise MissingPath(f"there is no folder at {clone}")
    folder = clone / "tasks" if (clone / "tasks").is_dir() else clone
    summaries = read_summaries(folder)
    files, done, problems = {}, [], []
    for count, task in enumerate(tasks, 1):
        try:
            lines = rebuild_task(folder, task, summaries)
        except TaskFileError as error:
            problems.append(str(error))
        else:
            files[f"{task.split}/{task.name}.jsonl.gz"] = _pack(lines)
            done.append(task)
        progress(count, len(tasks))
    for name in INDEX_FILES:
        listed = [task.index for task in done if task.index_file == name]
        if listed:
            files[name] = index_bytes(listed)
    return Rebuilt(files, len(done), tuple(problems))


def rebuild_task(folder: Path, task: SniTask, summaries: Mapping[str, str]) -> list[Line]:
    """The lines of one task file: the task, then its instances.

    Raises TaskFileError, which says what is missing in SNI's file or different from the manifest.
    """
    file = folder / f"{task.name}.json"
    if not file.is_file():
        raise TaskFileError(f"{task.name}: {file} does not exist")
    try:
        data = json.loads(file.read_text(encoding="utf-8-sig"))
        rows = _instances(task, data["Instances"])
        if json_digest(rows) != task.instances_sha256:
            raise TaskFileError(f"{task.name}: an input or an answer has changed in {file}")
        summary = "" if task.split == "train_extra" else summaries.get(task.name, "")
        head = _task_line(task, data, rows, summary)
        if json_digest(head) != task.task_sha256:
            what = "definition, summary, examples, category, source or licence"
            raise TaskFileError(f"{task.name}: its {what} has changed in {folder}")
    except _MALFORMED as error:
        reason = f"{type(error).__name__}: {error}"
        raise TaskFileError(f"{task.name}: {file} cannot be used: {reason}") from error
    return [head, *rows]


def read_summaries(folder: Path) -> dict[str, str]:
    """Summary of each task in the table of SNI's tasks/README.md. Raises TaskFileError."""
    file = folder / "README.md"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise TaskFileError(
            f"{folder} is not the tasks folder of natural-instructions: {file} cannot be read"
        ) from error
    cells = [line.split("|") for line in text.split("\n") if "|" in line]
    return {name.strip(" \t`"): summary.strip() for name, summary, *_ in cells}


def _instances(task: SniTask, instances: list[Any]) -> list[Line]:
    start = len(task.number) + 1
    by_id = {row.get("id", "")[: start + len(task.ids[0])]: row for row in instances}
    ids = [f"{task.number}-{identity}" for identity in task.ids]
    missing = [identity for identity in ids if identity not in by_id]
    if missing:
        share = f"{len(missing)} of {len(ids)} instances"
        raise TaskFileError(f"{task.name}: the clone lacks {share}, the first {missing[0]}…")
    pairs = zip(ids, task.answers, strict=True)
    return [_instance(by_id[identity], count) for identity, count in pairs]


def _instance(row: Line, count: int) -> Line:
    answers = dict.fromkeys(answer.strip() for answer in row["output"])
    return {
        "kind": "instance",
        "id": row["id"],
        "input": row["input"].strip(),
        "output": [answer for answer in answers if answer][:count],
    }


def _task_line(task: SniTask, data: dict[str, Any], rows: list[Line], summary: str) -> Line:
    labels = sorted({row["output"][0] for row in rows})
    few = len(labels) <= MOST_LABELS
    return {
        "kind": "task",
        "id": task.number,
        "name": task.name,
        "categories": data["Categories"],
        "domains": data["Domains"],
        "definition": "\n".join(data["Definition"]).strip(),
        "summary": summary,
        "positive_examples": _examples(task, data["Positive Examples"]),
        "type": "classification" if few else "generation",
        "labels": labels if few else None,
        "split": task.index["split"],
        "heldout_kind": task.index.get("heldout_kind", ""),
        "source": data["Source"],
        "url": data["URL"],
        "license": data["Instance License"],
    }


def _examples(task: SniTask, examples: list[Line]) -> list[Line]:
    plain = [{key: one[key] for key in ("input", "output", "explanation")} for one in examples]
    by_digest = {example_digest(one): one for one in plain}
    return [by_digest[digest] for digest in task.examples if digest in by_digest]


def _pack(lines: Sequence[Line]) -> bytes:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(text.encode())
    return packed.getvalue()
