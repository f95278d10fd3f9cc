"""Task folders as Lightning wants them: split, embedded once, tokenised in step.

A resumed run sees the batches that it would have seen.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from index.encoders.descriptions import (
    DEFAULT_ENCODER,
    Embeddings,
    join,
    no_description,
)
from index.encoders.pairs import EmbeddedPairs, PairBank
from index.encoders.texts import TextEncoder, text_encoder
from library.base.models import load_tokenizer, resolve_base
from library.errors import TaskFileError, UsageError
from library.tasks.files import Task, read_tasks
from training.data.batches import FRESH, UNDESCRIBED, Rows, TaskBatch
from training.data.draws import StepDataset, ValidationDataset
from training.data.relabel import relabellings
from training.data.sampling import SamplingConfig
from training.data.steps import IndexedDataset
from training.synthetic.authored import authored_digest, read_authored
from training.synthetic.banks import read_topics
from training.synthetic.families.registry import FAMILIES
from training.synthetic.stream import SyntheticTasks


def read_folders(folders: Sequence[str], excluded: Collection[str | None] = ()) -> list[Task]:
    """The tasks of several folders (or files), but for those of excluded licence classes."""
    tasks = [task for folder in folders for task in read_tasks(Path(folder))]
    return [task for task in tasks if task.license_class not in excluded]


def fast_device() -> str:
    """Where training embeds texts: on the GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def set_aside(tasks: Sequence[Task], share: float, seed: int) -> tuple[list[Task], list[Task]]:
    """Split into (training, set aside): half of the latter by whole categories, half single tasks.

    The order is by digest, so a new task does not move the others.
    """
    count, key = round(len(tasks) * share), partial(_digest, seed)
    category = {task.name: (task.categories or ("",))[0] for task in tasks}
    sizes = {c: sum(v == c for v in category.values()) for c in category.values()}
    aside: set[str] = set()
    for name in sorted(sizes, key=key):
        if sizes[name] <= count // 2 - len(aside):
            aside |= {task for task, c in category.items() if c == name}
    for name in sorted(category, key=key):
        if len(aside) < count:
            aside.add(name)
    return [t for t in tasks if t.name not in aside], [t for t in tasks if t.name in aside]


def first_tasks(tasks: Sequence[Task], count: int | None, seed: int) -> list[Task]:
    """So many tasks, in their order; those of a smaller number are among them. All for None."""
    names = sorted((task.name for task in tasks), key=partial(_digest, seed))
    kept = {*names[:count]}
    return [task for task in tasks if task.name in kept]


def _digest(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}/{text}".encode()).hexdigest()


