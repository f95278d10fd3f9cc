"""Batches for training a generator through the base model: tasks, descriptions, tokenised rows.

Sampling is hierarchical (Charakorn et al. 2025, section 4): a step takes some tasks, one fresh
description and a few rows of each. A step is a function of (seed, step), so a resumed run sees the
batches that it would have seen.
"""

import functools
import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from index.encoder import DEFAULT_ENCODER, DescriptionEncoder, Embeddings, join
from library.base import resolve_base
from library.errors import TaskFileError, UsageError
from library.prompts import Mode, answer_ids, prompt_ids, user_turn
from library.tasks import Instance, Task, read_tasks


@dataclass
class TokenBatch:
    """Rows of similar length, padded on the right; `rows` says which task each belongs to.

    With causal attention and padding on the right no real token sees padding, so no attention mask
    is needed. `answer` marks the positions whose *next* token is to be predicted.
    """

    ids: Int[Tensor, "batch length"]
    answer: Bool[Tensor, "batch length"]
    rows: Int[Tensor, " batch"]


@dataclass
class TaskBatch:
    """One step: n tasks, the index of the description of each, and their rows."""

    descriptions: Int[Tensor, " n"]
    rows: list[TokenBatch]
    tokens: int  # without padding
    embeddings: Embeddings | None = None


@dataclass(frozen=True)
class SamplingConfig:
    """How a step is drawn.

    Attributes:
        tasks_per_step: tasks in a step.
        rows_per_task: rows of each.
        prompted_share: share of rows whose prompt contains the task's definition; the others are
            bare, so the adapter has to carry the task.
        definition_share: share of steps in which a task goes by its definition; otherwise by a
            random one of its summary and paraphrases.
        max_length: longer rows are left out.
        micro_batches: groups of similar length and equal weight that a step's rows are split into.
    """

    tasks_per_step: int = 32
    rows_per_task: int = 8
    prompted_share: float = 0.15
    definition_share: float = 0.4
    max_length: int = 320
    micro_batches: int = 6


class StepDataset(Dataset[TaskBatch]):
    """Item i is step i of training."""

    def __init__(self, bank: "Rows", config: SamplingConfig, steps: int, seed: int) -> None:
        self.bank, self.config, self.steps, self.seed = bank, config, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> TaskBatch:
        c, n = self.config, len(self.bank.tasks)
        rng = random.Random(f"{self.seed}/{step}")
        chosen = [self._task_at(step * c.tasks_per_step + i, n) for i in range(c.tasks_per_step)]
        descriptions, samples = [], []
        for position, index in enumerate(chosen):
            descriptions.append(self._description(rng, index))
            for instance in rng.choices(self.bank.tasks[index].train, k=c.rows_per_task):
                mode: Mode = "prompted" if rng.random() < c.prompted_share else "bare"
                samples.append((position, index, instance, mode))
        return self.bank.batch(descriptions, samples, c)

    def _task_at(self, visit: int, n: int) -> int:
        """Every task once per round, in an order of the round's own."""
        return _order(f"{self.seed}/round/{visit // n}", n)[visit % n]

    def _description(self, rng: random.Random, task: int) -> int:
        first, count = self.bank.spans[task]
        if count == 1 or rng.random() < self.config.definition_share:
            return first
        return first + rng.randrange(1, count)


@functools.lru_cache(maxsize=4)
def _order(seed: str, n: int) -> list[int]:
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return order


