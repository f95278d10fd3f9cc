"""A library's adapters and task folders side by side, for objectives that score both."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader

from index.encoders.descriptions import DEFAULT_ENCODER
from training.data.adapters import AdapterBatch, LibraryDataModule
from training.data.batches import TaskBatch
from training.data.steps import IndexedDataset
from training.data.tasks import TaskDataModule


@dataclass
class AdapterTaskBatch:
    """One step: rows of adapters, the adapters once they are on the device, and tasks."""

    rows: list[int]
    tasks: TaskBatch
    adapters: AdapterBatch | None = None


class LibraryTaskDataModule(TaskDataModule):
    """Each step has adapters of a library to reproduce, and tasks of folders to answer.

    The two are drawn apart: what a step reproduces need not be what it answers.

    Args:
        library: folder or URL; see training.data.adapters.
        adapters_per_step: drawn anew for each step.
        **kwargs: see TaskDataModule.
    """

    def __init__(self, library: str, adapters_per_step: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.library = LibraryDataModule(
            library,
            self.encoder_name or DEFAULT_ENCODER,
            adapters_per_step,
            experts=0,
            seed=self.seed,
        )

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks that are trained on in either way."""
        return sorted({*super().task_names, *self.library.task_names})

    @property
    def record(self) -> dict[str, Any]:
        """The data's entry in the checkpoint."""
        return {**super().record, "library": self.library.record}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.library.setup(stage)

    def train_dataloader(self) -> DataLoader[Any]:
        tasks = self.training_steps()

        def step(number: int) -> AdapterTaskBatch:
            return AdapterTaskBatch(self.library.draw(number), tasks[number])

        data = IndexedDataset(self.steps, step)
        return self._loader(data, self.step_sampler())

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """A step's adapters and tasks, or the tasks of a validation."""
        move = super().transfer_batch_to_device
        if isinstance(batch, TaskBatch):
            return move(batch, device, dataloader_idx)
        adapters = self.library.transfer_batch_to_device(batch.rows, device, dataloader_idx)
        tasks = move(batch.tasks, device, dataloader_idx)
        return replace(batch, tasks=tasks, adapters=adapters)
