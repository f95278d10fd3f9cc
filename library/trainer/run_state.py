"""One adapter in training: its rows in their order, its clock, its looks at the tune rows."""

import random
from collections import deque
from dataclasses import dataclass, field

from library.adapter import Adapter
from library.base.batches import TokenRow


@dataclass(frozen=True)
class TrainingJob:
    """One adapter to train: its name, rows and the seed of their order."""

    name: str
    train: tuple[TokenRow, ...]
    tune: tuple[TokenRow, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Check:
    """How an adapter did on its tune rows, greedily and teacher-forced."""

    step: int
    accuracy: float  # mean over rows of the share of answer tokens that are right
    loss: float  # mean over rows, nats per token

    def merit(self) -> tuple[float, float]:
        """What is better is greater: accuracy, then a lower loss."""
        return self.accuracy, -self.loss


@dataclass
class Slot:
    """An adapter that is being trained."""

    job: TrainingJob
    step: int = 0
    restarts: int = 0
    alive: bool = True
    waited: int = 0
    best: Adapter | None = None
    checks: list[Check] = field(default_factory=list)
    snapshots: deque[Adapter] = field(default_factory=deque)
    _left: list[TokenRow] = field(default_factory=list)
    _epoch: int = 0

    def draw(self, count: int) -> list[TokenRow]:
        """The next rows: every row once an epoch, in an order of the epoch's own."""
        while len(self._left) < count:
            order = list(self.job.train)
            random.Random(f"{self.job.seed}/{self.job.name}/{self._epoch}").shuffle(order)
            self._left += order
            self._epoch += 1
        taken, self._left = self._left[:count], self._left[count:]
        return taken

    def restart(self, most: int) -> bool:
        """Start again; false if that has been done too often."""
        self.alive = self.restarts < most
        self.restarts += self.alive
        self.step, self.waited, self._epoch, self._left = 0, 0, 0, []
        self.best, self.checks = None, []
        self.snapshots.clear()
        return self.alive

    def better(self, check: Check) -> bool:
        """Record a look; whether it is the best so far. Ties in accuracy go to the lower loss."""
        best = max(self.checks, key=Check.merit, default=None)
        self.checks.append(check)
        is_best = best is None or check.merit() > best.merit()
        self.waited = 0 if is_best else self.waited + 1
        return is_best

    def keep(self, state: Adapter, most: int) -> None:
        self.snapshots.append(state)
        while len(self.snapshots) > most:
            self.snapshots.popleft()
