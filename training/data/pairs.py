"""Pairs of a library's adapters with rows of both tasks: what a merge predictor is trained on."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from library.adapter import Adapter, stack
from library.base.batches import TokenBatch, TokenRow, grouped
from library.base.models import load_tokenizer, resolve_base
from library.build.plan import tokenised
from library.errors import TaskFileError, UsageError
from library.store.catalogue import read_adapter, records
from library.store.open import open_library
from library.tasks.files import Task, read_tasks
from training.data.tasks import set_aside

GROUPS = 2  # padded batches that a step's rows are cut into
KEPT = 48  # train rows of a task that are drawn from: tokenising all takes longer than training


@dataclass
class AdapterPairBatch:
    """n pairs of adapters; a row's owner is the pair that shall answer it."""

    first: Adapter
    second: Adapter
    rows: list[TokenBatch]


@dataclass(frozen=True)
class Member:
    """A task with an adapter in the library: its place there and its tokenised rows."""

    task: Task
    place: int
    train: tuple[TokenRow, ...]
    tune: tuple[TokenRow, ...]


class PairDataModule(lightning.LightningDataModule):
    """Pairs among the tasks trained on; pairs among those set aside for validation.

    Args:
        library: folder or URL; every adapter of one rank whose task has rows takes part.
        tasks: folders of tasks.
        base: the library's base, for its tokenizer; the default base if None.
        pairs_per_step: drawn anew for each step.
        rows_per_task: of each of a pair's two tasks.
        max_length: longer rows are left out.
        steps: of training that exist (an epoch).
        set_aside_share: share of the tasks that are kept for validation.
        validation_pairs: how many of their pairs are looked at.
        seed: of all drawing.
        exclude_license_classes: tasks of these classes take no part.
    """

    def __init__(
        self,
        library: str,
        tasks: list[str],
        base: str | None = None,
        pairs_per_step: int = 4,
        rows_per_task: int = 2,
        max_length: int = 160,
        steps: int = 200,
        set_aside_share: float = 0.25,
        validation_pairs: int = 12,
        seed: int = 0,
        exclude_license_classes: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.excluded = set(exclude_license_classes or [])
        self.folder, self.task_folders = open_library(library), tasks
        self.base = resolve_base(base)
        self.plan = self.folder.plan()
        self.pairs_per_step, self.rows_per_task = pairs_per_step, rows_per_task
        self.max_length, self.steps, self.seed = max_length, steps, seed
        self.share, self.validation_pairs = set_aside_share, validation_pairs
        self.training: list[Member] = []
        self.held_back: list[Member] = []

    @property
    def record(self) -> dict[str, Any]:
        """What the checkpoint says of its data."""
        names = ("pairs_per_step", "rows_per_task", "max_length", "steps", "seed")
        return {
            **{name: getattr(self, name) for name in names},
            "set_aside_share": self.share,
            "excluded_license_classes": sorted(self.excluded),
            "base": self.plan.base,
            "tasks": [member.task.name for member in self.training],
            "set_aside": [member.task.name for member in self.held_back],
        }

    def setup(self, stage: str) -> None:
        if self.training:
            return
        found = [task for folder in self.task_folders for task in read_tasks(Path(folder))]
        tasks = {t.name: t for t in found if t.license_class not in self.excluded}
        wanted = (self.plan.layout.digest, 0)
        fitting = [
            record
            for record in records(self.folder)
            if (record["layout_digest"], record["variant"]) == wanted and record["task"] in tasks
        ]
        chosen, aside = set_aside([tasks[r["task"]] for r in fitting], self.share, self.seed)
        if min(len(chosen), len(aside)) < 2:
            raise TaskFileError("pairs need two tasks with adapters, and two more set aside")
        layout = self.plan.layout
        self.adapters = stack([read_adapter(self.folder, r["id"], layout) for r in fitting])
        self._tokenizer = load_tokenizer(self.base)
        place = {record["task"]: i for i, record in enumerate(fitting)}
        self.training = self._members(chosen, place)
        self.held_back = self._members(aside, place)

    def held_out_pairs(self) -> list[tuple[Member, Member]]:
        """The pairs of tasks set aside, in an order of the seed's."""
        found = list(combinations(self.held_back, 2))
        random.Random(f"{self.seed}/held-out").shuffle(found)
        return found[: self.validation_pairs]

    def batch(
        self, pairs: Sequence[tuple[Member, Member]], rows: Sequence[TokenRow]
    ) -> AdapterPairBatch:
        """The pairs' adapters, and rows that are owned by the pairs' numbers."""
        first, second = ([pair[side].place for pair in pairs] for side in (0, 1))
        groups = grouped(rows, self._tokenizer.pad_token_id, GROUPS)
        return AdapterPairBatch(self.adapters[first], self.adapters[second], groups)

    def train_dataloader(self) -> DataLoader[AdapterPairBatch]:
        return DataLoader(_Steps(self), batch_size=None, shuffle=False)

    def val_dataloader(self) -> DataLoader[AdapterPairBatch]:
        return DataLoader(_HeldOut(self), batch_size=None, shuffle=False)

    def transfer_batch_to_device(
        self, batch: AdapterPairBatch, device: torch.device, dataloader_idx: int
    ) -> AdapterPairBatch:
        moved = [group.to(device) for group in batch.rows]
        return AdapterPairBatch(batch.first.to(device), batch.second.to(device), moved)

    def _members(self, tasks: Sequence[Task], place: dict[str, int]) -> list[Member]:
        found = []
        for task in tasks:
            train = tokenised(task.train[:KEPT], self._tokenizer, self.max_length)
            tune = tokenised(task.tune, self._tokenizer, self.max_length)
            if train and tune:
                found.append(Member(task, place[task.name], train, tune))
        if len(found) < 2:
            raise UsageError(f"too few tasks have rows of at most {self.max_length} tokens")
        return found


class _Steps(Dataset[AdapterPairBatch]):
    """Item i is step i of training: a function of (seed, i)."""

    def __init__(self, data: PairDataModule) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.steps

    def __getitem__(self, step: int) -> AdapterPairBatch:
        data, rng = self.data, random.Random(f"{self.data.seed}/{step}")
        pairs, rows = [], []
        for number in range(data.pairs_per_step):
            one, two = rng.sample(data.training, 2)
            pairs.append((one, two))
            drawn = [row for m in (one, two) for row in rng.choices(m.train, k=data.rows_per_task)]
            rows += [replace(row, owner=number) for row in drawn]
        return data.batch(pairs, rows)


class _HeldOut(Dataset[AdapterPairBatch]):
    """Item i is the i-th held-out pair, with the first tune rows of both tasks."""

    ROWS = 4

    def __init__(self, data: PairDataModule) -> None:
        self.data, self.pairs = data, data.held_out_pairs()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, item: int) -> AdapterPairBatch:
        pair = self.pairs[item]
        rows = [replace(row, owner=0) for member in pair for row in member.tune[: self.ROWS]]
        return self.data.batch([pair], rows)
