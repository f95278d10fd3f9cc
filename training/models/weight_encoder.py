"""Contrastive training of a weight encoder: an adapter and a description of its task attract."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from index.encoders.weight_start import RIDGE, set_bases, set_projections
from index.encoders.weights import WeightEncoder, WeightEncoderConfig
from library.checkpoint import CheckpointInfo, Storage, save_checkpoint
from training.data.libraries import AdapterTextBatch, WeightDataModule
from training.objectives.trained import TrainedModule

_SIZES = WeightEncoderConfig()  # of the shipped encoder


class WeightEncoderModule(TrainedModule):
    """Closed-form start, then InfoNCE in both directions (Radford et al. 2021, section 2.3).

    Args:
        architecture: sizes of the encoder; the shipped one's if not given.
        ridge: of the start; see index.encoders.weight_start.
        temperature: cosines are divided by it.
        noise: added to features, in standard deviations of the training adapters' own spread.
        lr: peak learning rate of AdamW; it falls to zero as a cosine.
        out: folder for the exported checkpoint; none if None.
        storage: how its matrices are stored.
    """

    def __init__(
        self,
        architecture: WeightEncoderConfig = _SIZES,
        ridge: float = RIDGE,
        temperature: float = 0.07,
        noise: float = 1.0,
        lr: float = 3e-5,
        out: str | None = None,
        storage: Storage = "int8",
    ) -> None:
        super().__init__()
        self.architecture, self.ridge, self.noise = architecture, ridge, noise
        self.temperature, self.lr = temperature, lr
        self.out = out
        self.storage: Storage = storage
        self.encoder: WeightEncoder | None = None

    def setup(self, stage: str) -> None:
        if self.encoder is not None:
            return
        data = self.data
        self.encoder = encoder = WeightEncoder(self.architecture, data.layout)
        # 1. Bases, from the adapters of the training tasks.
        trained = set(data.task_names)
        for_training = [
            stock.adapters[[i for i, task in enumerate(stock.tasks) if task in trained]]
            for stock in data.stocks
        ]
        set_bases(encoder, [adapters for adapters in for_training if len(adapters)])
        # 2. Features of all adapters in these bases.
        features = [encoder.features(stock.adapters) for stock in data.stocks]
        self._values = torch.cat([values for values, _ in features])  # (n, inputs, f)
        self._present = torch.cat([present for _, present in features])  # (n, inputs)
        # 3. Projections, by ridge regression of the descriptions' vectors.
        rows = data.rows_of(data.task_names)
        self._train = torch.tensor(rows)
        targets = data.definitions([data.owners[row] for row in rows])
        values, present = self._values[self._train], self._present[self._train]
        set_projections(encoder, values, present, targets, data.style(), self.ridge)

    def on_fit_start(self) -> None:
        self._values, self._present = (x.to(self.device) for x in (self._values, self._present))
        values = self._values[self._train.to(self.device)]
        self._centred = (values - values.mean(dim=0)).flatten(1)  # (train, inputs · f)

    on_validation_start = on_fit_start

    def training_step(self, batch: AdapterTextBatch, batch_idx: int) -> Tensor:
        assert self.encoder is not None
        values, present = self._values[batch.adapters], self._present[batch.adapters]
        draws = torch.randn(len(values), len(self._centred), device=self.device)
        spread = (draws @ self._centred) / math.sqrt(len(self._centred))  # (b, inputs · f)
        values = values + self.noise * spread.view_as(values)  # (b, inputs, f)
        weights, texts = self.encoder.embed(values, present), self.encoder.embed_text(batch.texts)
        loss = info_nce(texts, weights, self.temperature)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: AdapterTextBatch, batch_idx: int) -> None:
        """Share of definitions set aside whose adapter is among the ten nearest of all."""
        assert self.encoder is not None
        first = len(self.data.stocks[0].tasks)
        weights = self.encoder.embed(self._values[:first], self._present[:first])
        cosines = self.encoder.embed_text(batch.texts) @ weights.mT
        correct = cosines.gather(1, batch.adapters[:, None])  # (b, 1) of (b, adapters)
        recall = ((cosines > correct).sum(dim=1) < 10).float().mean()
        self.log("val_recall_10", recall, batch_size=len(correct), prog_bar=True)

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.lr, weight_decay=0.0)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return self.by_step(optimizer, fall)

    def export(self, folder: Path) -> None:
        assert self.encoder is not None
        data = self.data
        info = CheckpointInfo(
            base=data.base,
            encoder=data.encoder_name,
            tasks=sorted(data.task_names),
            training={
                "objective": type(self).__name__,
                "steps": self.trainer.global_step,
                "architecture": asdict(self.architecture),
                "lr": self.lr,
                "noise": self.noise,
                "ridge": self.ridge,
                "temperature": self.temperature,
                "data": data.record,
            },
        )
        save_checkpoint(folder, self.encoder, info, storage=self.storage, overwrite=True)

    @property
    def data(self) -> WeightDataModule:
        data = super().data
        if not isinstance(data, WeightDataModule):
            raise TypeError("a weight encoder is trained on a WeightDataModule")
        return data


def info_nce(
    texts: Float[Tensor, "b d"], weights: Float[Tensor, "b d"], temperature: float
) -> Float[Tensor, ""]:
    """Mean of the cross-entropies of finding row i among the other side's rows, in nats."""
    logits = texts @ weights.mT / temperature
    diagonal = torch.arange(len(logits), device=logits.device)
    entropy = torch.nn.functional.cross_entropy
    return (entropy(logits, diagonal) + entropy(logits.mT, diagonal)) / 2
