"""Pairs of a library's adapters with rows of both tasks: what a merge predictor is trained on."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader

from library.adapter import Adapter, stack
from library.base.batches import TokenBatch, TokenRow, grouped
from library.base.models import load_tokenizer, resolve_base
from library.build.plan import tokenised
from library.errors import TaskFileError, UsageError
from library.store.catalogue import read_adapter
from library.store.open import open_library
from library.tasks.files import Task
from training.data.libraries import experts_of_tasks
from training.data.steps import IndexedDataset
from training.data.tasks import read_folders, set_aside

VALIDATION_ROWS = 4  # tune rows of each task of a held-out pair
GROUPS = 2  # padded batches that a step's rows are cut into
MAX_DRAWN_ROWS = 48  # train rows of a task: tokenising all takes longer than training


@dataclass
class AdapterPairBatch:
    """n pairs of adapters; a row's owner is the pair that shall answer it."""

    first: Adapter
    second: Adapter
    rows: list[TokenBatch]


@dataclass(frozen=True)
class Member:
    """A task with an adapter in the library: its position there and its tokenised rows."""

    task: Task
    position: int
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
        """The data's entry in the checkpoint."""
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
        # 1. The adapters of one layout whose tasks are described and allowed.
        tasks = {task.name: task for task in read_folders(self.task_folders, self.excluded)}
        layout = self.plan.layout
        fitting = experts_of_tasks(self.folder, tasks)
        # 2. Which tasks are trained on and which are set aside.
        split = set_aside([tasks[record["task"]] for record in fitting], self.share, self.seed)
        if min(map(len, split)) < 2:
            raise TaskFileError("pairs need two tasks with adapters, and two more set aside")
        # 3. Their adapters and rows.
        self.adapters = stack([read_adapter(self.folder, r["id"], layout) for r in fitting])
        self._tokenizer = load_tokenizer(self.base)
        positions = {record["task"]: i for i, record in enumerate(fitting)}
        self.training, self.held_back = (self._members(part, positions) for part in split)

    def held_out_pairs(self) -> list[tuple[Member, Member]]:
        """The pairs of tasks set aside, in an order of the seed's."""
        pairs = list(combinations(self.held_back, 2))
        random.Random(f"{self.seed}/held-out").shuffle(pairs)
        return pairs[: self.validation_pairs]

    def batch(
        self, pairs: Sequence[tuple[Member, Member]], rows: Sequence[TokenRow]
    ) -> AdapterPairBatch:
        """The pairs' adapters, and rows that are owned by the pairs' numbers."""
        first, second = ([pair[side].position for pair in pairs] for side in (0, 1))
        groups = grouped(rows, self._tokenizer.pad_token_id, GROUPS)
        return AdapterPairBatch(self.adapters[first], self.adapters[second], groups)

    def train_dataloader(self) -> DataLoader[AdapterPairBatch]:
        return DataLoader(IndexedDataset(self.steps, self._draw), batch_size=None)

    def val_dataloader(self) -> DataLoader[AdapterPairBatch]:
        """Each held-out pair with the first tune rows of both tasks."""
        pairs = self.held_out_pairs()

        def batch(index: int) -> AdapterPairBatch:
            rows = [replace(row, owner=0) for m in pairs[index] for row in m.tune[:VALIDATION_ROWS]]
            return self.batch([pairs[index]], rows)

        return DataLoader(IndexedDataset(len(pairs), batch), batch_size=None)

    def transfer_batch_to_device(
        self, batch: AdapterPairBatch, device: torch.device, dataloader_idx: int
    ) -> AdapterPairBatch:
        moved = [group.to(device) for group in batch.rows]
        return AdapterPairBatch(batch.first.to(device), batch.second.to(device), moved)

    def _draw(self, step: int) -> AdapterPairBatch:
        """Pairs of tasks trained on, and train rows of both: a function of (seed, step)."""
        rng = random.Random(f"{self.seed}/{step}")
        pairs, rows = [], []
        for number in range(self.pairs_per_step):
            first, second = rng.sample(self.training, 2)
            pairs.append((first, second))
            for member in (first, second):
                drawn = rng.choices(member.train, k=self.rows_per_task)
                rows += [replace(row, owner=number) for row in drawn]
        return self.batch(pairs, rows)

    def _members(self, tasks: Sequence[Task], positions: Mapping[str, int]) -> list[Member]:
        members = []
        for task in tasks:
            train = tokenised(task.train[:MAX_DRAWN_ROWS], self._tokenizer, self.max_length)
            tune = tokenised(task.tune, self._tokenizer, self.max_length)
            if train and tune:
                members.append(Member(task, positions[task.name], train, tune))
        if len(members) < 2:
            raise UsageError(f"too few tasks have rows of at most {self.max_length} tokens")
        return members
