"""A library of adapters as training data: targets, their descriptions, statistics, experts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from generator.layers.aggregate import nearest_first
from generator.models.base import Condition, Experts
from index.encoders.descriptions import (
    DEFAULT_ENCODER,
    DescriptionEncoder,
    join,
    normalise,
)
from index.search.retriever import NEIGHBOURS
from library.adapter import Adapter, stack
from library.base.models import BaseReference, described, of_one_base
from library.errors import LayoutMismatch, UsageError
from library.layout import Layout
from library.store.folder import LibraryFolder
from library.store.open import open_library
from library.store.own import OwnAdapters, own_adapters
from library.store.records import Record
from library.store.snapshots import read_snapshots, state_moments
from training.data.steps import IndexedDataset
from training.data.vectors import VectorConfig, Vectors, library_vectors


@dataclass
class AdapterBatch:
    """n conditions and the n adapters that they shall become."""

    condition: Condition
    targets: Adapter


class LibraryDataModule(lightning.LightningDataModule):
    """The adapters of a library's own base and modules, each with its task's description.

    All have the largest rank that was built; one of less, or of fewer modules, is zero beyond its
    own. Which are a library's own, library.store.own says.

    Args:
        library: folder or URL; the packed sample that ships will do.
        encoder: the description encoder.
        adapters_per_step: drawn anew for each step.
        steps: steps of training that exist (an epoch).
        snapshots: whether the states of training that the library kept are targets as well.
        experts: nearest adapters of other tasks that conditions hold; 0 for none. An adapter with
            snapshots is their mean and variance there.
        seed: of the drawing.
        vectors: task vectors that conditions hold, if it names the tasks' folders.
    """

    def __init__(
        self,
        library: str,
        encoder: str = DEFAULT_ENCODER,
        adapters_per_step: int = 32,
        steps: int = 1000,
        snapshots: bool = False,
        experts: int = NEIGHBOURS,
        seed: int = 0,
        vectors: VectorConfig = VectorConfig(),
    ) -> None:
        super().__init__()
        self.vector_config = vectors
        self._vectors: Vectors | None = None
        self.library, self.encoder_name = library, encoder
        self.per_step, self.steps, self.seed = adapters_per_step, steps, seed
        self.snapshots, self.experts = snapshots, experts
        self.task_names: list[str] = []

    @property
    def record(self) -> dict[str, Any]:
        """The data's entry in the checkpoint."""
        return {
            "adapters": len(self.adapters),
            "tasks": len(self.task_names),
            "snapshots": self.snapshots,
            "experts": self.experts,
            "per_step": self.per_step,
            "seed": self.seed,
            "vectors": self.vector_config.record,
        }

    @property
    def layout(self) -> Layout:
        return self.adapters.layout

    @property
    def row_tasks(self) -> list[str]:
        """The task of every target; an adapter comes before its snapshots."""
        return [self._tasks[owner] for owner in self._owners]

    @property
    def task_vectors(self) -> Float[Tensor, "m d"] | None:
        """Every task vector that a condition may hold; None if it holds none."""
        return None if self._vectors is None else self._vectors.flatten(0, 1)

    def spread(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Standard deviation of every entry of A and of B over the targets, by group.

        1 where all targets are zero, as beyond their ranks.
        """
        return tuple(  # type: ignore[return-value]
            {
                key: torch.where(value.any(dim=0), value.std(dim=0, correction=0), 1.0)
                for key, value in factors.items()
            }
            for factors in (self.adapters.A, self.adapters.B)
        )

    def setup(self, stage: str) -> None:
        folder = open_library(self.library)
        own = own_adapters(folder)
        fitting, self._base = own.records, own.base
        tasks = self._tasks = [record["task"] for record in fitting]
        self.task_names = sorted(set(tasks))
        # 1. Targets, and the moments of each adapter.
        self._read(folder, own)
        # 2. Descriptions, embedded once.
        encoder = DescriptionEncoder(self.encoder_name, dtype=torch.float32)
        self._embedded = encoder.encode_batch([normalise(r["description"]) for r in fitting])
        # 3. Experts of each.
        self._choose_experts(fitting)
        # 4. Task vectors, if the tasks' rows are there.
        if self.vector_config.tasks:
            first_rows = [self._owners.index(i) for i in range(len(fitting))]
            self._vectors = library_vectors(
                self.vector_config, tasks, self.adapters[first_rows], self.seed, self.library
            )

    def require_base(self, reference: BaseReference) -> None:
        """Raise LayoutMismatch for a base of other weights than the adapters were trained on."""
        if not of_one_base(self._base, described(reference)):
            raise LayoutMismatch(
                f"{self.library} was made for {self._base['id']}, and '{reference.name}' has other "
                "weights"
            )

    def _read(self, folder: LibraryFolder, own: OwnAdapters) -> None:
        """Targets, one row for each adapter and each of its snapshots; moments of each adapter.

        Raises UsageError where snapshots shall be targets and there are none.
        """
        targets, owners, means, variances = [], [], [], []
        for i, (record, adapter) in enumerate(zip(own.records, own.adapters, strict=True)):
            states, whole = None, record["layout_digest"] == adapter.layout.digest
            if whole and (self.snapshots or self.experts):
                states = read_snapshots(folder, record, adapter.layout)
            rows = [adapter, states] if self.snapshots and states is not None else [adapter]
            targets += rows
            owners += [i] * sum(len(row) for row in rows)
            if self.experts:
                mean, variance = state_moments(adapter, states)
                means.append(mean)
                variances.append(variance)
        if self.snapshots and len(owners) == len(own.records):
            raise UsageError(
                f"{self.library} was built without snapshots: build it with --snapshots, or train "
                "with snapshots false"
            )
        self.adapters, self._owners = stack(targets), owners
        self._means, self._variances = (stack(m) if m else None for m in (means, variances))

    def _choose_experts(self, fitting: Sequence[Record]) -> None:
        """The nearest adapters of other tasks for each adapter, as the retriever orders them."""
        vectors = torch.cat([row.pooled for row in self._embedded])
        tasks = [record["task"] for record in fitting]
        usable = torch.tensor(
            [[r["variant"] == 0 and r["task"] != task for r in fitting] for task in tasks]
        )
        cosines = (vectors @ vectors.T).double().round(decimals=6)  # (n, n)
        cosines = cosines.masked_fill(~usable, -torch.inf)
        count = min(self.experts, int(usable.sum(dim=1).min()))
        self._nearest = nearest_first(cosines, count)
        self._cosines = cosines.gather(1, self._nearest)

    def train_dataloader(self) -> DataLoader[list[int]]:
        return DataLoader(IndexedDataset(self.steps, self.draw), batch_size=None, shuffle=False)

    def transfer_batch_to_device(
        self, batch: list[int], device: torch.device, dataloader_idx: int
    ) -> AdapterBatch:
        owners = [self._owners[row] for row in batch]
        text = join([self._embedded[i] for i in owners]).to(device)
        condition = Condition(
            text=text,
            experts=self._experts(owners, device),
            task=self._drawn_vectors(batch, owners, device),
            seed=self.seed,
        )
        return AdapterBatch(condition, self.adapters[batch].to(device))

    def draw(self, step: int) -> list[int]:
        """Rows of the adapters that a step takes: a function of (seed, step)."""
        n = len(self.adapters)
        return random.Random(f"{self.seed}/{step}").sample(range(n), min(n, self.per_step))

    def _drawn_vectors(
        self, batch: list[int], owners: list[int], device: torch.device
    ) -> Float[Tensor, "n d"] | None:
        """One vector of each adapter's task: a function of the seed and the rows of the step."""
        if self._vectors is None:
            return None
        rng = random.Random(f"{self.seed}/vectors/{batch}")
        draws = [rng.randrange(self._vectors.shape[1]) for _ in owners]
        return self._vectors[owners, draws].to(device)

    def _experts(self, owners: list[int], device: torch.device) -> Experts | None:
        if self._nearest.shape[1] == 0 or self._means is None or self._variances is None:
            return None
        rows = [self._nearest[i].tolist() for i in owners]
        return Experts(
            [self._means[k].to(device) for k in rows],
            [self._variances[k].to(device) for k in rows],
            self._cosines[owners].float().to(device),
        )
