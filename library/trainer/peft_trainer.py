"""The trainer of recipes that PEFT knows: one adapter after another, each ending in plain LoRA.

Rows, their order, loss, schedule, clipping, evaluations, early stop and restarts are the batched
trainer's.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from library.adapter import Adapter, from_sites
from library.base.batches import TokenRow, grouped
from library.base.loss import answer_logits, row_scores, token_losses
from library.base.multi_adapter import adapted
from library.factored import Residual
from library.progress import Progress, no_progress, part_of
from library.trainer.loss_backends import EVALUATION_ROWS, evaluation_batches
from library.trainer.recipes.peft_recipe import PeftRecipe
from library.trainer.recipes.recipe import TrainingJob
from library.trainer.run_state import Check, RunState, Trained
from library.trainer.trainer import AdapterTrainer

Parameters = dict[str, Tensor]


class PeftTrainer(AdapterTrainer[PeftRecipe]):
    """Trains jobs one by one, in their order."""

    def run(
        self, jobs: Sequence[TrainingJob], progress: Progress = no_progress
    ) -> Iterator[Trained]:
        steps = self.config.steps
        for number, job in enumerate(jobs):
            advance = part_of(progress, steps * number, steps * len(jobs))
            yield self._train(job, advance)
            advance(steps, steps)

    def _train(self, job: TrainingJob, progress: Progress) -> Trained:
        state: RunState[Parameters] = RunState(job, self.recipe, self.config)
        while not state.failed:
            with self._attached(job) as model:
                trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
                if self._descend(state, model, trained, progress):
                    adapter, error = self._read_out(model, trained, state.best or trained)
                    older = [self._read_out(model, trained, s)[0] for s in state.snapshots]
                    break
            state.restart()
        else:
            return state.result(None, [])
        rank = max((snapshot.layout.rank for snapshot in older), default=0)
        older = [snapshot.with_rank(rank) for snapshot in older]
        return state.result(adapter, older, conversion_error=error, **self._scores(adapter, job))

    @contextmanager
    def _attached(self, job: TrainingJob) -> Iterator[Any]:
        """PEFT's model with a fresh adapter; afterwards the base is as it was, to the bit.

        Raises UsageError where the recipe cannot start on the job's rows.
        """
        import peft  # takes seconds

        weights = [self.model.get_submodule(site.name).weight for site in self.layout.sites]
        originals = [(weight, weight.data, weight.data.clone()) for weight in weights]
        cuda = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(cuda), warnings.catch_warnings():
            # Hints on memory, and other libraries' own deprecations.
            warnings.simplefilter("ignore")
            settings = self.recipe.settings(self.layout, self.config.steps, self.seed)
            torch.manual_seed(self.seed)
            self.recipe.prepare(self.model, settings, job, self.pad)
            model: Any = peft.get_peft_model(self.model, settings)
        model.train(self.model.training)
        try:
            # Some recipes change the weights, in place or not; the base gets its own back.
            for weight, storage, original in originals:
                weight.data = storage.copy_(original)
            self.recipe.start(model, self.layout, job, self.pad)
            yield model
        finally:
            model.unload()

    def _descend(
        self, state: RunState[Parameters], model: Any, trained: Parameters, progress: Progress
    ) -> bool:
        """Step until done; false if the gradient went non-finite."""
        optimizer = torch.optim.AdamW(
            list(trained.values()), lr=self.recipe.lr, weight_decay=self.recipe.weight_decay
        )
        while not state.is_done:
            # 1. A step.
            for group in optimizer.param_groups:
                group["lr"] = state.learning_rate
            if not self._step(state, model, optimizer):
                return False
            state.step += 1
            progress(state.step, self.config.steps)
            # 2. A snapshot, an evaluation.
            if state.snapshot_is_due:
                state.snapshots.append(_copy(trained))
            if state.evaluation_is_due and self.recipe.is_settled(model, state.step):
                state.record(self._evaluate(state.job.tune, state.step))
                if state.is_best:
                    state.best = _copy(trained)
        return True

    def _step(
        self, state: RunState[Parameters], model: Any, optimizer: torch.optim.Optimizer
    ) -> bool:
        """One step; false, and nothing moved, if the gradient is not finite."""
        # 1. The gradient of the mean loss over all answer tokens of the step.
        rows = state.draw()
        batches = grouped(rows, self.pad, self.config.micro_batches)
        answers = sum(int(batch.answer.sum()) for batch in batches)
        for batch in batches:
            batch = batch.to(self.model.device)
            logits = answer_logits(self.model, batch.ids, batch.answer)  # (answers, vocabulary)
            losses, _ = token_losses(logits, batch.ids, batch.answer)  # (answers,)
            (losses.sum() / answers).backward()
        self.recipe.regularise(model)
        self.figures.tokens += sum(map(len, rows))
        self.figures.cells += sum(batch.ids.numel() for batch in batches)
        # 2. Clipping and AdamW.
        trained = optimizer.param_groups[0]["params"]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.recipe.clip)
        if not norm.isfinite():
            return False
        optimizer.step()
        # 3. What the recipe does with the gradient.
        self.recipe.after_step(model, state.step + 1)
        optimizer.zero_grad()
        return True

    @torch.no_grad()
    def _evaluate(self, tune: Sequence[TokenRow], step: int) -> Check:
        """Score the tune rows with the model as it stands."""
        accuracy, loss = 0.0, 0.0
        for _, batch in evaluation_batches(tune, self.pad):
            right, losses = row_scores(self.model, batch.to(self.model.device))
            accuracy, loss = accuracy + float(right.sum()), loss + float(losses.sum())
        return Check(step, accuracy / len(tune), loss / len(tune))

    @torch.no_grad()
    def _read_out(
        self, model: Any, trained: Parameters, values: Parameters
    ) -> tuple[Adapter, float]:
        """A state as plain LoRA on the original base, on the CPU.

        Returns:
            The adapter, and ‖ΔW − B·A‖ / ‖ΔW‖ over all modules, ΔW being what PEFT's model adds
            to the base's weights.
        """
        for name, value in values.items():
            trained[name].copy_(value)
        pairs, residual = {}, Residual()
        for site in self.layout.sites:
            module = model.get_base_model().get_submodule(site.name)
            delta, (a, b) = self.recipe.read_out(module, site)
            residual.add(delta, a, b)
            pairs[site.name] = (a.cpu(), b.cpu())
        return from_sites(self.layout, pairs), residual.relative

    def _scores(self, adapter: Adapter, job: TrainingJob) -> dict[str, float]:
        """The read-out adapter on the tune rows: after a conversion it is not what was trained."""
        if not job.tune:
            return {}
        device = self.model.device
        owners = torch.zeros(min(len(job.tune), EVALUATION_ROWS), dtype=torch.long, device=device)
        with adapted(self.model, adapter.to(device), owners):
            check = self._evaluate(job.tune, 0)
        return {"tune_accuracy": check.accuracy, "tune_loss": check.loss}


def _copy(parameters: Parameters) -> Parameters:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}
