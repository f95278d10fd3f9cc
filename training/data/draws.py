"""What a step draws: its tasks, their wordings and rows.

Sampling is hierarchical (Charakorn et al. 2025, section 4): a step takes some tasks, one fresh
description and a few rows of each. A step is a function of (seed, step).
"""

import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from library.base.prompts import Mode
from library.tasks.files import Example, Task
from training.data.batches import (
    FRESH,
    UNDESCRIBED,
    Rows,
    Sample,
    TaskBatch,
    Wording,
)
from training.data.sampling import SamplingConfig
from training.data.steps import IndexedDataset
from training.data.task_variants import Variants
from training.synthetic.stream import SyntheticTask, SyntheticTasks


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

    def __init__(self, bank: Rows, config: SamplingConfig) -> None:
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