class TaskDataModule(lightning.LightningDataModule):
    """Task folders for SFT.

    Args:
        tasks: folders (or files) of tasks.
        base: Hub id or folder of the base model, for its tokenizer; the default base if None.
        encoder: the description encoder; None where nothing reads descriptions.
        sampling: how a step is drawn.
        steps: steps of training that exist (an epoch).
        set_aside_share: share of tasks kept for validation and early stop.
        authored: whether the authored tasks (training.synthetic.authored) are among those that are
            trained on, as real ones are, but never relabelled; none of them is set aside.
        exclude_license_classes: tasks of these classes are left out.
        seed: of sampling and of the tasks set aside.
        workers: processes that tokenise.
    """

    def __init__(
        self,
        tasks: list[str],
        base: str | None = None,
        encoder: str | None = DEFAULT_ENCODER,
        sampling: SamplingConfig = SamplingConfig(),
        steps: int = 1500,
        set_aside_share: float = 0.0,
        authored: bool = False,
        exclude_license_classes: list[str] | None = None,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= set_aside_share < 1:
            raise UsageError("set_aside_share must be from 0 up to 1")
        self.folders, self.base, self.encoder_name = tasks, resolve_base(base), encoder
        self.sampling, self.steps, self.share = sampling, steps, set_aside_share
        self.authored = authored
        self.excluded = set(exclude_license_classes or [])
        self.seed, self.workers = seed, workers
        self.training: list[Task] = []
        self.held_back: list[Task] = []
        self._bank: list[Embeddings] = []
        self._pair_bank: PairBank | None = None
        self._encoder: TextEncoder | None = None
        self._synthetic: SyntheticTasks | None = None
        self._first_step = 0

    def state_dict(self) -> dict[str, Any]:
        """The step of the epoch to go on from; Lightning itself would begin the epoch again."""
        if not self.trainer:
            return {"step": 0}
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready  # of each process
        return {"step": done * self.trainer.world_size % self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._first_step = state_dict["step"]

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks that are trained on."""
        return [task.name for task in self.training]

    @property
    def record(self) -> dict[str, Any]:
        """The data's entry in the checkpoint."""
        return {
            "descriptions": sum(len(task.descriptions) for task in self.training),
            "excluded_license_classes": sorted(self.excluded),
            "authored_sha256": authored_digest() if self.authored else None,
            "sampling": asdict(self.sampling),
            "seed": self.seed,
            "set_aside": sorted(task.name for task in self.held_back),
        }

    def setup(self, stage: str) -> None:
        if self.training:
            return
        tasks = [task for task in read_folders(self.folders, self.excluded) if task.train]
        if not tasks:
            raise TaskFileError("no tasks are left to train on")
        training, self.held_back = set_aside(tasks, self.share, self.seed)
        cap = self.sampling.distinct_tasks
        self.training = first_tasks(training, cap, self.seed)
        if self.authored:
            left = None if cap is None else cap - len(self.training)
            self.training += read_authored()[:left]
        self._synthetic = self._stream()
        tokenizer = load_tokenizer(self.base)
        count = self.sampling.relabellings if self.sampling.relabel_share else 0
        relabelled = relabellings(self.training, count, self.seed)
        self._train_rows = Rows(self.training, tokenizer, relabelled)
        texts = self._train_rows.texts
        self._val_rows = Rows(self.held_back, tokenizer, first=len(texts))
        texts += self._val_rows.texts
        if self.encoder_name is None:
            return
        self._encoder = encoder = text_encoder(
            self.encoder_name, self.base, dtype=torch.float32, device=fast_device()
        )
        # In half precision, as thousands of texts with all their tokens take gigabytes.
        self._bank = [row.to(dtype=torch.float16) for row in encoder.encode_batch(texts)]
        if self.sampling.examples:
            self._pair_bank = PairBank(encoder.encode_batch, torch.float16)

    @property
    def text_widths(self) -> tuple[int, int] | None:
        """Lengths of a pooled vector and of a word's, once texts are embedded; None before."""
        if not self._bank:
            return None
        return self._bank[0].pooled.shape[-1], self._bank[0].words.shape[-1]

    def _stream(self) -> SyntheticTasks | None:
        """The synthetic tasks beside the real ones; None where there are none."""
        s = self.sampling
        left = None if s.distinct_tasks is None else s.distinct_tasks - len(self.training)
        if not s.synthetic or left == 0:
            return None
        return SyntheticTasks(
            self.seed, FAMILIES, read_topics(), s.classification_share, s.synthetic_group, left
        )

    def train_dataloader(self) -> DataLoader[TaskBatch]:
        return self._loader(self.training_steps(), self.step_sampler())

    def step_sampler(self) -> "StepSampler":
        """Which steps this process takes, from the one on where a run was stopped."""
        trainer = self.trainer
        processes, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        return StepSampler(self.steps, self._first_step, processes, rank)

    def training_steps(self) -> IndexedDataset[TaskBatch]:
        """The steps of training, without what a loader adds."""
        config = self.step_sampling
        return StepDataset(self._train_rows, config, self.steps, self.seed, self._synthetic)

    @property
    def step_sampling(self) -> SamplingConfig:
        """How a step is drawn; real tasks take the places of synthetic ones if none are left."""
        if self._synthetic is None:
            return replace(self.sampling, synthetic_share=0.0)
        return self.sampling

    def val_dataloader(self) -> DataLoader[TaskBatch]:
        return self._loader(ValidationDataset(self._val_rows, self.sampling))

    test_dataloader = val_dataloader

    def transfer_batch_to_device(
        self, batch: TaskBatch, device: torch.device, dataloader_idx: int
    ) -> TaskBatch:
        rows = [group.to(device) for group in batch.rows]
        if not self._bank:
            return replace(batch, rows=rows)
        return replace(
            batch,
            rows=rows,
            embeddings=self._embeddings(batch).to(device, torch.float32),
            pairs=self._pairs(batch, device),
        )

    def _embeddings(self, batch: TaskBatch) -> Embeddings:
        """The batch's descriptions: from the bank, or embedded now where they occur only once."""
        texts, fresh = batch.fresh, dict[int, Embeddings]()
        if texts and self._encoder is not None:
            made = self._encoder.encode_batch(list(texts.values()))
            fresh = dict(zip(texts, (row.to(dtype=torch.float16) for row in made), strict=True))
        absent = no_description(self._bank[0])
        return join(
            [
                fresh[position] if i == FRESH else absent if i == UNDESCRIBED else self._bank[i]
                for position, i in enumerate(batch.descriptions.tolist())
            ]
        )

    def _pairs(self, batch: TaskBatch, device: torch.device) -> EmbeddedPairs | None:
        """The batch's examples, embedded; new texts at once, and kept if they can come again."""
        if self._pair_bank is None or batch.examples is None or not any(batch.examples):
            return None
        bank = self._pair_bank
        if self.sampling.endless and self._encoder is not None:
            bank = PairBank(self._encoder.encode_batch)
        return bank(batch.examples).to(device, torch.float32)

    def _loader(self, data: Dataset[Any], sampler: Sampler[int] | None = None) -> DataLoader[Any]:
        return DataLoader(
            data,
            batch_size=None,
            shuffle=False,
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            prefetch_factor=4 if self.workers else None,
        )


class StepSampler(DistributedSampler[Any]):
    """Steps in order, every process of a training its own; the first pass starts at `first`.

    Steps that would not go round are left out. Its length is that of a whole epoch.
    """

    def __init__(self, steps: int, first: int, processes: int = 1, rank: int = 0) -> None:
        super().__init__(
            range(steps),  # type: ignore[arg-type]  (of which only the length is read)
            num_replicas=processes, rank=rank, shuffle=False, drop_last=True,
        )  # fmt: skip
        self.first = first

    def __iter__(self) -> Iterator[int]:
        first, self.first = self.first, 0
        yield from range(first + self.rank, self.total_size, self.num_replicas)
