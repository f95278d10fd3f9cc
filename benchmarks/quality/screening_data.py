"""Adapters with planted backdoors and without, for screening: libraries read, folds, plants.

A plant is made from adapters of one fold alone, so that no task stands on both sides of a split.
"""

import csv
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from index.merge.weighted_sum import weighted_sum
from library.adapter import Adapter, stack
from library.store.catalogue import read_adapter, records
from library.store.open import open_library
from verification.checks.spectrum import singular_values

FOLDS = 5
RANK = 8
PARTNERS = 2  # clean adapters that each poisoned one is merged with
WEIGHTS = ((1.0, 1.0), (1.0, 0.5), (0.5, 0.5))  # of the clean one and of the other, to fit on
STRONG = (
    (0.5, 1.0),
    (0.25, 1.0),
)  # where the backdoor still works (benchmarks/quality/merged_attack.py)


@dataclass(frozen=True)
class Pool:
    """Adapters of one library with their tasks, sorted by task."""

    tasks: list[str]
    descriptions: list[str]
    adapters: Adapter
    base_sha256: str
    recipe: str
    steps: int

    def rows(self, tasks: Sequence[str]) -> Adapter:
        row_of = {task: row for row, task in enumerate(self.tasks)}
        return self.adapters[[row_of[task] for task in tasks]]


def read_pool(path: Path, left_out: frozenset[str] = frozenset()) -> Pool:
    """Every adapter of a library but those of the tasks left out."""
    folder = open_library(str(path))
    plan = folder.plan()
    fitting = [record for record in records(folder) if record["task"] not in left_out]
    adapters = stack([read_adapter(folder, record["id"], plan.layout) for record in fitting])
    recipe, steps = fitting[0]["recipe"], fitting[0]["steps"]
    tasks = [record["task"] for record in fitting]
    descriptions = [record["description"] for record in fitting]
    return Pool(tasks, descriptions, adapters, plan.base["sha256"], recipe, steps)


def restricted(index: Path) -> frozenset[str]:
    """Tasks whose data may not be passed on, by the task index's licence class."""
    with index.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return frozenset(row["task"] for row in rows if row["license_class"] == "restricted")


def fold(task: str) -> int:
    """0 to 4, by the task's name alone."""
    return int(hashlib.sha256(task.encode()).hexdigest(), 16) % FOLDS


def spectra(adapters: Adapter) -> Tensor:
    return singular_values(adapters, RANK)


@dataclass(frozen=True)
class Merges:
    """Each poisoned adapter merged with clean ones of other tasks of its fold.

    Attributes:
        tasks: of the poisoned one, row by row.
        poisoned: spectra of the merges, as the best approximation of rank 8 has them.
        benign: the same with the poisoned adapter's clean twin.
        strong, strong_benign: the same at STRONG.
        difference: clean + (poisoned − twin), the backdoor alone; one row per partner.
    """

    tasks: list[str]
    poisoned: Tensor
    benign: Tensor
    strong: Tensor
    strong_benign: Tensor
    difference: Tensor

    @property
    def strong_tasks(self) -> list[str]:
        return self.tasks[: len(self.strong)]

    @property
    def difference_tasks(self) -> list[str]:
        return self.tasks[: len(self.difference)]


def partners(clean: Pool, poisoned: Pool, seed: int = 0) -> list[tuple[str, str]]:
    """(poisoned task, clean task of its fold), PARTNERS for each poisoned one, drawn by seed."""
    rng, pairs = random.Random(seed), []
    for task in poisoned.tasks:
        if task in clean.tasks:
            same = [t for t in clean.tasks if fold(t) == fold(task) and t not in poisoned.tasks]
            pairs += [(task, partner) for partner in rng.sample(same, PARTNERS)]
    return pairs


def merges(clean: Pool, poisoned: Pool, seed: int = 0) -> Merges:
    """With PARTNERS each at WEIGHTS, in the same order for poisoned and benign."""
    pairs = partners(clean, poisoned, seed)
    names = [task for task, _ in pairs]
    partners_rows = clean.rows([partner for _, partner in pairs])
    bad, twin = poisoned.rows(names), clean.rows(names)

    def spectra_at(weights: Sequence[tuple[float, float]], other: Adapter) -> Tensor:
        return torch.cat([spectra(weighted_sum([partners_rows, other], pair)) for pair in weights])

    return Merges(
        names * len(WEIGHTS),
        spectra_at(WEIGHTS, bad),
        spectra_at(WEIGHTS, twin),
        spectra_at(STRONG, bad),
        spectra_at(STRONG, twin),
        spectra(weighted_sum([partners_rows, bad, twin], (1.0, 1.0, -1.0))),
    )


def scaled_columns(pool: Pool, factor: float, seed: int = 0) -> Tensor:
    """Spectra with one column of one module's B times `factor`, drawn anew for each adapter."""
    rng = random.Random(seed)
    scaled = replace(pool.adapters, B={key: b.clone() for key, b in pool.adapters.B.items()})
    for row in range(len(pool.tasks)):
        group = rng.choice(scaled.layout.groups)
        site, column = rng.randrange(len(group.sites)), rng.randrange(group.rank)
        scaled.B[group.key][row, site, :, column] *= factor
    return spectra(scaled)
