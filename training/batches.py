"""Batches for training a generator through the base: tasks, descriptions, tokenised rows.

Sampling is hierarchical (Charakorn et al. 2025, section 4): a step takes some tasks, one fresh
description and a few rows of each. A step is a function of (seed, step).
"""

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import Dataset

from index.encoder import Embeddings
from library.prompts import Mode, answer_ids, prompt_ids, user_turn
from library.tasks import Instance, Task


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
