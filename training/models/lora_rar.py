"""Training the merge predictor (index.merge.lora_rar) through the frozen base.

The pair's merged adapter answers rows of both tasks, and the base's loss on them is the loss: no
target in weight space, which need not agree with what the base then says.
"""

from pathlib import Path
from typing import Any

import lightning
import torch
from jaxtyping import Float
from torch import Tensor

from index.merge.lora_rar import HALF, MergePredictor, MergePredictorConfig
from index.merge.weighted_sum import sum_by_module
from library.adapter import Adapter
from library.checkpoint import CheckpointInfo, save_checkpoint
from training.data.pairs import AdapterPairBatch, PairDataModule
from training.objectives.frozen_base import QUIET, FrozenBase, passed_on


class MergePredictorTraining(lightning.LightningModule):
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
        self.frozen: FrozenBase | None = None

    def setup(self, stage: str) -> None:
        if self.frozen is None:
            data, device = self._data(), self.trainer.strategy.root_device
            layout = data.plan.layout
            doubled = layout.with_rank(2 * layout.rank)
            self.frozen = FrozenBase(data.base, doubled, device, compiled=False)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.lr, weight_decay=self.weight_decay
        )
        total = max(1, int(self.trainer.estimated_stepping_batches))
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": fall, "interval": "step"}}

    def training_step(self, batch: AdapterPairBatch, batch_idx: int) -> Tensor:
        weights = self.network(batch.first, batch.second)
        made = sum_by_module([batch.first, batch.second], weights)
        cut = made.detached()
        loss = self._base.backward(batch.rows, cut, QUIET)
        self.log("train_loss", loss, prog_bar=True)
        self.log("mean_weight", weights.detach().mean())
        self.log("spread", weights.detach().std())
        return passed_on(made, cut)

    def validation_step(self, batch: AdapterPairBatch, batch_idx: int) -> None:
        """Loss on held-out pairs: merged as predicted, by the mean, and by the plain sum."""
        pair = [batch.first, batch.second]
        weights = self.network(*pair)
        for name, given in (
            ("val_loss", weights),
            ("val_mean", torch.full_like(weights, HALF)),
            ("val_sum", torch.ones_like(weights)),
        ):
            loss = self.losses(batch, sum_by_module(pair, given)).mean()
            self.log(name, loss, prog_bar=True, batch_size=1)

    def losses(self, batch: AdapterPairBatch, merged: Adapter) -> Float[Tensor, " rows"]:
        """The base's loss on each row, under the pairs' merged adapters."""
        return self._base.losses(batch.rows, merged)

    def on_train_end(self) -> None:
        if self.out is None or not self.trainer.is_global_zero:
            return
        training = {
            "steps": self.trainer.global_step,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "data": self._data().record,
        }
        save_checkpoint(
            Path(self.out), self.network, CheckpointInfo(training=training), overwrite=True
        )

    @property
    def _base(self) -> FrozenBase:
        assert self.frozen is not None, "Lightning calls setup first"
        return self.frozen

    def _data(self) -> PairDataModule:
        return getattr(self.trainer, "datamodule")  # noqa: B009
