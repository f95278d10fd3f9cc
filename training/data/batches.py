"""Batches for training a generator through the base: tasks, descriptions, tokenised rows.

Sampling is hierarchical (Charakorn et al. 2025, section 4): a step takes some tasks, one fresh
description and a few rows of each. A step is a function of (seed, step).
"""

import functools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from index.encoders.descriptions import Embeddings
from index.encoders.pairs import EmbeddedPairs
from library.base.batches import TokenBatch, TokenRow, grouped
from library.base.prompts import Mode, answer_ids, prompt_ids, user_turn
from library.tasks.files import Example, Task
from training.data.relabel import Relabelling
from training.data.sampling import SamplingConfig
from training.data.steps import IndexedDataset
from training.data.task_variants import Variants
from training.synthetic.stream import SyntheticTask, SyntheticTasks

UNDESCRIBED = -1  # in place of a description's index
FRESH = -2  # in place of that of a text that no bank holds


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A row to be answered: its task's position in the step, prompt, every accepted answer."""

    owner: int
    prompt: list[int]
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaughtRow:
    """A row that a teacher answers: how the student reads it, how the teacher does, the answer.

    Attributes:
        owner: position of its condition in the step.
        prompt: tokens of the student's prompt.
        read: tokens of the teacher's.
        answer: tokens of the first accepted answer, with the end of sequence.
        nothing: whether its condition describes no task of this row: the teacher is then the base
            alone, with the student's prompt.
    """

    owner: int
    prompt: list[int]
    read: list[int]
    answer: list[int]
    nothing: bool = False


@dataclass
class TaskBatch:
    """One step: n tasks and their rows.

    Attributes:
        descriptions: index of the description of each; UNDESCRIBED for none, FRESH for one that
            the bank lacks.
        fresh: those, by position.
        rows: tokenised, in groups of similar length.
        tokens: of all rows, without padding.
        asked: the rows once more, in the order in which they were drawn.
        examples: pairs of each, which are none of its rows; None where nothing reads them.
        taught: the rows, in place of `rows` and `asked`, where there is a teacher.
        embeddings: of the descriptions, once it is on its device, and
        pairs: of the examples; None where there are none.
    """

    descriptions: Int[Tensor, " n"]
    rows: list[TokenBatch]
    tokens: int
    asked: list[PromptRow]
    examples: list[list[Example]] | None = None
    embeddings: Embeddings | None = None
    pairs: EmbeddedPairs | None = None
    fresh: dict[int, str] = field(default_factory=dict)
    taught: list[TaughtRow] = field(default_factory=list)


@dataclass(frozen=True)
class Wording:
    """One way to put a task: description, definition for prompts, and what answers become."""

    text: str
    definition: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def sample(self, position: int, instance: Example, mode: Mode) -> "Sample":
        turn = user_turn(mode, self.definition, instance.input)
        described = user_turn("prompted", self.text, instance.input)
        answers = tuple(self.labels.get(answer, answer) for answer in instance.outputs)
        return Sample(position, turn, described, answers)

    def pair(self, instance: Example) -> Example:
        """A row as an example of the task so worded."""
        answer = instance.outputs[0]
        return Example.pair(instance.input, self.labels.get(answer, answer))


@dataclass(frozen=True)
class Sample:
    """A row before it is tokenised: which task of the step, what is asked, what is to be said.

    `described` is what a teacher is asked: the task's description, whatever the mode. The first of
    the accepted answers is the one to train on.
    """

    position: int
    turn: str
    described: str
    answers: tuple[str, ...]


