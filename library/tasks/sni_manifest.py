"""The manifest: the instances of Super-NaturalInstructions (SNI) that our task files hold.

A manifest is a folder of `index.csv`, `index_extra.csv` and `instances.safetensors`, without a word
of any task. The index files are those beside the task files with three more columns: `task_sha256`
and `instances_sha256`, the SHA-256 of the canonical JSON of a task file's first line and of the
list of its other lines; and `examples`, which positive examples are kept, each as the start of its
SHA-256. The tensors run over the instances of all tasks, in the order of the index files and of the
task files: `ids` (uint8 [instances, 8]), the first half of the 32 hex digits of an id, and
`answers` (uint8 [instances]), how many answers are kept.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from library.canonical import json_digest
from library.errors import TaskFileError

SHIPPED = Path(__file__).parent / "sni_data"
SPLITS = ("train", "train_extra", "public_heldout")
INDEX_FILES = ("index.csv", "index_extra.csv")
INSTANCES_FILE = "instances.safetensors"
ID_DIGITS = 16  # of an id or an example's digest; 64 bits are unique within a task
_ADDED = ("task_sha256", "instances_sha256", "examples")
Line = dict[str, Any]


@dataclass(frozen=True)
class SniTask:
    """The recipe of one task file.

    Attributes:
        index_file, index: the index file that lists the task, and its line there.
        task_sha256, instances_sha256: digests of the task file's content.
        examples: starts of the digests of the positive examples, in order.
        ids: starts of the instances' ids, after `taskN-`, in order.
        answers: how many answers each instance keeps.
    """

    index_file: str
    index: Mapping[str, str]
    task_sha256: str
    instances_sha256: str
    examples: tuple[str, ...]
    ids: tuple[str, ...]
    answers: tuple[int, ...]

    @property
    def name(self) -> str:
        """As the task file is called."""
        return self.index["task"]

    @property
    def number(self) -> str:
        """SNI's short name, with which the ids begin: `task1152`."""
        return self.name.split("_")[0]

    @property
    def split(self) -> str:
        """One of SPLITS: the folder that the task file lies in."""
        return self.index["split"].replace("-", "_")


def read_sni_manifest(folder: Path) -> list[SniTask]:
    """The tasks of a manifest, in its order. Raises TaskFileError if its files do not fit."""
    tensors = load_file(folder / INSTANCES_FILE)
    ids = tensors["ids"].tobytes().hex()
    answers = tensors["answers"].tolist()
    tasks, start = [], 0
    for file in INDEX_FILES:
        for line in _read_index(folder / file):
            digests = [line.pop(name) for name in _ADDED]
            stop = start + int(line["n"])
            offsets = range(start * ID_DIGITS, stop * ID_DIGITS, ID_DIGITS)
            tasks.append(
                SniTask(
                    index_file=file,
                    index=line,
                    task_sha256=digests[0],
                    instances_sha256=digests[1],
                    examples=tuple(digests[2].split()),
                    ids=tuple(ids[i : i + ID_DIGITS] for i in offsets),
                    answers=tuple(answers[start:stop]),
                )
            )
            start = stop
    if start != len(answers):
        raise TaskFileError(f"{folder} lists {start} instances and names {len(answers)}")
    return tasks


def make_manifest(tasks: Path) -> dict[str, bytes]:
    """The manifest's files for the folder that holds our index files and the splits.

    Raises TaskFileError for instances whose ids are not SNI's, or begin alike.
    """
    files, ids, answers = {}, [], []
    for file in INDEX_FILES:
        lines = _read_index(tasks / file)
        for line in lines:
            split = line["split"].replace("-", "_")
            head, *rows = _read_lines(tasks / split / f"{line['task']}.jsonl.gz")
            examples = map(example_digest, head["positive_examples"])
            digests = (json_digest(head), json_digest(rows), " ".join(examples))
            line |= dict(zip(_ADDED, digests, strict=True))
            ids += _ids(line["task"], rows)
            answers += [len(row["output"]) for row in rows]
        files[file] = index_bytes(lines)
    digits = np.frombuffer(bytes.fromhex("".join(ids)), np.uint8)
    packed = digits.reshape(-1, ID_DIGITS // 2)  # (instances, 8)
    tensors = {"ids": packed, "answers": np.array(answers, np.uint8)}
    return files | {INSTANCES_FILE: save(tensors)}


def example_digest(example: Mapping[str, str]) -> str:
    """The start of the SHA-256 of a positive example's canonical JSON."""
    return json_digest(dict(example))[:ID_DIGITS]


def index_bytes(lines: Iterable[Mapping[str, str]]) -> bytes:
    """An index file with these lines, of which there is at least one, in CSV (RFC 4180)."""
    lines = list(lines)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]))
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode()


def _ids(name: str, rows: list[Line]) -> list[str]:
    pattern = re.compile(f"{name.split('_')[0]}-([0-9a-f]{{32}})")
    ids = []
    for row in rows:
        match = pattern.fullmatch(row["id"])
        if match is None:
            raise TaskFileError(f"{name}: {row['id']} is not an id of SNI")
        ids.append(match[1][:ID_DIGITS])
    if len(set(ids)) < len(ids):
        raise TaskFileError(f"{name}: two ids begin with the same {ID_DIGITS} digits")
    return ids


def _read_index(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _read_lines(file: Path) -> list[Line]:
    with gzip.open(file, "rt", encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]
