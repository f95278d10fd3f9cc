"""The batched trainer: many adapters learn at once, in one forward pass of the frozen base.

Each slot holds one adapter and its own rows, schedule, early stop and restarts. A slot that is done
takes the next job. What a job becomes depends on its rows and its seed, not on its neighbours:
tests hold it to PEFT, one task alone.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from library.adapter import Adapter
from library.base.batches import TokenRow
from library.base.multi_adapter import MultiAdapter
from library.progress import Progress, no_progress
from library.trainer.loss_backends import PackedBackend, SharingBackend
from library.trainer.optimiser import StackedAdamW, shared_start
from library.trainer.recipes.recipe import Recipe, TrainingJob
from library.trainer.run_state import Check, RunState, Trained
from library.trainer.trainer import AdapterTrainer

Backend = SharingBackend | PackedBackend
Running = dict[int, RunState[Adapter]]  # by slot, in the order of slots


@dataclass
class BatchedTrainer(AdapterTrainer[Recipe]):
    """Trains jobs side by side, in their order as slots become free.

    Attributes:
        packed: how rows are run (library.trainer.loss_backends); by default packed on a GPU.
    """

    packed: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        # Adapters stay in float32 where the base runs in half precision.
        dtype = torch.float64 if self.model.dtype == torch.float64 else torch.float32
        start = shared_start(self.layout, self.seed, dtype).to(self.model.device)
        self.optimiser = StackedAdamW(start, self.config.slots, self.recipe, seed=self.seed)
        self._fresh = set[int]()  # slots whose adapter has not made a step
        if self.packed is None:
            self.packed = self.model.device.type == "cuda"

    def run(
        self, jobs: Sequence[TrainingJob], progress: Progress = no_progress
    ) -> Iterator[Trained]:
        waiting, running, steps = deque(jobs), Running(), self.config.steps
        with closing(MultiAdapter(self.model, self.layout)) as hooks:
            backend = self._backend(hooks)
            while waiting or running:
                # 1. Free slots take the next jobs.
                free = [slot for slot in range(len(self.optimiser)) if slot not in running]
                for slot in free[: len(waiting)]:
                    running[slot] = RunState(waiting.popleft(), self.recipe, self.config)
                    self._fill(slot, running[slot])
                running = dict(sorted(running.items()))
                # 2. Those that start from their first gradients get them.
                self._begin({i: s for i, s in running.items() if i in self._fresh}, backend)
                self._fresh.clear()
                # 3. All adapters make one step; some are evaluated.
                finite = self._step(running, backend)
                self._advance(running, finite, backend)
                # 4. What is done leaves its slot.
                for slot in [slot for slot, state in running.items() if state.is_done]:
                    yield self._result(running.pop(slot), slot)
                unfinished = sum(state.step for state in running.values())
                finished = len(jobs) - len(waiting) - len(running)
                progress(steps * finished + unfinished, steps * len(jobs))

    def _backend(self, hooks: MultiAdapter) -> Backend:
        if self.packed:
            return PackedBackend(self.model, hooks, self.pad, self.optimiser.adapters())
        return SharingBackend(self.model, hooks, self.pad, self.config.micro_batches)

    def _fill(self, slot: int, state: RunState[Adapter]) -> None:
        self.optimiser.reset(slot, state.job.start)
        self._fresh.add(slot)

    def _begin(self, fresh: Running, backend: Backend) -> None:
        """Give the recipe the gradients of the first step's rows, for slots just filled."""
        rows = {
            slot: RunState[Adapter](state.job, self.recipe, self.config).draw()
            for slot, state in fresh.items()
            if self.recipe.passes
        }
        for number in range(self.recipe.passes if rows else 0):
            seen = [g[[*fresh]].nan_to_num(0, 0, 0) for g in self._gradients(rows, backend)[1]]
            rates = torch.tensor([state.learning_rate for state in fresh.values()]).to(seen[0])
            pairs = list(zip(seen[: len(seen) // 2], seen[len(seen) // 2 :], strict=True))
            started = partial(self.recipe.started, number, pairs, rates)
            self.optimiser.change([*fresh], started)

    def _step(self, running: Running, backend: Backend) -> list[bool]:
        """One step of every running adapter; by slot, whether its gradient was finite."""
        # 1. Gradients through the base, then from the adapters to what is trained.
        rows = {slot: state.draw() for slot, state in running.items()}
        _pass_on(*self._gradients(rows, backend))
        # 2. AdamW; a rate of 0 leaves an empty slot as it is.
        rates = [0.0] * len(self.optimiser)
        for slot, state in running.items():
            rates[slot] = state.learning_rate
        return self.optimiser.step(rates).tolist()

    def _gradients(
        self, drawn: Mapping[int, Sequence[TokenRow]], backend: Backend
    ) -> tuple[Adapter, list[Tensor]]:
        """The adapters, and gradients on their factors, of rows by slot."""
        # An answer token weighs 1 / (its adapter's answer tokens), those that a teacher answered
        # apart from the others: the loss is the sum of both means.
        rows = [replace(row, owner=slot) for slot, own in drawn.items() for row in own]
        kinds = [(row.owner, row.teacher is None) for row in rows]
        answers = Counter[tuple[int, bool]]()
        for kind, row in zip(kinds, rows, strict=True):
            answers[kind] += len(row.answer)
        weights = [1 / max(1, answers[kind]) for kind in kinds]
        adapters = self.optimiser.adapters()
        gradients = backend.gradients(rows, weights, adapters)
        self.figures.tokens += sum(map(len, rows))
        self.figures.cells = backend.cells
        return adapters, gradients

    def _advance(self, running: Running, finite: list[bool], backend: Backend) -> None:
        """Count the step, restart what went non-finite, store snapshots, evaluate."""
        for slot, state in running.items():
            if not finite[slot]:
                self._fill(slot, state)
                state.restart()
                continue
            state.step += 1
            if state.step == self.config.steps // 2:
                self.optimiser.change([slot], self.recipe.midway)
            if state.snapshot_is_due:
                state.snapshots.append(self._adapter(slot))
        due = {i: s for i, s in running.items() if finite[i] and s.evaluation_is_due}
        for slot, check in self._evaluate(due, backend).items():
            due[slot].record(check)
            if due[slot].is_best:
                due[slot].best = self._adapter(slot)

    @torch.no_grad()
    def _evaluate(self, due: Running, backend: Backend) -> dict[int, Check]:
        """Score the tune rows of some slots, all in one go."""
        rows = [replace(row, owner=slot) for slot, state in due.items() for row in state.job.tune]
        if not rows:
            return {}
        right, loss = backend.scores(rows, self.optimiser.adapters())
        sizes = [len(state.job.tune) for state in due.values()]
        parts = zip(due.items(), right.split(sizes), loss.split(sizes), strict=True)
        return {
            slot: Check(state.step, accuracies.mean().item(), losses.mean().item())
            for (slot, state), accuracies, losses in parts
        }

    def _result(self, state: RunState[Adapter], slot: int) -> Trained:
        adapter = self._adapter(slot) if state.best is None else state.best
        return state.result(None if state.failed else adapter, state.snapshots)

    @torch.no_grad()
    def _adapter(self, slot: int) -> Adapter:
        """A copy of the adapter in a slot, on the CPU."""
        return self.optimiser.adapters()[[slot]].to("cpu")


def _pass_on(adapters: Adapter, gradients: Sequence[Tensor]) -> None:
    """Backpropagate from the adapters, which carry the scale, to the trained parameters."""
    pairs = zip(adapters.factors(), gradients, strict=True)
    trained = [(factor, gradient) for factor, gradient in pairs if factor.requires_grad]
    torch.autograd.backward([factor for factor, _ in trained], [g for _, g in trained])
