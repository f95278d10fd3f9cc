"""Libraries of adapters with the descriptions of their tasks, as Lightning wants them."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader

from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder, normalise
from library.adapter import Adapter, stack
from library.base.models import of_one_base
from library.errors import LayoutMismatch, TaskFileError, UsageError
from library.layout import Layout
from library.store.catalogue import records
from library.store.folder import LibraryFolder
from library.store.open import open_library
from library.store.own import OwnAdapters, own_adapters
from library.store.records import Record
from library.tasks.files import Task
from training.data.steps import IndexedDataset
from training.data.tasks import fast_device, read_folders, set_aside


@dataclass(frozen=True)
class Stock:
    """The adapters of one library: row i is an adapter of task `tasks[i]`."""

    tasks: list[str]
    adapters: Adapter


@dataclass(frozen=True)
class AdapterTextBatch:
    """Adapters and descriptions that belong together, row by row."""

    adapters: Int[Tensor, " b"]  # rows of all stocks, one after the other
    texts: Float[Tensor, "b e"]


def read_stock(location: str) -> tuple[Stock, OwnAdapters]:
    """A library's own adapters, and what is known of them. Raises as `own_adapters` does."""
    own = own_adapters(open_library(location))
    return Stock([record["task"] for record in own.records], stack(own.adapters)), own


def experts_of_tasks(folder: LibraryFolder, names: Collection[str]) -> list[Record]:
    """The first adapters, of the plan's own layout, of those of the named tasks that have one."""
    digest = folder.plan().layout.digest
    return [
        record
        for record in records(folder)
        if (record["layout_digest"], record["variant"]) == (digest, 0) and record["task"] in names
    ]


