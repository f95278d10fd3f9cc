"""Libraries of adapters with the descriptions of their tasks, as Lightning wants them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder, normalise
from library.adapter import Adapter, stack
from library.errors import LayoutMismatch, TaskFileError, UsageError
from library.layout import Layout
from library.store.catalogue import read_adapter, records
from library.store.open import open_library
from library.store.plan import Plan
from library.tasks.files import Task, read_tasks
from training.data.tasks import set_aside


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


def read_stock(place: str) -> tuple[Stock, Plan]:
    """Every adapter of a library and its plan. Raises MissingPath, LayoutMismatch."""
    folder = open_library(place)
    plan = folder.plan()
    found = records(folder)
    if not found:
        raise UsageError(f"the library {place} holds no adapters")
    adapters = [read_adapter(folder, record["id"], plan.layout) for record in found]
    return Stock([record["task"] for record in found], stack(adapters)), plan


class WeightDataModule(lightning.LightningDataModule):
    """Pairs of an adapter and a description of its task.

    Args:
        libraries: of one base; more than one gives a task adapters of several trainings.
        tasks: folders (or files) of the tasks, for their descriptions.
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
        self.places, self.folders, self.encoder_name = libraries, tasks, encoder
        self.paraphrase_share, self.share = paraphrase_share, set_aside_share
        self.excluded = set(exclude_license_classes or [])
        self.steps, self.seed = steps, seed
        self.stocks: list[Stock] = []
        self.task_names: list[str] = []  # that are trained on
        self.texts: dict[str, Tensor] = {}  # [descriptions, e] of each task, its definition first

    @property
    def layout(self) -> Layout:
        """Of the first library."""
        return self.stocks[0].adapters.layout

    @property
    def record(self) -> dict[str, Any]:
        """What the checkpoint says of its data."""
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
        found = [task for folder in self.folders for task in read_tasks(Path(folder))]
        loaded = [read_stock(place) for place in self.places]
        self.base = loaded[0][1].base
        for place, (stock, plan) in zip(self.places, loaded, strict=True):
            if plan.base != self.base:
                raise LayoutMismatch(f"{place} is of another base model than {self.places[0]}")
            self.stocks.append(stock)
        stored = {name for stock in self.stocks for name in stock.tasks}
        having = [task for task in found if task.name in stored]
        lacking = sorted(stored - {task.name for task in having})
        if lacking:
            raise TaskFileError(f"no task folder describes {lacking[0]} of {self.places[0]}")
        self.texts = embedded(having, self.encoder_name)
        kept = [task for task in having if task.license_class not in self.excluded]
        self.task_names = [task.name for task in set_aside(kept, self.share, self.seed)[0]]
        if len(self.task_names) < 2:
            raise TaskFileError("contrastive training needs adapters of two tasks at least")

    def rows_of(self, names: Sequence[str]) -> list[int]:
        """Rows, over all stocks, of the adapters of some tasks."""
        every = [name for stock in self.stocks for name in stock.tasks]
        wanted = set(names)
        return [row for row, name in enumerate(every) if name in wanted]

    def owners(self, rows: Sequence[int]) -> list[str]:
        """The task of each of these rows."""
        every = [name for stock in self.stocks for name in stock.tasks]
        return [every[row] for row in rows]

    def definitions(self, names: Sequence[str]) -> Float[Tensor, "n e"]:
        return torch.stack([self.texts[name][0] for name in names])

    def style(self) -> Float[Tensor, " e"]:
        """From the mean definition to the mean paraphrase of the training tasks."""
        own = [self.texts[name] for name in self.task_names if len(self.texts[name]) > 1]
        if not own:
            return torch.zeros_like(self.texts[self.task_names[0]][0])
        return torch.stack([t[1:].mean(dim=0) - t[0] for t in own]).mean(dim=0)

    def train_dataloader(self) -> DataLoader[AdapterTextBatch]:
        return DataLoader(_Draws(self), batch_size=None, shuffle=False)

    def val_dataloader(self) -> DataLoader[AdapterTextBatch]:
        """One batch: the tasks set aside, by their definitions, in the first library."""
        first = range(len(self.stocks[0].tasks))
        names = set(self.texts) - set(self.task_names)
        rows = [row for row in first if self.stocks[0].tasks[row] in names]
        if not rows:
            return DataLoader[AdapterTextBatch](_Batches([]), batch_size=None)
        batch = AdapterTextBatch(torch.tensor(rows), self.definitions(self.owners(rows)))
        return DataLoader(_Batches([batch]), batch_size=None)

    def transfer_batch_to_device(
        self, batch: AdapterTextBatch, device: torch.device, dataloader_idx: int
    ) -> AdapterTextBatch:
        return AdapterTextBatch(batch.adapters.to(device), batch.texts.to(device))


def embedded(tasks: Sequence[Task], encoder_name: str) -> dict[str, Float[Tensor, "n e"]]:
    """Pooled vectors of every description of each task, its definition first."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = DescriptionEncoder(encoder_name, dtype=torch.float32, device=device)
    texts = [normalise(text) for task in tasks for text in task.descriptions]
    pooled = encoder.pooled_batch(texts).cpu()
    parts = pooled.split([len(task.descriptions) for task in tasks])
    return {task.name: part for task, part in zip(tasks, parts, strict=True)}


class _Draws(Dataset[AdapterTextBatch]):
    """Item i is step i's pairs, one for each training task: a function of (seed, i)."""

    def __init__(self, data: WeightDataModule) -> None:
        self.data = data
        self.rows = {name: data.rows_of([name]) for name in data.task_names}

    def __len__(self) -> int:
        return self.data.steps

    def __getitem__(self, step: int) -> AdapterTextBatch:
        draw = random.Random(f"{self.data.seed}/{step}")
        rows, texts = [], []
        for name, own in self.rows.items():
            rows.append(draw.choice(own))
            known = self.data.texts[name]
            other = len(known) > 1 and draw.random() < self.data.paraphrase_share
            texts.append(known[draw.randrange(1, len(known)) if other else 0])
        return AdapterTextBatch(torch.tensor(rows), torch.stack(texts))


class _Batches(Dataset[AdapterTextBatch]):
    def __init__(self, batches: Sequence[AdapterTextBatch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, item: int) -> AdapterTextBatch:
        return self.batches[item]
