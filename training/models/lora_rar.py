"""Training the merge predictor (index.merge.lora_rar) through the frozen base.

The pair's merged adapter answers rows of both tasks, and the base's loss on them is the loss: no
target in weight space, which need not agree with what the base then says.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from index.merge.lora_rar import HALF, MergePredictor, MergePredictorConfig
from index.merge.weighted_sum import sum_by_module
from library.adapter import Adapter
from library.checkpoint import CheckpointInfo, save_checkpoint
from training.data.pairs import AdapterPairBatch, PairDataModule
from training.objectives.frozen_base import QUIET, FrozenBase, passed_on
from training.objectives.trained import TrainedModule


class MergePredictorTraining(TrainedModule):
    """Train on a PairDataModule.

    Args:
        width: of the network's hidden layers.
        lr: peak learning rate of AdamW, falling along a cosine.
        weight_decay: of AdamW; what is not needed falls back to the mean.
        out: folder for the checkpoint; none if None.
    """

    def __init__(
        self,
        width: int = 64,
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        out: str | None = None,
    ) -> None:
        super().__init__()
        self.network = MergePredictor(MergePredictorConfig(width))
        self.lr, self.weight_decay, self.out = lr, weight_decay, out

    @cached_property
    def frozen(self) -> FrozenBase:
        """The base, with room for two adapters' ranks."""
        layout, device = self.data.plan.layout, self.trainer.strategy.root_device
        doubled = layout.with_rank(2 * layout.rank)
        return FrozenBase(self.data.base, doubled, device, compiled=False)

    @property
    def data(self) -> PairDataModule:
        return super().data

    def setup(self, stage: str) -> None:
        _ = self.frozen  # loaded before the first step

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.lr, weight_decay=self.weight_decay
        )
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return self.by_step(optimizer, fall)

    def training_step(self, batch: AdapterPairBatch, batch_idx: int) -> Tensor:
        weights = self.network(batch.first, batch.second)
        merged = sum_by_module([batch.first, batch.second], weights)
        cut = merged.detached()
        loss = self.frozen.backward(batch.rows, cut, QUIET)
        self.log("train_loss", loss, prog_bar=True)
        self.log("mean_weight", weights.detach().mean())
        self.log("spread", weights.detach().std())
        return passed_on(merged, cut)

    def validation_step(self, batch: AdapterPairBatch, batch_idx: int) -> None:
        """Loss on held-out pairs: merged as predicted, by the mean, and by the plain sum."""
        pair = [batch.first, batch.second]
        weights = self.network(*pair)
        for name, by_module in (
            ("val_loss", weights),
            ("val_mean", torch.full_like(weights, HALF)),
            ("val_sum", torch.ones_like(weights)),
        ):
            loss = self.losses(batch, sum_by_module(pair, by_module)).mean()
            self.log(name, loss, prog_bar=True, batch_size=1)

    def losses(self, batch: AdapterPairBatch, merged: Adapter) -> Float[Tensor, " rows"]:
        """The base's loss on each row, under the pairs' merged adapters."""
        return self.frozen.losses(batch.rows, merged)

    def export(self, folder: Path) -> None:
        training = {
            "steps": self.trainer.global_step,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "data": self.data.record,
        }
        save_checkpoint(folder, self.network, CheckpointInfo(training=training), overwrite=True)