class StepDataset(IndexedDataset[TaskBatch]):
    """Item i is step i of training.

    Args:
        bank: the real tasks.
        synthetic: a stream of others.
    Raises:
        ValueError: the config has a share for synthetic tasks, and there is no stream.
    """

    def __init__(
        self,
        bank: "Rows",
        config: SamplingConfig,
        steps: int,
        seed: int,
        synthetic: SyntheticTasks | None = None,
    ) -> None:
        super().__init__(steps, self._batch)
        if config.synthetic and synthetic is None:
            raise ValueError("the config has a share for synthetic tasks, and there are none")
        self.bank, self.config, self.seed = bank, config, seed
        self.synthetic = synthetic
        self._variants: dict[int, Variants] = {}

    def _batch(self, step: int) -> TaskBatch:
        c, drawn = self.config, self.draw(step)
        examples = drawn.examples if c.examples else None
        batch = self.bank.batch(drawn.descriptions, drawn.samples, c, examples)
        return replace(batch, fresh=drawn.fresh)

    def draw(self, step: int) -> "DrawnStep":
        """A step before its rows are tokenised."""
        c, drawn = self.config, DrawnStep()
        rng = random.Random(f"{self.seed}/{step}")
        pairs_rng = random.Random(f"{self.seed}/{step}/examples")
        for position, task in enumerate(self._tasks(step, rng)):
            for instance in task.rows:
                mode: Mode = "prompted" if rng.random() < c.prompted_share else "bare"
                drawn.samples.append(task.wording.sample(position, instance, mode))
            described, pairs = drawn_examples(pairs_rng, task.train, task.rows, c)
            drawn.tasks.append(task)
            drawn.descriptions.append(task.place if described else UNDESCRIBED)
            if drawn.descriptions[-1] == FRESH:
                drawn.fresh[position] = task.wording.text
            drawn.examples.append([task.wording.pair(pair) for pair in pairs])
        return drawn

    def _tasks(self, step: int, rng: random.Random) -> Iterator["DrawnTask"]:
        """A step's tasks with their rows: pairs, other real ones, synthetic ones."""
        c, n = self.config, len(self.bank.tasks)
        changes = random.Random(f"{self.seed}/{step}/variants")
        real = c.tasks_per_step - c.synthetic - c.pairs
        for place in range(real):
            index = self._task_at(step * real + place, n)
            wording = self._wording(rng, index)
            rows = rng.choices(self.bank.tasks[index].train, k=c.rows_per_task)
            if changes.random() < c.variant_share:
                yield self._varied(changes, index, wording, rows, turns=place >= c.pairs)
            else:
                yield self._plain(index, wording, rows)
            if place < c.pairs:
                other = self._wording(changes, index)
                yield self._varied(changes, index, other, rows, turns=False)
        if self.synthetic is not None:
            for number in range(step * c.synthetic, (step + 1) * c.synthetic):
                origin = f"synthetic/{number // self.synthetic.group}"
                yield _drawn_synthetic(self.synthetic[number], c, origin)

    def _plain(self, index: int, wording: int, rows: Sequence[Example]) -> "DrawnTask":
        task, put = self.bank.tasks[index], self.bank.wordings[index][wording]
        return DrawnTask(self.bank.first[index] + wording, put, rows, task.train, origin_of(task))

    def _varied(
        self, rng: random.Random, index: int, wording: int, rows: Sequence[Example], turns: bool
    ) -> "DrawnTask":
        """A variant of a task in one of its wordings, with rows of the task."""
        if index not in self._variants:
            self._variants[index] = Variants(self.bank.tasks[index])
        put = self.bank.wordings[index][wording]
        train = [put.pair(row) for row in self.bank.tasks[index].train]
        variant = self._variants[index].drawn(rng, train, turns)
        text, definition = (variant.described(t, rng) for t in (put.text, put.definition))
        asked = [variant.row(put.pair(row)) for row in rows]
        varied = [variant.row(row) for row in train] if self.config.examples else asked
        origin = origin_of(self.bank.tasks[index])
        return DrawnTask(FRESH, Wording(text, definition), asked, varied, origin)

    def _task_at(self, visit: int, n: int) -> int:
        """Every task once per round, in an order of the round's own."""
        return _order(f"{self.seed}/round/{visit // n}", n)[visit % n]

    def _wording(self, rng: random.Random, task: int) -> int:
        """Index of one of the task's wordings: the definition comes first, relabellings last."""
        count, plain = len(self.bank.wordings[task]), len(self.bank.tasks[task].descriptions)
        if count > plain and rng.random() < self.config.relabel_share:
            return rng.randrange(plain, count)
        if plain == 1 or rng.random() < self.config.definition_share:
            return 0
        return rng.randrange(1, plain)


@dataclass(frozen=True)
class DrawnTask:
    """A task of a step: where its description lies, how it is put, its rows, rows for examples.

    Tasks whose rows may be alike have a name of their `origin` in common.
    """

    place: int
    wording: Wording
    rows: Sequence[Example]
    train: Sequence[Example]
    origin: frozenset[str]


@dataclass
class DrawnStep:
    """The tasks of a step, and what a TaskBatch says of them; samples are in the tasks' order."""

    tasks: list[DrawnTask] = field(default_factory=list)
    descriptions: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    examples: list[list[Example]] = field(default_factory=list)
    fresh: dict[int, str] = field(default_factory=dict)


def origin_of(task: Task) -> frozenset[str]:
    """The data set and the categories that a task's rows are of, or the task itself."""
    return frozenset((*task.sources, *task.categories)) or frozenset((task.name,))


