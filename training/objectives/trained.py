"""The LightningModule of everything that is trained here: its steps, its data, its export."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from library.base.models import BaseReference, same_base
from library.errors import UsageError


class TrainedModule(lightning.LightningModule):
    """Base of what writes one checkpoint (or adapter) when its training ends.

    Where a ModelCheckpoint monitors a figure (`val_margin`, say), the weights of its best state are
    written in place of the last ones.

    Attributes:
        out: folder for it; none if None.
        chosen: the figure by which a state was chosen, its value there and the step; None for the
            last state.
    """

    out: str | None
    chosen: dict[str, Any] | None = None

    @property
    def data(self) -> Any:
        """The data module of the run."""
        return getattr(self.trainer, "datamodule", None)

    def require_tokens_of(self, base: BaseReference) -> None:
        """Raise UsageError if the data's rows are cut by the tokenizer of another base.

        The ids would be valid for most bases, and mean nothing to them.
        """
        cut: BaseReference | None = getattr(self.data, "base", None)
        if cut is not None and not same_base(cut.name, base.name):
            raise UsageError(
                f"the data are cut by the tokenizer of {cut.name}, and the model is {base.name}: "
                "set data.base and model.base alike"
            )

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
            self._take_best()
            self.export(Path(self.out))

    def _take_best(self) -> None:
        """Go back to the state that scored best, if one was kept."""
        kept = [c for c in self.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
        best = next((c for c in kept if c.monitor and c.best_model_path), None)
        if best is None or best.best_model_score is None:
            return
        stored = torch.load(best.best_model_path, map_location=self.device, weights_only=True)
        self.load_state_dict(stored["state_dict"])
        score, step = float(best.best_model_score), stored["global_step"]
        self.chosen = {"by": best.monitor, "score": score, "step": step}

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write what was trained."""
