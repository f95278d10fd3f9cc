"""SFT of a generator: its adapters act in the frozen base, and the base's answers are scored.

The base is not a submodule: it is frozen, belongs in no checkpoint, and is loaded once.
"""

import time
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from generator.models.base import Condition
from library.adapter import Adapter
from training.data.batches import TaskBatch
from training.objectives.frozen_base import FrozenBase, Noise, passed_on
from training.objectives.module import GeneratorModule


class SFT(GeneratorModule):
    """Train through the base.

    Loss (Charakorn et al. 2025, eq. 3): cross-entropy of the answers, label-smoothed, plus
    `weight_penalty` times the sum over groups of mean(A²) + mean(B²).

    Args:
        label_smoothing: of the answers' tokens.
        neftune_alpha: noise on the base's input embeddings; 0 for none.
        weight_penalty: keeps the adapters small.
        compile_layers: compile the base's layers with torch.compile; for GPUs.
        **kwargs: see GeneratorModule.
    """

    def __init__(
        self,
        label_smoothing: float = 0.1,
        neftune_alpha: float = 5.0,
        weight_penalty: float = 1e-3,
        compile_layers: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.noise = Noise(label_smoothing, neftune_alpha)
        self.weight_penalty, self.compile_layers = weight_penalty, compile_layers

    def settings(self) -> dict[str, Any]:
        names = ("weight_penalty", "compile_layers")
        return {**asdict(self.noise), **{name: getattr(self, name) for name in names}}

    @cached_property
    def frozen(self) -> FrozenBase:
        """The base, on the device that is trained on."""
        layout, device = self.generator.layout, self.trainer.strategy.root_device
        return FrozenBase(self.reference, layout, device, compiled=self.compile_layers)

    def setup(self, stage: str) -> None:
        _ = self.frozen  # loaded before the clock starts

    def on_train_start(self) -> None:
        self._begin, self._tokens = time.monotonic(), 0

    def training_step(self, batch: TaskBatch, batch_idx: int) -> Tensor:
        adapter = self.generator(self._condition(batch))
        cut = adapter.detached()
        loss = self.frozen.backward(batch.rows, cut, self.noise)
        self.log("train_loss", loss, prog_bar=True)
        self._log_figures(batch)
        return passed_on(adapter, cut) + self.weight_penalty * _size(adapter)

    def validation_step(self, batch: TaskBatch, batch_idx: int) -> None:
        """Loss on tasks set aside, and what another task's description costs (steering margin)."""
        if not batch.rows:  # every row of these tasks is longer than max_length
            return
        adapter = self.generator(self._condition(batch))
        losses = self.frozen.losses(batch.rows, adapter)
        n = len(losses)
        self.log("val_loss", losses.mean(), prog_bar=True, batch_size=n)
        if len(adapter) > 1:
            shifted = adapter[[*range(1, len(adapter)), 0]]
            other = self.frozen.losses(batch.rows, shifted)
            self.log("val_margin", (other - losses).mean(), prog_bar=True, batch_size=n)

    test_step = validation_step

    def _condition(self, batch: TaskBatch) -> Condition:
        if batch.embeddings is None:
            raise ValueError("the batch has not been moved to its device by TaskDataModule")
        return Condition(text=batch.embeddings, base=self.base_model)

    def _log_figures(self, batch: TaskBatch) -> None:
        """Log the costs: tokens without padding and seconds since training began, peak memory."""
        self._tokens += batch.tokens
        self.log("tokens", float(self._tokens))
        self.log("seconds", time.monotonic() - self._begin)
        if self.device.type == "cuda":
            self.log("memory_gb", torch.cuda.max_memory_allocated(self.device) / 1e9)


def _size(adapter: Adapter) -> Float[Tensor, ""]:
    """Sum over groups of mean(A²) + mean(B²)."""
    return torch.stack([factor.square().mean() for factor in adapter.factors()]).sum()
