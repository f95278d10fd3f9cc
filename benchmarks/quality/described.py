"""Tasks with the vectors of all their descriptions, which two scripts need; kept in the cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import load_file, save

from index.encoders.descriptions import DescriptionEncoder, normalise
from library.canonical import json_digest
from library.files import cache_dir, write_file
from library.tasks.files import Task, read_tasks

Rows = Float[np.ndarray, "n d"]
AT_ONCE = 512
SAME = 0.9995  # descriptions of a higher cosine are one: no search could tell them apart


@dataclass(frozen=True)
class Described:
    """A task and the vectors of its definition, its summary and its paraphrases.

    `summary` has one row or none; the vectors have length 1.
    """

    task: Task
    definition: Rows
    summary: Rows
    paraphrases: Rows

    @property
    def indexed(self) -> Rows:
        """The paraphrases that an index may hold: every other one; the rest are queries."""
        return self.paraphrases[::2]

    @property
    def queries(self) -> Rows:
        return self.paraphrases[1::2]


def described(folders: Sequence[Path]) -> list[Described]:
    """The tasks of some folders, by name."""
    tasks = sorted((t for f in folders for t in read_tasks(f)), key=lambda task: task.name)
    texts = [normalise(text) for task in tasks for text in _texts(task)]
    vectors = _vectors(texts)
    results, start = [], 0
    for task in tasks:
        rows = vectors[start : start + len(_texts(task))]
        start += len(rows)
        middle = 2 if task.summary else 1
        results.append(Described(task, rows[:1], rows[1:middle], rows[middle:]))
    return results


def mean_row(definition: Rows, more: Rows) -> Rows:
    """The rows that an index keeps of a task: its definition, and the mean of all it knows."""
    if not len(more):
        return definition
    mean = np.concatenate([definition, more]).mean(axis=0, keepdims=True)
    return np.concatenate([definition, mean / np.linalg.norm(mean)])


def _texts(task: Task) -> tuple[str, ...]:
    return task.descriptions


def _vectors(texts: Sequence[str]) -> Rows:
    file = cache_dir() / "descriptions" / f"{json_digest(list(texts))[:16]}.safetensors"
    if not file.exists():
        encoder, rows = DescriptionEncoder(dtype=torch.float32), []
        for start in range(0, len(texts), AT_ONCE):
            rows.append(encoder.vectors(texts[start : start + AT_ONCE]).numpy())
            print(f"{start + len(rows[-1])} of {len(texts)} descriptions embedded", flush=True)
        write_file(file, save({"vectors": np.concatenate(rows)}))
    return load_file(file)["vectors"]
