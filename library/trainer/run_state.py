"""One adapter in training: its rows in their order, steps, restarts, evaluations and result."""

import itertools
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from library.adapter import Adapter
from library.base.batches import TokenRow, labelled_and_taught
from library.trainer.recipes.recipe import Recipe, TrainingJob

State = TypeVar("State")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Attributes:
        steps: the most steps of an adapter.
        rows: rows of a step, for each adapter; so many of either kind, where a teacher answered
            some.
        slots: adapters trained at once.
        micro_batches: groups of similar length that a step is cut into.
        check_every: steps between evaluations on the tune rows.
        patience: evaluations without a better one before an adapter stops early; 0 for never.
        snapshots: number of last states to store, and
        snapshot_every: the steps between them.
        restarts: how often an adapter that went non-finite may start again at half its rate.
    """

    steps: int = 300
    rows: int = 8
    slots: int = 32
    micro_batches: int = 3
    check_every: int = 25
    patience: int = 4
    snapshots: int = 0
    snapshot_every: int = 4
    restarts: int = 4


@dataclass(frozen=True)
class Check:
    """One evaluation on the tune rows, greedy and teacher-forced."""

    step: int
    accuracy: float  # mean over rows of the share of answer tokens that are right
    loss: float  # mean over rows, nats per token

    @property
    def score(self) -> tuple[float, float]:
        """Greater is better: accuracy, then a lower loss."""
        return self.accuracy, -self.loss


@dataclass(frozen=True)
class Trained:
    """A finished job.

    Attributes:
        adapter: with the scale in its B; None if it never stayed finite.
        snapshots: the last states, oldest first.
        scores: measured on the adapter itself, where that is not what was trained.
    """

    job: TrainingJob
    adapter: Adapter | None
    steps: int
    restarts: int
    checks: list[Check]
    snapshots: list[Adapter]
    scores: dict[str, float] = field(default_factory=dict)


@dataclass
class Figures:
    """The cost of training so far."""

    tokens: int = 0  # of the rows of all steps, without padding
    cells: int = 0  # with padding


def best_check(checks: Sequence[Check]) -> Check | None:
    """The first evaluation of the greatest score; None if there is none."""
    return max(checks, key=lambda check: check.score, default=None)


def shuffled_rows(job: TrainingJob) -> Iterator[TokenRow]:
    """A job's train rows without end: all of them each epoch, in an order of the epoch's own."""
    for epoch in itertools.count():
        order = list(job.train)
        random.Random(f"{job.seed}/{job.name}/{epoch}").shuffle(order)
        yield from order


class RunState(Generic[State]):
    """An adapter that is being trained; `State` is what its trainer stores of it.

    Attributes:
        step: steps done since the last start.
        failed: it went non-finite and may not start again.
        is_best: the last evaluation beats all before it.
        evaluations_since_best: what patience counts.
        best: state at the best evaluation.
        snapshots: the last states, oldest first.
    """

    def __init__(self, job: TrainingJob, recipe: Recipe, config: TrainConfig) -> None:
        self.job, self.recipe, self.config = job, recipe, config
        self.restarts, self.failed = 0, False
        self._begin()

    def _begin(self) -> None:
        self.step, self.evaluations_since_best, self.is_best = 0, 0, False
        self.checks: list[Check] = []
        self.best: State | None = None
        self.snapshots: deque[State] = deque(maxlen=self.config.snapshots)
        kinds = labelled_and_taught(self.job.train)
        self._rows = [shuffled_rows(replace(self.job, train=kind)) for kind in kinds]

    def draw(self) -> list[TokenRow]:
        """The rows of the next step."""
        return [row for rows in self._rows for row in itertools.islice(rows, self.config.rows)]

    @property
    def learning_rate(self) -> float:
        """A's rate at the next step; halved by every restart."""
        return self.recipe.lr * self.recipe.rate(self.step, self.config.steps) / 2**self.restarts

    @property
    def snapshot_is_due(self) -> bool:
        return self.config.snapshots > 0 and self.step % self.config.snapshot_every == 0

    @property
    def evaluation_is_due(self) -> bool:
        steps = self.config.steps
        if not self.job.tune or self.step < self.recipe.first_result(steps):
            return False
        return self.step % self.config.check_every == 0 or self.step == steps

    @property
    def is_done(self) -> bool:
        """All steps are done, patience is exhausted, or it failed."""
        exhausted = 0 < self.config.patience <= self.evaluations_since_best
        return self.failed or exhausted or self.step >= self.config.steps

    def record(self, check: Check) -> None:
        """Add an evaluation. Ties in accuracy go to the lower loss."""
        best = best_check(self.checks)
        self.is_best = best is None or check.score > best.score
        self.evaluations_since_best = 0 if self.is_best else self.evaluations_since_best + 1
        self.checks.append(check)

    def restart(self) -> None:
        """Start again from the first step, or fail if that has been done too often."""
        self.failed = self.restarts >= self.config.restarts
        self.restarts += not self.failed
        self._begin()

    def result(
        self, adapter: Adapter | None, snapshots: Sequence[Adapter], **scores: float
    ) -> Trained:
        """The finished job; `scores` are of the adapter itself."""
        return Trained(
            self.job, adapter, self.step, self.restarts, self.checks, list(snapshots), scores
        )
