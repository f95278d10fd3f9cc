"""A library of adapters as training data: targets, their descriptions, statistics, experts."""

import random
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import lightning
import torch
from jaxtyping import Float
from safetensors.torch import load
from torch import Tensor
from torch.utils.data import DataLoader

from generator.models.base import Condition, Experts
from index.encoders.descriptions import (
    DEFAULT_ENCODER,
    DescriptionEncoder,
    join,
    normalise,
)
from index.search.retriever import NEIGHBOURS, TEMPERATURE
from library.adapter import Adapter, stack
from library.errors import AdapterFileError, UsageError
from library.layout import Layout
from library.store.catalogue import read_adapter, records
from library.store.folder import LibraryFolder
from library.store.open import open_library
from library.store.records import RECORDS, read_record, record_stamps
from training.data.steps import IndexedDataset
from training.data.vectors import VectorConfig, Vectors, library_vectors


@dataclass
class AdapterBatch:
    """n conditions and the n adapters that they shall become."""

    condition: Condition
    targets: Adapter


class LibraryDataModule(lightning.LightningDataModule):
    """The adapters of a library's own recipe and rank, each with its task's description.

    Adapters of another rank or base (imported ones, say) are left out.

    Args:
        library: folder or URL; the packed sample that ships will do.
        encoder: the description encoder.
        adapters_per_step: drawn anew for each step.
        steps: steps of training that exist (an epoch).
        snapshots: whether the states of training that the library kept are targets as well.
        experts: nearest adapters of other tasks that conditions hold; 0 for none.
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
            "per_step": self.per_step,
            "seed": self.seed,
            "vectors": asdict(self.vector_config) if self.vector_config.tasks else None,
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
        """Standard deviation of every entry of A and of B over the targets, by group."""
        return tuple(  # type: ignore[return-value]
            {key: value.std(dim=0, correction=0) for key, value in factors.items()}
            for factors in (self.adapters.A, self.adapters.B)
        )

    def setup(self, stage: str) -> None:
        folder = open_library(self.library)
        plan = folder.plan()
        layout = plan.layout
        # 1. Targets: one row for each adapter, and for each of its snapshots.
        expected = (layout.digest, plan.base["id"])
        fitting = [r for r in records(folder) if (r["layout_digest"], r["base_model"]) == expected]
        if not fitting:
            raise AdapterFileError(f"{self.library} holds no adapter of its own base and layout")
        paths = _paths(folder) if self.snapshots else {}
        targets, owners, first_rows = [], [], []
        for i, record in enumerate(fitting):
            first_rows.append(len(owners))
            states = [read_adapter(folder, record["id"], layout)]
            if self.snapshots:
                states += _snapshots(folder, paths[record["id"]], layout)
            targets += states
            owners += [i] * sum(len(state) for state in states)
        if self.snapshots and len(owners) == len(fitting):
            raise UsageError(
                f"{self.library} was built without snapshots: build it with --snapshots, or train "
                "with snapshots false"
            )
        self.adapters, self._owners = stack(targets), owners
        self._rows = torch.tensor(first_rows)  # of each adapter, before its snapshots
        # 2. Descriptions, embedded once.
        encoder = DescriptionEncoder(self.encoder_name, dtype=torch.float32)
        self._embedded = encoder.encode_batch([normalise(r["description"]) for r in fitting])
        tasks = self._tasks = [record["task"] for record in fitting]
        self.task_names = sorted(set(tasks))
        # 3. Experts of each: the nearest adapters of other tasks, never its own.
        vectors = torch.cat([row.pooled for row in self._embedded])
        same_task = torch.tensor([[a == b for b in tasks] for a in tasks])
        cosines = (vectors @ vectors.T).masked_fill(same_task, -torch.inf)  # (n, n)
        count = min(self.experts, len(self.task_names) - 1)
        self._cosines, self._nearest = cosines.topk(count, dim=-1)
        # 4. Task vectors, if the tasks' rows are there.
        if self.vector_config.tasks:
            finals = self.adapters[self._rows]
            self._vectors = library_vectors(
                self.vector_config, tasks, finals, self.seed, self.library
            )

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
        if self._nearest.shape[1] == 0:
            return None
        rows = [self._rows[self._nearest[i]].tolist() for i in owners]
        weights = (self._cosines[owners] / TEMPERATURE).softmax(dim=-1).to(device)  # (n, k)
        return Experts([self.adapters[k].to(device) for k in rows], weights)


def _paths(folder: LibraryFolder) -> dict[str, str]:
    """Path of each adapter's record, by id."""
    return {read_record(folder, path)["id"]: path for path in record_stamps(folder)}


def _snapshots(folder: LibraryFolder, record_path: str, layout: Layout) -> list[Adapter]:
    """The states of training that were kept of an adapter; none if the build kept none."""
    path = PurePosixPath("snapshots") / PurePosixPath(record_path).relative_to(RECORDS)
    file = str(path.with_suffix(".safetensors"))
    if not folder.exists(file):
        return []
    state = load(folder.read(file))
    factors = [
        {key: state[f"{side}.{key}"].float() for key in (g.key for g in layout.groups)}
        for side in ("A", "B")
    ]
    return [Adapter(layout, *factors)]
