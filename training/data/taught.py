"""Steps for a student that learns from a teacher: every row as each of the two reads it."""

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from library.base.prompts import answer_ids, prompt_ids
from library.errors import UsageError
from training.data.batches import FRESH, UNDESCRIBED, Rows, Sample, TaskBatch, TaughtRow
from training.data.draws import DrawnStep, DrawnTask, StepDataset
from training.data.sampling import SamplingConfig
from training.data.steps import IndexedDataset
from training.data.tasks import TaskDataModule
from training.synthetic.settings import invented_name
from training.synthetic.stream import SyntheticTasks

GIBBERISH_SHARE = 0.5  # of the conditions that ask for nothing
NAMES = 10**6  # different invented words
CHARACTERS = string.ascii_letters + string.digits + string.punctuation


class TaughtDataModule(TaskDataModule):
    """Tasks for distillation: the teacher reads the description that the student gets.

    A row that is longer than sampling.max_length with either prompt is left out.

    Args:
        nothing_share: share of a step's conditions that ask for nothing that its rows could
            answer: gibberish, or a description of another task. The base itself is then the
            teacher. The rows are those of another condition of the step.
        **kwargs: see TaskDataModule.
    Raises:
        UsageError: a share outside [0, 1).
    """

    def __init__(self, nothing_share: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= nothing_share < 1:
            raise UsageError(f"nothing_share must be from 0 up to 1, not {nothing_share:g}")
        self.nothing_share = nothing_share

    @property
    def record(self) -> dict[str, Any]:
        """The data's entry in the checkpoint."""
        return {**super().record, "nothing_share": self.nothing_share}

    def training_steps(self) -> IndexedDataset[TaskBatch]:
        """The steps of training, without what a loader adds."""
        return TaughtSteps(
            self._train_rows, self.step_sampling, self.steps, self.seed, self._synthetic,
            self.nothing_share,
        )  # fmt: skip


class TaughtSteps(IndexedDataset[TaskBatch]):
    """Item i is step i, which holds `taught` rows alone.

    Args:
        nothing_share: see TaughtDataModule.
        others: see StepDataset.
    """

    def __init__(
        self,
        bank: Rows,
        config: SamplingConfig,
        steps: int,
        seed: int,
        synthetic: SyntheticTasks | None = None,
        nothing_share: float = 0.0,
    ) -> None:
        super().__init__(steps, self._batch)
        n = config.tasks_per_step
        self.nothing = min(round(nothing_share * n), n - 1)
        config = replace(config, tasks_per_step=n - self.nothing)
        self.described = StepDataset(bank, config, steps, seed, synthetic)
        self.words = sorted({word for text in bank.texts for word in text.split()})

    def _batch(self, step: int) -> TaskBatch:
        config, drawn = self.described.config, self.described.draw(step)
        rows = [self._row(sample) for sample in drawn.samples]
        rng = random.Random(f"{self.described.seed}/{step}/nothing")
        for _ in range(self.nothing):
            rows += self._nothing(rng, drawn)
        taught = [row for row in rows if _length(row) <= config.max_length]
        return TaskBatch(
            torch.tensor(drawn.descriptions),
            rows=[],
            tokens=sum(len(row.prompt) + len(row.answer) for row in taught),
            asked=[],
            examples=drawn.examples if config.examples else None,
            fresh=drawn.fresh,
            taught=taught,
        )

    def _row(self, sample: Sample) -> TaughtRow:
        tokenizer = self.described.bank.tokenizer
        prompt, read = (prompt_ids(tokenizer, turn) for turn in (sample.turn, sample.described))
        return TaughtRow(sample.position, prompt, read, answer_ids(tokenizer, sample.answers[0]))

    def _nothing(self, rng: random.Random, drawn: DrawnStep) -> Iterator[TaughtRow]:
        """Join a condition that asks for nothing to a step; its rows."""
        owner, task = len(drawn.descriptions), rng.choice(drawn.tasks)
        others = [
            i
            for i, other in enumerate(drawn.tasks)
            if drawn.descriptions[i] != UNDESCRIBED and not may_fit(other, task)
        ]
        if others and rng.random() >= GIBBERISH_SHARE:
            other = rng.choice(others)
            place, text = drawn.descriptions[other], drawn.fresh.get(other)
        else:
            place, text = FRESH, gibberish(rng, self.words)
        drawn.descriptions.append(place)
        drawn.examples.append([])
        if text is not None:
            drawn.fresh[owner] = text
        for instance in task.rows:
            row = self._row(task.wording.sample(owner, instance, "bare"))
            yield replace(row, read=row.prompt, nothing=True)


def _length(row: TaughtRow) -> int:
    return max(len(row.prompt), len(row.read)) + len(row.answer)


def may_fit(described: DrawnTask, asked: DrawnTask) -> bool:
    """Whether one task's description may make sense of another's rows.

    So it is for tasks of one data set, category or group, and for those that share an input.
    """
    inputs = {row.input for row in (*described.train, *described.rows)}
    return bool(described.origin & asked.origin) or any(row.input in inputs for row in asked.rows)


def gibberish(rng: random.Random, words: Sequence[str]) -> str:
    """A text that describes no task: words at random, invented ones, or characters.

    Args:
        rng: of everything that is drawn.
        words: existing ones.
    """
    kind, count = rng.randrange(3), rng.randint(3, 14)
    if kind == 0:
        return " ".join(rng.choice(words) for _ in range(count))
    if kind == 1:
        return " ".join(invented_name(rng.randrange(NAMES)).lower() for _ in range(count))
    return " ".join("".join(rng.choices(CHARACTERS, k=rng.randint(2, 9))) for _ in range(count))
