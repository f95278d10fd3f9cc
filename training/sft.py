"""SFT of a generator: its adapters act in the frozen base, and the base's answers are scored.

The base is not a submodule: it is frozen, belongs in no checkpoint, and is loaded once.
"""

import time
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from index.encoder import Embeddings
from library.adapter import Adapter
from library.base import load_base
from library.compiled import compile_layers
from library.errors import TaskFileError
from library.forward import MultiAdapter
from library.lm_loss import answer_logits, answer_loss
from library.token_batch import TokenBatch
from training.batches import TaskBatch
from training.generator_module import GeneratorModule


class TextToLoRASFT(GeneratorModule):
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
        self.label_smoothing, self.neftune_alpha = label_smoothing, neftune_alpha
        self.weight_penalty, self.compile_layers = weight_penalty, compile_layers
        self._frozen: list[Any] = []  # [model, hooks]; in a list, so that it is no submodule

    def settings(self) -> dict[str, Any]:
        names = ("label_smoothing", "neftune_alpha", "weight_penalty", "compile_layers")
        return {name: getattr(self, name) for name in names}

    def setup(self, stage: str) -> None:
        if self._frozen:
            return
        device = self.trainer.strategy.root_device
        # bfloat16 is fast on GPUs and six times slower than float32 on most CPUs.
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        model = load_base(self.reference, device=device, dtype=dtype).model
        hooks = MultiAdapter(model, self.generator.layout)
        if self.compile_layers:
            compile_layers(model)
        self._frozen = [model, hooks]

    def on_train_start(self) -> None:
        self._begin, self._tokens = time.monotonic(), 0

    def training_step(self, batch: TaskBatch, batch_idx: int) -> Tensor:
        if not batch.rows:
            raise TaskFileError("no row of this step is short enough; raise sampling.max_length")
        adapter = self.generator(_embeddings(batch))
        cut = adapter.detached()
        loss = self._backward(batch, cut)
        self.log("train_loss", loss, prog_bar=True)
        self._log_figures(batch)
        # The gradient of this sum is the loss's own: what came back to the cut is passed on.
        passed = [
            (made * leaf.grad).sum()
            for made, leaf in zip(adapter.factors(), cut.factors(), strict=True)
        ]
        return torch.stack(passed).sum() + self.weight_penalty * _size(adapter)

    def validation_step(self, batch: TaskBatch, batch_idx: int) -> None:
        """Loss on tasks set aside, and what another task's description costs (steering margin)."""
        if not batch.rows:  # every row of these tasks is longer than max_length
            return
        adapter = self.generator(_embeddings(batch))
        own = self._batch_loss(batch, adapter)
        n = len(own)
        self.log("val_loss", own.mean(), prog_bar=True, batch_size=n)
        if len(adapter) > 1:
            shifted = adapter[[*range(1, len(adapter)), 0]]
            other = self._batch_loss(batch, shifted)
            self.log("val_margin", (other - own).mean(), prog_bar=True, batch_size=n)

    test_step = validation_step

    def _backward(self, batch: TaskBatch, cut: Adapter) -> Float[Tensor, ""]:
        """Mean loss of the rows; its gradient is left on the adapter's factors.

        Each group of rows is run backward before the next, so memory holds one group.
        """
        count = sum(len(group.ids) for group in batch.rows)
        total = torch.zeros((), device=self.device)
        for group in batch.rows:
            share = self._group_loss(group, cut, training=True).sum() / count
            share.backward()
            total += share.detach()
        self._frozen[1].clear()
        return total

    def _batch_loss(self, batch: TaskBatch, adapter: Adapter) -> Float[Tensor, " rows"]:
        """Loss of every row of the step, without training's noise."""
        losses = [self._group_loss(group, adapter, training=False) for group in batch.rows]
        self._frozen[1].clear()
        return torch.cat(losses)

    def _group_loss(
        self, group: TokenBatch, adapter: Adapter, *, training: bool
    ) -> Float[Tensor, " batch"]:
        model, hooks = self._frozen
        hooks.set(adapter, group.rows)
        noise = self.neftune_alpha if training else 0.0
        smoothing = self.label_smoothing if training else 0.0
        logits = answer_logits(model, group.ids, group.answer, neftune_alpha=noise)
        return answer_loss(logits, group.ids, group.answer, label_smoothing=smoothing)

    def _log_figures(self, batch: TaskBatch) -> None:
        """What training costs: tokens without padding and seconds since it began, peak memory."""
        self._tokens += batch.tokens
        self.log("tokens", float(self._tokens))
        self.log("seconds", time.monotonic() - self._begin)
        if self.device.type == "cuda":
            self.log("memory_gb", torch.cuda.max_memory_allocated(self.device) / 1e9)


def _size(adapter: Adapter) -> Float[Tensor, ""]:
    """Sum over groups of mean(A²) + mean(B²)."""
    return torch.stack([factor.square().mean() for factor in adapter.factors()]).sum()


def _embeddings(batch: TaskBatch) -> Embeddings:
    if batch.embeddings is None:
        raise ValueError("the batch has not been moved to its device by TaskDataModule")
    return batch.embeddings
