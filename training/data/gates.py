"""Rows of the tasks of a library's adapters, mixed: what a gate over them is trained on."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader

from library.adapter import stack
from library.base.models import load_tokenizer, resolve_base
from library.base.prompts import Mode
from library.errors import TaskFileError
from library.store.catalogue import read_adapter
from library.store.open import open_library
from training.data.batches import UNDESCRIBED, Rows, Sample, TaskBatch, Wording
from training.data.libraries import experts_of_tasks
from training.data.sampling import SamplingConfig
from training.data.steps import IndexedDataset
from training.data.tasks import first_tasks, read_folders

VALIDATION_ROWS = 4  # tune rows of each task, in both modes
MODES: tuple[Mode, ...] = ("bare", "prompted")


class GateData(lightning.LightningDataModule):
    """A row's owner is the adapter of its task.

    Args:
        library: folder or URL; adapters of its own layout whose tasks have rows take part.
        tasks: folders of tasks.
        base: the library's base; the default base if None.
        adapters: how many take part, drawn by the seed; all if None.
        rows_per_step: train rows of a step, of any of the tasks.
        prompted_share: of rows whose prompt contains the instruction; the others are bare.
        max_length: longer rows are left out.
        steps: of training that exist (an epoch).
        seed: of all drawing.
    """

    def __init__(
        self,
        library: str,
        tasks: list[str],
        base: str | None = None,
        adapters: int | None = 16,
        rows_per_step: int = 16,
        prompted_share: float = 0.5,
        max_length: int = 320,
        steps: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.folder, self.task_folders = open_library(library), tasks
        self.base, self.plan, self.count = resolve_base(base), self.folder.plan(), adapters
        self.rows_per_step, self.prompted_share = rows_per_step, prompted_share
        self.max_length, self.steps, self.seed = max_length, steps, seed
        self.task_names: list[str] = []

    @property
    def record(self) -> dict[str, Any]:
        """The data's entry in the checkpoint."""
        names = ("rows_per_step", "prompted_share", "max_length", "steps", "seed")
        return {name: getattr(self, name) for name in names}

    def setup(self, stage: str) -> None:
        """Raises TaskFileError unless two tasks have an adapter and rows."""
        if self.task_names:
            return
        usable = {t.name: t for t in read_folders(self.task_folders) if t.train and t.tune}
        self.records = experts_of_tasks(self.folder, usable)
        tasks = [usable[record["task"]] for record in self.records]
        names = [task.name for task in first_tasks(tasks, self.count, self.seed)]
        if len(names) < 2:
            raise TaskFileError("a gate needs two tasks or more with adapters in the library")
        self.records = [record for record in self.records if record["task"] in names]
        self.tasks = [usable[record["task"]] for record in self.records]
        layout = self.plan.layout
        self.adapters = stack([read_adapter(self.folder, r["id"], layout) for r in self.records])
        self._rows = Rows(self.tasks, load_tokenizer(self.base))
        self.task_names = [task.name for task in self.tasks]

    def train_dataloader(self) -> DataLoader[TaskBatch]:
        return DataLoader(IndexedDataset(self.steps, self._draw), batch_size=None)

    def val_dataloader(self) -> DataLoader[TaskBatch]:
        """The first tune rows of each task."""

        def batch(number: int) -> TaskBatch:
            rows = self.tasks[number].tune[:VALIDATION_ROWS]
            return self._batch([self._sample(number, row, mode) for row in rows for mode in MODES])

        return DataLoader(IndexedDataset(len(self.tasks), batch), batch_size=None)

    def transfer_batch_to_device(
        self, batch: TaskBatch, device: torch.device, dataloader_idx: int
    ) -> TaskBatch:
        return replace(batch, rows=[group.to(device) for group in batch.rows])

    def _draw(self, step: int) -> TaskBatch:
        """A function of (seed, step)."""
        rng, samples = random.Random(f"{self.seed}/{step}"), []
        for _ in range(self.rows_per_step):
            number = rng.randrange(len(self.tasks))
            mode: Mode = "prompted" if rng.random() < self.prompted_share else "bare"
            samples.append(self._sample(number, rng.choice(self.tasks[number].train), mode))
        return self._batch(samples)

    def _sample(self, number: int, row: Any, mode: Mode) -> Sample:
        definition = self.tasks[number].definition
        return Wording(definition, definition).sample(number, row, mode)

    def _batch(self, samples: Sequence[Sample]) -> TaskBatch:
        config = SamplingConfig(max_length=self.max_length, micro_batches=2)
        return self._rows.batch([UNDESCRIBED], samples, config)