class ValidationDataset(Dataset[TaskBatch]):
    """Tune rows of the tasks set aside, bare, by their definitions; item i is 8 tasks."""

    PER_ITEM = 8

    def __init__(self, bank: "Rows", config: SamplingConfig) -> None:
        self.bank, self.config = bank, config

    def __len__(self) -> int:
        return -(-len(self.bank.tasks) // self.PER_ITEM)

    def __getitem__(self, item: int) -> TaskBatch:
        chosen = range(len(self.bank.tasks))[item * self.PER_ITEM : (item + 1) * self.PER_ITEM]
        samples: list[tuple[int, int, Instance, Mode]] = [
            (position, index, instance, "bare")
            for position, index in enumerate(chosen)
            for instance in self.bank.tasks[index].tune
        ]
        return self.bank.batch([self.bank.spans[i][0] for i in chosen], samples, self.config)


class Rows:
    """Tasks, the places of their descriptions in the bank of embeddings, and a tokenizer."""

    def __init__(self, tasks: Sequence[Task], tokenizer: Any, first_description: int = 0) -> None:
        self.tasks, self.tokenizer = list(tasks), tokenizer
        self.spans: list[tuple[int, int]] = []
        for task in self.tasks:
            self.spans.append((first_description, len(task.descriptions)))
            first_description += len(task.descriptions)

    def batch(
        self,
        descriptions: Sequence[int],
        samples: Sequence[tuple[int, int, Instance, Mode]],
        config: SamplingConfig,
    ) -> TaskBatch:
        """Tokenise samples of (position in the step, task, row, mode) and group them by length."""
        rows = []
        for position, index, instance, mode in samples:
            turn = user_turn(mode, self.tasks[index].definition, instance.input)
            prompt = prompt_ids(self.tokenizer, turn)
            answer = answer_ids(self.tokenizer, instance.outputs[0])
            if len(prompt) + len(answer) <= config.max_length:
                rows.append((position, prompt, answer))
        rows.sort(key=lambda row: len(row[1]) + len(row[2]))
        lengths = [len(prompt) + len(answer) for _, prompt, answer in rows]
        pad = self.tokenizer.pad_token_id
        groups = [_pad(rows[a:b], pad) for a, b in _cuts(lengths, config.micro_batches)]
        return TaskBatch(torch.tensor(descriptions), groups, sum(lengths))


def _cuts(lengths: Sequence[int], parts: int) -> list[tuple[int, int]]:
    """Cut sorted lengths into at most `parts` runs of about equally many tokens."""
    if not lengths:
        return []
    share = sum(lengths) / parts
    edges, filled = [0], 0
    for i, length in enumerate(lengths):
        if filled >= share * len(edges):
            edges.append(i)
        filled += length
    return list(zip(edges, [*edges[1:], len(lengths)], strict=True))


def _pad(rows: Sequence[tuple[int, list[int], list[int]]], pad: int) -> TokenBatch:
    width = -(-max(len(prompt) + len(answer) for _, prompt, answer in rows) // 8) * 8
    ids = torch.full((len(rows), width), pad)
    answers = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (_, prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[i, :end] = torch.tensor(prompt + answer)
        answers[i, len(prompt) - 1 : end - 1] = True
    return TokenBatch(ids, answers, torch.tensor([position for position, _, _ in rows]))


def set_aside(tasks: Sequence[Task], share: float, seed: int) -> tuple[list[Task], list[Task]]:
    """Split into (training, set aside): half of the latter by whole categories, half single tasks.

    The order is by digest, so a new task does not move the others.
    """
    wanted = round(len(tasks) * share)

    def key(text: str) -> str:
        return hashlib.sha256(f"{seed}/{text}".encode()).hexdigest()

    category = {task.name: (task.categories or ("",))[0] for task in tasks}
    sizes = {c: sum(v == c for v in category.values()) for c in category.values()}
    aside: set[str] = set()
    for name in sorted(sizes, key=key):
        if sizes[name] <= wanted // 2 - len(aside):
            aside |= {task for task, c in category.items() if c == name}
    for name in sorted(category, key=key):
        if len(aside) < wanted:
            aside.add(name)
    return [t for t in tasks if t.name not in aside], [t for t in tasks if t.name in aside]


class TaskDataModule(lightning.LightningDataModule):
    """Task folders for SFT.

    Args:
        tasks: folders (or files) of tasks.
        base: Hub id or folder of the base model, for its tokenizer; the default base if None.
        encoder: the description encoder.
        sampling: how a step is drawn.
        steps: steps of training that exist (an epoch).
        set_aside_share: share of tasks kept for validation and early stop.
        exclude_license_classes: tasks of these classes are left out.
        seed: of sampling and of the tasks set aside.
        workers: processes that tokenise.
    """

    def __init__(
        self,
        tasks: list[str],
        base: str | None = None,
        encoder: str = DEFAULT_ENCODER,
        sampling: SamplingConfig = SamplingConfig(),
        steps: int = 1500,
        set_aside_share: float = 0.0,
        exclude_license_classes: list[str] | None = None,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= set_aside_share < 1:
            raise UsageError("set_aside_share must be from 0 up to 1")
        self.folders, self.base, self.encoder_name = tasks, resolve_base(base), encoder
        self.sampling, self.steps, self.share = sampling, steps, set_aside_share
        self.excluded = set(exclude_license_classes or [])
        self.seed, self.workers = seed, workers
        self.training: list[Task] = []
        self.held_back: list[Task] = []
        self._bank: list[Embeddings] = []
        self._first_step = 0

    def state_dict(self) -> dict[str, Any]:
        """Where in the epoch a checkpoint was written; Lightning itself would begin it again."""
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0
        return {"step": done % self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._first_step = state_dict["step"]

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks that are trained on."""
        return [task.name for task in self.training]

    @property
    def record(self) -> dict[str, Any]:
        """What the checkpoint says of its data."""
        return {
            "descriptions": sum(len(task.descriptions) for task in self.training),
            "excluded_license_classes": sorted(self.excluded),
            "sampling": asdict(self.sampling),
            "seed": self.seed,
            "set_aside": sorted(task.name for task in self.held_back),
        }

    def setup(self, stage: str) -> None:
        if self.training:
            return
        found = [task for folder in self.folders for task in read_tasks(Path(folder))]
        kept = [t for t in found if t.license_class not in self.excluded and t.train]
        if not kept:
            raise TaskFileError("no tasks are left to train on")
        self.training, self.held_back = set_aside(kept, self.share, self.seed)
        tokenizer = load_tokenizer(self.base)
        self._train_rows = Rows(self.training, tokenizer)
        count = sum(len(task.descriptions) for task in self.training)
        self._val_rows = Rows(self.held_back, tokenizer, count)
        texts = [t for task in [*self.training, *self.held_back] for t in task.descriptions]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        encoder = DescriptionEncoder(self.encoder_name, dtype=torch.float32, device=device)
        self._bank = encoder.encode_batch(texts)

    def train_dataloader(self) -> DataLoader[TaskBatch]:
        data = StepDataset(self._train_rows, self.sampling, self.steps, self.seed)
        return self._loader(data, _Resumed(self.steps, self._first_step))

    def val_dataloader(self) -> DataLoader[TaskBatch]:
        return self._loader(ValidationDataset(self._val_rows, self.sampling))

    test_dataloader = val_dataloader

    def transfer_batch_to_device(
        self, batch: TaskBatch, device: torch.device, dataloader_idx: int
    ) -> TaskBatch:
        chosen = join([self._bank[i] for i in batch.descriptions.tolist()])
        rows = [
            TokenBatch(
                g.ids.to(device, non_blocking=True),
                g.answer.to(device, non_blocking=True),
                g.rows.to(device, non_blocking=True),
            )
            for g in batch.rows
        ]
        return replace(batch, rows=rows, embeddings=chosen.to(device))

    def _loader(
        self, data: Dataset[TaskBatch], sampler: Sampler[int] | None = None
    ) -> DataLoader[TaskBatch]:
        return DataLoader(
            data,
            batch_size=None,
            shuffle=False,
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            prefetch_factor=4 if self.workers else None,
        )


class _Resumed(Sampler[int]):
    """Steps in order; the first pass starts at `first`. Its length is that of a whole epoch."""

    def __init__(self, steps: int, first: int) -> None:
        self.steps, self.first = steps, first

    def __iter__(self) -> Iterator[int]:
        first, self.first = self.first, 0
        yield from range(first, self.steps)

    def __len__(self) -> int:
        return self.steps


def load_tokenizer(base: Any) -> Any:
    """The base's tokenizer alone."""
    from transformers import AutoTokenizer

    from library import packaged

    if base.packaged:
        packaged.ensure_converted()
    tokenizer = AutoTokenizer.from_pretrained(base.path, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