def _drawn_synthetic(task: SyntheticTask, config: SamplingConfig, origin: str) -> DrawnTask:
    """Its first rows are asked, some more are there to be examples."""
    train = [task.row(j) for j in range(config.rows_per_task + config.examples)]
    wording = Wording(task.description, task.description)
    different = list({row.input: row for row in train}.values())
    rows = train[: config.rows_per_task]
    return DrawnTask(FRESH, wording, rows, different, frozenset((origin,)))


def drawn_examples(
    rng: random.Random, train: Sequence[Example], rows: Sequence[Example], config: SamplingConfig
) -> tuple[bool, list[Example]]:
    """Whether a task comes with its description, and its examples; never neither.

    Args:
        train: the task's train rows.
        rows: those of the step; no example has the input of one of them.
    """
    share = rng.random()
    if not config.examples or share < config.no_examples_share:
        return True, []
    rest = not_asked(train, rows)
    pairs = rng.sample(rest, min(len(rest), rng.randint(1, config.examples)))
    described = share >= config.no_examples_share + config.no_description_share
    return described or not pairs, pairs


def not_asked(train: Sequence[Example], rows: Sequence[Example]) -> list[Example]:
    """The train rows that may be examples: none with the input of a row that is asked."""
    asked = {row.input for row in rows}
    return [row for row in train if row.input not in asked and row.output.strip()]


@functools.lru_cache(maxsize=4)
def _order(seed: str, n: int) -> list[int]:
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return order


class ValidationDataset(IndexedDataset[TaskBatch]):
    """Tune rows of the tasks set aside, bare, by their definitions; item i is 8 tasks.

    With the first train rows as examples, where there are examples; none has a tune row's input.
    """

    PER_ITEM = 8

    def __init__(self, bank: "Rows", config: SamplingConfig) -> None:
        super().__init__(-(-len(bank.tasks) // self.PER_ITEM), self._batch)
        self.bank, self.config = bank, config

    def _batch(self, item: int) -> TaskBatch:
        tasks = range(len(self.bank.tasks))[item * self.PER_ITEM : (item + 1) * self.PER_ITEM]
        samples = [
            self.bank.wordings[index][0].sample(position, instance, "bare")
            for position, index in enumerate(tasks)
            for instance in self.bank.tasks[index].tune
        ]
        descriptions, count = [self.bank.first[i] for i in tasks], self.config.examples
        chosen = [self.bank.tasks[i] for i in tasks]
        examples = [not_asked(task.train, task.tune)[:count] for task in chosen]
        return self.bank.batch(descriptions, samples, self.config, examples if count else None)


class Rows:
    """Tasks, their wordings and where these lie in the bank of embeddings, and a tokenizer.

    Args:
        tasks: the tasks.
        tokenizer: the base's.
        relabelled: relabellings of each task, if there are any.
        first: index of the first wording in the bank.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        tokenizer: Any,
        relabelled: Sequence[Sequence[Relabelling]] | None = None,
        first: int = 0,
    ) -> None:
        self.tasks, self.tokenizer = list(tasks), tokenizer
        self.wordings: list[list[Wording]] = []
        self.first: list[int] = []
        for task, variants in zip(tasks, relabelled or [[]] * len(tasks), strict=True):
            plain = [Wording(text, task.definition) for text in task.descriptions]
            swapped = [Wording(v.definition, v.definition, v.labels) for v in variants]
            self.first.append(first)
            self.wordings.append([*plain, *swapped])
            first += len(self.wordings[-1])

    @property
    def texts(self) -> list[str]:
        """The texts to embed, in the order of the bank."""
        return [wording.text for wordings in self.wordings for wording in wordings]

    def batch(
        self,
        descriptions: Sequence[int],
        samples: Sequence[Sample],
        config: SamplingConfig,
        examples: list[list[Example]] | None = None,
    ) -> TaskBatch:
        """Tokenise samples and group them by length; too long ones are left out."""
        rows, asked = [], []
        for sample in samples:
            prompt = prompt_ids(self.tokenizer, sample.turn)
            row = TokenRow(sample.position, prompt, answer_ids(self.tokenizer, sample.answers[0]))
            if len(row) <= config.max_length:
                rows.append(row)
                asked.append(PromptRow(sample.position, prompt, sample.answers))
        groups = grouped(rows, self.tokenizer.pad_token_id, config.micro_batches)
        tokens = sum(map(len, rows))
        return TaskBatch(torch.tensor(descriptions), groups, tokens, asked, examples)
