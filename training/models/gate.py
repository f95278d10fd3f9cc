"""Training of a gate over a library's adapters, through the frozen base.

The adapters are frozen too: the loss is the base's on rows of their tasks, mixed, under the mixture
that the gate chooses, plus what its system balances by.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from index.gate.balance import balance_loss
from index.gate.experts import experts_of
from index.gate.forward import GatedAdapter
from index.gate.learnt import Gate, GateConfig
from index.gate.systems import system_named, systems
from library.base.batches import TokenBatch
from library.base.loss import row_losses
from library.base.models import BaseModel, fast_dtype, load_base
from library.checkpoint import CheckpointInfo, save_checkpoint
from training.data.batches import TaskBatch
from training.data.gates import GateData
from training.objectives.trained import TrainedModule


class GateTraining(TrainedModule):
    """Train on a GateData.

    Args:
        system: name of a trained row of the table (index.gate.systems).
        lr: peak learning rate of AdamW, falling along a cosine.
        weight_decay: of AdamW.
        balance: weight of what the system balances by.
        out: folder for the checkpoint; none if None.
    """

    gate: Gate

    def __init__(
        self,
        system: str = "mixlora",
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        balance: float = 0.01,
        out: str | None = None,
    ) -> None:
        super().__init__()
        self.name, self.system = system, system_named(system, systems(learnt=True))
        self.lr, self.weight_decay, self.balance, self.out = lr, weight_decay, balance, out

    @property
    def data(self) -> GateData:
        return super().data

    @cached_property
    def base(self) -> BaseModel:
        device = self.trainer.strategy.root_device
        return load_base(self.data.base, device=device, dtype=fast_dtype(device))

    def setup(self, stage: str) -> None:
        """The experts, and a gate over them, once the data is there."""
        device, records = self.trainer.strategy.root_device, self.data.records
        self._experts = experts_of(self.system, self.data.adapters.to(device))
        self._all = torch.ones(len(records), len(records), device=device)
        config = GateConfig(
            self.name,
            [record["id"] for record in records],
            self.data.task_names,
            len(self._experts),
            self.base.model.config.hidden_size,
        )
        self.gate = Gate(config, self.data.plan.layout)
        self.gate.admit(self._experts)
        layout = self._experts.layout
        self._hooks = GatedAdapter(self.base.model, self.gate, self.system, layout)

    def teardown(self, stage: str) -> None:
        self._hooks.close()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.gate.parameters(), lr=self.lr, weight_decay=self.weight_decay
        )
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return self.by_step(optimizer, fall)

    def training_step(self, batch: TaskBatch, batch_idx: int) -> Tensor:
        parts = [self._losses(group) for group in batch.rows]
        loss = torch.cat([losses for losses, _ in parts]).mean()
        balance = torch.stack([balance for _, balance in parts]).mean()
        self.log("train_loss", loss, prog_bar=True)
        self.log("balance", balance)
        return loss + self.balance * balance

    def validation_step(self, batch: TaskBatch, batch_idx: int) -> None:
        losses = [losses for group in batch.rows for losses in self._losses(group)[0]]
        if losses:
            loss = torch.stack(losses).mean()
            self.log("val_loss", loss, prog_bar=True, batch_size=len(losses))

    def _losses(self, group: TokenBatch) -> tuple[Tensor, Tensor]:
        """The base's loss on each row, and what the gate is balanced by."""
        self._hooks.prompt = group.prompt
        losses = row_losses(self.base.model, self._hooks, group, self._experts, weights=self._all)
        real = group.prompt | group.answer
        return losses, balance_loss(self.system, self._hooks.chosen, real, group.rows)

    def export(self, folder: Path) -> None:
        names = ("lr", "weight_decay", "balance")
        training = {name: getattr(self, name) for name in names}
        training |= {"steps": self.trainer.global_step, "data": self.data.record}
        info = CheckpointInfo(self.data.plan.base, tasks=self.data.task_names, training=training)
        save_checkpoint(folder, self.gate, info, overwrite=True)
