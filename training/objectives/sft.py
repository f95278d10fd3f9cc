"""SFT of a generator: its adapters act in the frozen base, and the base's answers are scored."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from generator.engine import read_generator
from index.encoders.texts import recorded_encoder
from library.adapter import Adapter
from library.errors import UsageError
from training.data.batches import TaskBatch
from training.objectives.condition_noise import ConditionNoise
from training.objectives.frozen_base import Noise, passed_on
from training.objectives.through_base import ThroughBase


class SFT(ThroughBase):
    """Train through the base.

    Loss (Charakorn et al. 2025, eq. 3): cross-entropy of the answers, label-smoothed, plus
    `weight_penalty` times the sum over groups of mean(A²) + mean(B²), plus `gate_penalty` times the
    norm of what passes the gate, if the generator has one.

    Args:
        label_smoothing: of the answers' tokens.
        neftune_alpha: noise on the base's input embeddings; 0 for none.
        weight_penalty: keeps the adapters small.
        start: folder of a checkpoint to go on from; none if None. Parts of the architecture that it
            lacks begin as they would without it.
        condition_noise: noise on what the generator reads, none by default.
        gate_penalty: keeps a condition's own part of the adapters small; 0 for none.
        **kwargs: see ThroughBase.
    Raises:
        MissingPath, CheckpointError: `start` cannot be used.
        LayoutMismatch: it is of another layout.
        UsageError: it is of another architecture, beyond such parts, or reads another encoder; or
            there is a gate_penalty and no gate.
    """

    def __init__(
        self,
        label_smoothing: float = 0.1,
        neftune_alpha: float = 5.0,
        weight_penalty: float = 1e-3,
        start: str | None = None,
        condition_noise: ConditionNoise = ConditionNoise(),
        gate_penalty: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.noise = Noise(label_smoothing, neftune_alpha)
        self.condition_noise = condition_noise
        self.weight_penalty, self.gate_penalty = weight_penalty, gate_penalty
        if gate_penalty and not getattr(self.generator.config, "gate", False):
            raise UsageError("gate_penalty needs a generator with a gate: architecture.gate true")
        self.start_digest: str | None = None
        if start is not None:
            self._begin_from(Path(start))

    def _begin_from(self, folder: Path) -> None:
        """Take over a checkpoint's parameters."""
        checkpoint = read_generator(folder)
        checkpoint.module.layout.require_same(
            self.generator.layout, f"the checkpoint {folder}", "this training"
        )
        theirs, ours = map(recorded_encoder, (checkpoint.info.encoder, self.encoder_name))
        if theirs != ours:
            raise UsageError(f"{folder} reads {theirs}, and this training {ours}")
        stored = checkpoint.module.state_dict()
        try:
            lacking, beyond = self.generator.load_state_dict(stored, strict=False)
        except RuntimeError as error:
            last = str(error).splitlines()[-1].strip()  # of a heading and a line for each
            raise UsageError(f"{folder} has another architecture: {last}") from error
        parts = {name.partition(".")[0] for name in stored}
        halves = sorted(name for name in lacking if name.partition(".")[0] in parts)
        if beyond or halves:
            raise UsageError(f"{folder} has another architecture: {[*beyond, *halves][0]}")
        self.start_digest, self.seen = checkpoint.digest, checkpoint.info.tasks

    def settings(self) -> dict[str, Any]:
        names = ("weight_penalty", "gate_penalty", "compile_layers", "start_digest")
        values = {name: getattr(self, name) for name in names}
        noise = {"condition_noise": asdict(self.condition_noise)}
        return {**asdict(self.noise), **noise, **values}

    def training_step(self, batch: TaskBatch, batch_idx: int) -> Tensor:
        adapter, penalty = self.generated(batch)
        cut = adapter.detached()
        loss = self.frozen.backward(batch.rows, cut, self.noise)
        self.log("train_loss", loss, prog_bar=True)
        self.log_costs(batch.tokens)
        return passed_on(adapter, cut) + penalty

    def generated(self, batch: TaskBatch) -> tuple[Adapter, Float[Tensor, ""]]:
        """The batch's adapters under the noise of training, and the penalty on their size."""
        adapter, figures = self.generator.measured(self.condition_noise(self.condition(batch)))
        self.log_dict({f"train_{name}": value.detach() for name, value in figures.items()})
        penalty = self.weight_penalty * _size(adapter)
        if self.gate_penalty:
            penalty = penalty + self.gate_penalty * figures["gated_norm"]
        return adapter, penalty

    def validation_step(self, batch: TaskBatch, batch_idx: int) -> None:
        """Loss on tasks set aside, and what another task's description costs (steering margin)."""
        if not batch.rows:  # every row of these tasks is longer than max_length
            return
        adapter = self.generator(self.condition(batch))
        losses = self.frozen.losses(batch.rows, adapter)
        n = len(losses)
        self.log("val_loss", losses.mean(), prog_bar=True, batch_size=n, sync_dist=True)
        if len(adapter) > 1:
            shifted = adapter[[*range(1, len(adapter)), 0]]
            other = self.frozen.losses(batch.rows, shifted)
            margin = (other - losses).mean()
            self.log("val_margin", margin, prog_bar=True, batch_size=n, sync_dist=True)

    test_step = validation_step


def _size(adapter: Adapter) -> Float[Tensor, ""]:
    """Sum over groups of mean(A²) + mean(B²)."""
    return torch.stack([factor.square().mean() for factor in adapter.factors()]).sum()
