"""The trainer of recipes that PEFT knows: one adapter after another, each ending in plain LoRA.

Rows, their order, loss, schedule, clipping, looks at the tune rows, early stop and restarts are the
batched trainer's.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from library.adapter import Adapter
from library.base.batches import TokenRow, grouped
from library.base.loss import answer_logits, row_scores, token_losses
from library.base.multi_adapter import adapted
from library.layout import Layout
from library.trainer.attached import Attached, State, attached
from library.trainer.batched import Figures, TrainConfig, Trained
from library.trainer.loss_backends import SCORED
from library.trainer.recipes import Recipe, require_fit
from library.trainer.run_state import Check, Slot, TrainingJob


class PeftTrainer:
    """Trains jobs one by one.

    Args:
        model: the frozen base, a causal LM of transformers; after each job it is as before.
        layout: what the adapters adapt.
        recipe: how one is trained.
        config: for how long.
        pad: id of the padding token.
        seed: of what all adapters start from.
    Raises:
        UsageError: the recipe cannot serve the layout.
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
    ) -> None:
        require_fit(recipe, layout, config.steps)
        self.model, self.layout, self.recipe, self.config = model, layout, recipe, config
        self.pad, self.seed, self.figures = pad, seed, Figures()

    def run(
        self, jobs: Sequence[TrainingJob], tick: Callable[[int], None] | None = None
    ) -> Iterator[Trained]:
        """Train all jobs in their order; yield each as it is done.

        `tick` is called after every step with the steps that the unfinished adapter has behind it.
        """
        report = tick or (lambda _: None)
        for job in jobs:
            yield self._train(job, report)
            report(0)

    def _train(self, job: TrainingJob, tick: Callable[[int], None]) -> Trained:
        slot, c = Slot(job), self.config
        while True:
            with attached(
                self.model,
                self.layout,
                self.recipe,
                job,
                steps=c.steps,
                pad=self.pad,
                seed=self.seed,
            ) as made:
                states = self._descend(slot, made, tick)
                if states:
                    (adapter, error), *older = [made.adapter(state) for state in states]
                    break
            if not slot.restart(c.restarts):
                return Trained(job, None, slot.step, slot.restarts, slot.checks, [])
        widest = max((snapshot.layout.rank for snapshot, _ in older), default=0)
        return Trained(
            job,
            adapter,
            slot.step,
            slot.restarts,
            slot.checks,
            [snapshot.with_rank(widest) for snapshot, _ in older],
            {"conversion_error": error} | self._scores(adapter, job),
        )

    def _descend(
        self, slot: Slot, made: Attached, tick: Callable[[int], None]
    ) -> list[State] | None:
        """Step until done; the best state, then the snapshots. None if it went non-finite."""
        c = self.config
        optimizer = torch.optim.AdamW(
            made.parameters, lr=self.recipe.lr, weight_decay=self.recipe.weight_decay
        )
        best, snapshots = None, deque(maxlen=c.snapshots)
        while slot.step < c.steps:
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.lr * self.recipe.rate(slot.step, c.steps)
                group["lr"] /= 2**slot.restarts
            if not self._step(slot, made, optimizer):
                return None
            slot.step += 1
            tick(slot.step)
            if c.snapshots and slot.step % c.snapshot_every == 0:
                snapshots.append(made.state())
            due = slot.step % c.check_every == 0 or slot.step == c.steps
            if slot.job.tune and due and made.counts(slot.step):
                if slot.better(self._look(slot.job.tune, slot.step)):
                    best = made.state()
                if c.patience and slot.waited >= c.patience:
                    break
        return [best if best is not None else made.state(), *snapshots]

    def _step(self, slot: Slot, made: Attached, optimizer: torch.optim.Optimizer) -> bool:
        """One step; false, and nothing moved, if the gradient is not finite."""
        rows = slot.draw(self.config.rows)
        batches = grouped(rows, self.pad, self.config.micro_batches)
        answers = sum(int(batch.answer.sum()) for batch in batches)
        for batch in batches:
            moved = batch.to(self.model.device)
            logits = answer_logits(self.model, moved.ids, moved.answer)
            losses, _ = token_losses(logits, moved.ids, moved.answer)
            (losses.sum() / answers).backward()
        made.regularise()
        self.figures.tokens += sum(map(len, rows))
        self.figures.cells += sum(batch.ids.numel() for batch in batches)
        norm = torch.nn.utils.clip_grad_norm_(made.parameters, self.recipe.clip)
        if not norm.isfinite():
            return False
        optimizer.step()
        made.after_step(slot.step + 1)
        optimizer.zero_grad()
        return True

    @torch.no_grad()
    def _look(self, tune: Sequence[TokenRow], step: int) -> Check:
        """Score the tune rows with the model as it stands."""
        ordered = sorted(tune, key=len)
        accuracy, loss = 0.0, 0.0
        for start in range(0, len(ordered), SCORED):
            (batch,) = grouped(ordered[start : start + SCORED], self.pad, 1)
            right, cost = row_scores(self.model, batch.to(self.model.device))
            accuracy, loss = accuracy + float(right.sum()), loss + float(cost.sum())
        return Check(step, accuracy / len(tune), loss / len(tune))

    def _scores(self, adapter: Adapter, job: TrainingJob) -> dict[str, float]:
        """How the adapter does on the tune rows, which after a conversion is not what was seen."""
        if not job.tune:
            return {}
        most = min(len(job.tune), SCORED)
        rows = torch.zeros(most, dtype=torch.long, device=self.model.device)
        with adapted(self.model, adapter.to(self.model.device), rows):
            found = self._look(job.tune, 0)
        return {"tune_accuracy": found.accuracy, "tune_loss": found.loss}
