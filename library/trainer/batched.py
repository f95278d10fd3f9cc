"""The batched trainer: many adapters learn at once, in one forward pass of the frozen base.

Each slot holds one adapter and its own rows, schedule, early stop and restarts. A slot that is done
takes the next job. What a job becomes depends on its rows and its seed, not on its neighbours:
tests hold it to PEFT, one task alone.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from library.adapter import Adapter
from library.base.multi_adapter import MultiAdapter
from library.layout import Layout
from library.trainer.loss_backends import GroupedPasses, PackedPasses, Passes
from library.trainer.optimiser import StackedAdamW, shared_start
from library.trainer.recipes import Recipe
from library.trainer.run_state import Check, Slot, TrainingJob


@dataclass(frozen=True)
class TrainConfig:
    """How long and how wide.

    Attributes:
        steps: the most steps of an adapter.
        rows: rows of a step, for each adapter.
        slots: adapters at once.
        micro_batches: groups of similar length that a step is cut into.
        check_every: steps between looks at the tune rows.
        patience: looks without a better one before an adapter stops early; 0 for never.
        snapshots: how many of the last states to keep, and
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
class Trained:
    """A finished job. `adapter` is None if it never stayed finite; scale is in its B.

    `scores` is what was measured on the adapter itself, where that is not what was trained.
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
    """What training has cost so far."""

    tokens: int = 0  # without padding
    cells: int = 0  # with padding


class BatchedTrainer:
    """Trains jobs side by side.

    Args:
        model: the frozen base, a causal LM of transformers.
        layout: what the adapters adapt.
        recipe: how one is trained.
        config: how many at once, for how long.
        pad: id of the padding token.
        seed: of the A that all start from.
        packed: how rows are run (library.trainer.loss_backends); by default packed on a GPU.
    """

    def __init__(
        self,
        model: Any,
        layout: Layout,
        recipe: Recipe,
        config: TrainConfig,
        *,
        pad: int,
        seed: int = 0,
        packed: bool | None = None,
    ) -> None:
        self.model, self.recipe, self.config, self.pad = model, recipe, config, pad
        # Adapters stay in float32 where the base runs in half precision.
        dtype = torch.float64 if model.dtype == torch.float64 else torch.float32
        start = shared_start(layout, seed, dtype).to(model.device)
        self.optimiser = StackedAdamW(start, config.slots, recipe)
        self.layout, self.figures = layout, Figures()
        self.packed = model.device.type == "cuda" if packed is None else packed

    def run(
        self, jobs: Sequence[TrainingJob], tick: Callable[[int], None] | None = None
    ) -> Iterator[Trained]:
        """Train all jobs, in their order as slots become free; yield each as it is done.

        `tick` is called after every step with the steps that unfinished adapters have behind them.
        """
        waiting = deque(jobs)
        slots: list[Slot | None] = [None] * len(self.optimiser)
        hooks = MultiAdapter(self.model, self.layout)
        passes = self._passes(hooks)
        try:
            while True:
                for place in range(len(slots)):
                    if slots[place] is None and waiting:
                        self.optimiser.reset(place)
                        slots[place] = Slot(waiting.popleft())
                active = {i: slot for i, slot in enumerate(slots) if slot is not None}
                if not active:
                    return
                for place in self._step(active, passes):
                    yield self._finish(active.pop(place), place)
                    slots[place] = None
                if tick:
                    tick(sum(slot.step for slot in active.values()))
        finally:
            hooks.close()

    def _passes(self, hooks: MultiAdapter) -> Passes:
        if self.packed:
            like = self.optimiser.adapters()
            return PackedPasses(self.model, hooks, self.pad, like)
        return GroupedPasses(self.model, hooks, self.pad, self.config.micro_batches)

    def _step(self, active: dict[int, Slot], passes: Passes) -> list[int]:
        """One step of every active slot; which of them are done."""
        c = self.config
        rows = [replace(r, owner=i) for i, slot in active.items() for r in slot.draw(c.rows)]
        answers = [0] * len(self.optimiser)
        for row in rows:
            answers[row.owner] += len(row.answer)
        weights = [1 / max(1, count) for count in answers]
        adapters = self.optimiser.adapters()
        _pass_on(adapters, passes.gradients(rows, weights, adapters))
        self.figures.tokens += sum(map(len, rows))
        self.figures.cells = passes.cells
        finite = self.optimiser.step([self._rate(active.get(i)) for i in range(len(weights))])
        return self._after(active, finite.tolist(), passes)

    def _after(self, active: dict[int, Slot], finite: list[bool], passes: Passes) -> list[int]:
        """Count the step, restart what went non-finite, look at tune rows, find what is done."""
        c, done, due = self.config, [], []
        for place, slot in active.items():
            if not finite[place]:
                self.optimiser.reset(place)
                if not slot.restart(c.restarts):
                    done.append(place)
                continue
            slot.step += 1
            if c.snapshots and slot.step % c.snapshot_every == 0:
                slot.keep(self._state(place), c.snapshots)
            if slot.job.tune and (slot.step % c.check_every == 0 or slot.step == c.steps):
                due.append(place)
        for place, check in self._look(due, active, passes).items():
            if active[place].better(check):
                active[place].best = self._state(place)
            if c.patience and active[place].waited >= c.patience:
                done.append(place)
        done += [i for i, slot in active.items() if slot.step >= c.steps and i not in done]
        return sorted(done)

    @torch.no_grad()
    def _look(
        self, due: Sequence[int], active: dict[int, Slot], passes: Passes
    ) -> dict[int, Check]:
        """Score the tune rows of some slots."""
        if not due:
            return {}
        rows = [replace(row, owner=i) for i in due for row in active[i].job.tune]
        right, cost = passes.scores(rows, self.optimiser.adapters())
        found, start = {}, 0
        for i in due:
            end = start + len(active[i].job.tune)
            accuracy, loss = right[start:end].mean().item(), cost[start:end].mean().item()
            found[i], start = Check(active[i].step, accuracy, loss), end
        return found

    def _finish(self, slot: "Slot", place: int) -> Trained:
        adapter = None
        if slot.alive:
            adapter = slot.best if slot.best is not None else self._state(place)
        return Trained(
            slot.job, adapter, slot.step, slot.restarts, slot.checks, list(slot.snapshots)
        )

    def _state(self, place: int) -> Adapter:
        with torch.no_grad():
            return self.optimiser.adapters()[[place]].to("cpu")

    def _rate(self, slot: Slot | None) -> float:
        if slot is None:
            return 0.0
        return self.recipe.lr * self.recipe.rate(slot.step, self.config.steps) / 2**slot.restarts


def _pass_on(adapters: Adapter, gradients: Sequence[Tensor]) -> None:
    """The gradient on the adapters goes on to the factors themselves."""
    pairs = zip(adapters.factors(), gradients, strict=True)
    trained = [(made, gradient) for made, gradient in pairs if made.requires_grad]
    torch.autograd.backward([made for made, _ in trained], [g for _, g in trained])