class WeightDataModule(lightning.LightningDataModule):
    """Pairs of an adapter and a description of its task.

    Args:
        libraries: of one base; more than one gives a task adapters of several trainings.
        tasks: folders (or files) of the tasks, for their descriptions; none: those of the records.
        encoder: the description encoder.
        paraphrase_share: how often a paraphrase stands for the definition, where there are any.
        set_aside_share: share of tasks kept for validation.
        exclude_license_classes: tasks of these classes are left out of training.
        steps: steps of training that exist (an epoch); each sees every training task once.
        seed: of the drawing and of the tasks set aside.
    """

    def __init__(
        self,
        libraries: list[str],
        tasks: list[str],
        encoder: str = DEFAULT_ENCODER,
        paraphrase_share: float = 0.5,
        set_aside_share: float = 0.2,
        exclude_license_classes: list[str] | None = None,
        steps: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= set_aside_share < 1 or not 0 <= paraphrase_share <= 1:
            raise UsageError("set_aside_share must be from 0 up to 1, paraphrase_share 0 to 1")
        self.libraries, self.folders, self.encoder_name = libraries, tasks, encoder
        self.paraphrase_share, self.share = paraphrase_share, set_aside_share
        self.excluded = set(exclude_license_classes or [])
        self.steps, self.seed = steps, seed
        self.stocks: list[Stock] = []
        self.task_names: list[str] = []  # that are trained on
        self.texts: dict[str, Tensor] = {}  # [descriptions, e] of each task, its definition first

    @property
    def layout(self) -> Layout:
        """The layout of the first library."""
        return self.stocks[0].adapters.layout

    @property
    def record(self) -> dict[str, Any]:
        """The data's entry in the checkpoint."""
        return {
            "adapters": len(self.rows_of(self.task_names)),
            "descriptions": sum(len(self.texts[name]) for name in self.task_names),
            "excluded_license_classes": sorted(self.excluded),
            "paraphrase_share": self.paraphrase_share,
            "ranks": [stock.adapters.layout.rank for stock in self.stocks],
            "seed": self.seed,
            "set_aside": sorted(set(self.texts) - set(self.task_names)),
        }

    def setup(self, stage: str) -> None:
        if self.stocks:
            return
        # 1. The libraries, all of one base.
        loaded = [read_stock(location) for location in self.libraries]
        self.base = loaded[0][1].base
        for location, (stock, own) in zip(self.libraries, loaded, strict=True):
            if not of_one_base(own.base, self.base):
                raise LayoutMismatch(
                    f"{location} is of another base model than {self.libraries[0]}"
                )
            self.stocks.append(stock)
        # 2. The descriptions of their tasks.
        stored = set(self.owners)
        recorded = [record for _, own in loaded for record in own.records]
        every = read_folders(self.folders) if self.folders else recorded_tasks(recorded)
        described = [task for task in every if task.name in stored]
        lacking = sorted(stored - {task.name for task in described})
        if lacking:
            raise TaskFileError(f"no task folder describes {lacking[0]} of {self.libraries[0]}")
        self.texts = embedded(described, self.encoder_name)
        # 3. Which of them are trained on.
        allowed = [task for task in described if task.license_class not in self.excluded]
        self.task_names = [task.name for task in set_aside(allowed, self.share, self.seed)[0]]
        if len(self.task_names) < 2:
            raise TaskFileError("contrastive training needs adapters of two tasks at least")

    @property
    def owners(self) -> list[str]:
        """The task of each row, over all stocks."""
        return [name for stock in self.stocks for name in stock.tasks]

    def rows_of(self, names: Collection[str]) -> list[int]:
        """Rows, over all stocks, of the adapters of some tasks."""
        names = set(names)
        return [row for row, name in enumerate(self.owners) if name in names]

    def definitions(self, names: Sequence[str]) -> Float[Tensor, "n e"]:
        return torch.stack([self.texts[name][0] for name in names])

    def style(self) -> Float[Tensor, " e"]:
        """The shift from the mean definition to the mean paraphrase of the training tasks."""
        texts = [self.texts[name] for name in self.task_names]
        shifts = [t[1:].mean(dim=0) - t[0] for t in texts if len(t) > 1]
        return torch.stack(shifts).mean(dim=0) if shifts else torch.zeros_like(texts[0][0])

    def train_dataloader(self) -> DataLoader[AdapterTextBatch]:
        rows = {name: self.rows_of([name]) for name in self.task_names}
        dataset = IndexedDataset(self.steps, lambda step: self._draw(step, rows))
        return DataLoader(dataset, batch_size=None, shuffle=False)

    def val_dataloader(self) -> DataLoader[AdapterTextBatch]:
        """One batch: the tasks set aside, by their definitions, in the first library."""
        tasks = self.stocks[0].tasks
        names = set(self.texts) - set(self.task_names)
        rows = [row for row, name in enumerate(tasks) if name in names]

        def batch(_: int) -> AdapterTextBatch:
            return AdapterTextBatch(
                torch.tensor(rows), self.definitions([tasks[row] for row in rows])
            )

        return DataLoader(IndexedDataset(min(1, len(rows)), batch), batch_size=None)

    def transfer_batch_to_device(
        self, batch: AdapterTextBatch, device: torch.device, dataloader_idx: int
    ) -> AdapterTextBatch:
        return AdapterTextBatch(batch.adapters.to(device), batch.texts.to(device))

    def _draw(self, step: int, rows: Mapping[str, Sequence[int]]) -> AdapterTextBatch:
        """One pair for each training task: a function of (seed, step)."""
        rng = random.Random(f"{self.seed}/{step}")
        adapters, vectors = [], []
        for name, candidates in rows.items():
            adapters.append(rng.choice(candidates))
            texts = self.texts[name]
            paraphrased = len(texts) > 1 and rng.random() < self.paraphrase_share
            vectors.append(texts[rng.randrange(1, len(texts)) if paraphrased else 0])
        return AdapterTextBatch(torch.tensor(adapters), torch.stack(vectors))


def recorded_tasks(records: Sequence[Record]) -> list[Task]:
    """Tasks without rows, as records describe them; of two records of one task the first counts."""
    first = {record["task"]: record for record in reversed(records)}
    return [
        Task(name, record["description"], (), license_class=record["license_class"])
        for name, record in sorted(first.items())
    ]


def embedded(tasks: Sequence[Task], encoder_name: str) -> dict[str, Float[Tensor, "n e"]]:
    """Pooled vectors of every description of each task, its definition first."""
    texts = [normalise(text) for task in tasks for text in task.descriptions]
    encoder = DescriptionEncoder(encoder_name, dtype=torch.float32, device=fast_device())
    pooled = encoder.pooled_batch(texts).cpu()
    parts = pooled.split([len(task.descriptions) for task in tasks])
    return {task.name: part for task, part in zip(tasks, parts, strict=True)}
