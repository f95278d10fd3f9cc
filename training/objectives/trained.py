"""The LightningModule of everything that is trained here: its steps, its data, its export."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import lightning
import torch


class TrainedModule(lightning.LightningModule):
    """Base of what writes one checkpoint (or adapter) when its training ends.

    Attributes:
        out: folder for it; none if None.
    """

    out: str | None

    @property
    def data(self) -> Any:
        """The data module of the run."""
        return getattr(self.trainer, "datamodule", None)

    @property
    def steps(self) -> int:
        """Optimiser steps of the run, one at least."""
        return max(1, int(self.trainer.estimated_stepping_batches))

    def by_step(self, optimizer: torch.optim.Optimizer, schedule: Any) -> Any:
        """An optimiser whose rate follows a schedule step by step, as Lightning wants both."""
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_end(self) -> None:
        """Export; weights averaged by a callback are in place by now."""
        if self.out is not None and self.trainer.is_global_zero:
            self.export(Path(self.out))

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write what was trained."""
