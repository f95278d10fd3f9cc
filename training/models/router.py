"""Training of a router: which task of a library is this input of? An MLP over a frozen encoder.

Classes are tasks; each is learned from its train rows, and the epoch that guesses its tune rows
best is kept. Beside the MLP the router gets a vector for each task, the mean of its description's
and its train inputs' vectors, which LoraRetriever's selection compares inputs with.
"""

from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, TensorDataset

from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
from index.routing import Router, RouterConfig, embed_inputs
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import TaskFileError
from library.tasks.files import Task
from training.data.tasks import read_folders


class RouterData(lightning.LightningDataModule):
    """Vectors of the tasks' inputs.

    Args:
        tasks: folders of task files.
        encoder: of inputs and descriptions.
        rows_per_task: train rows used, at most.
        batch_size: inputs a step.
        seed: of their order.
    """

    def __init__(
        self,
        tasks: list[str],
        encoder: str = DEFAULT_ENCODER,
        rows_per_task: int = 40,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.folders, self.encoder_name = tasks, encoder
        self.rows_per_task, self.batch_size, self.seed = rows_per_task, batch_size, seed
        self.names: list[str] = []

    def prepare(self) -> None:
        """Read and embed, once. Raises TaskFileError if no task has rows to train and tune on."""
        if self.names:
            return
        tasks = [task for task in read_folders(self.folders) if task.train and task.tune]
        if not tasks:
            raise TaskFileError("no task has rows to train and to tune on")
        encoder = DescriptionEncoder(self.encoder_name, dtype=torch.float32)
        self.train = self._set(encoder, tasks, "train")
        self.tune = self._set(encoder, tasks, "tune")
        self.samples = self._samples(encoder, tasks)
        self.names = [task.name for task in tasks]

    def setup(self, stage: str) -> None:
        self.prepare()

    def train_dataloader(self) -> Any:
        order = torch.Generator().manual_seed(self.seed)
        return DataLoader(self.train, self.batch_size, shuffle=True, generator=order)

    def val_dataloader(self) -> Any:
        return DataLoader(self.tune, self.batch_size)

    def _set(self, encoder: DescriptionEncoder, tasks: list[Task], part: str) -> TensorDataset:
        rows = [
            (row.input, i)
            for i, task in enumerate(tasks)
            for row in getattr(task, part)[: self.rows_per_task]
        ]
        vectors = embed_inputs(encoder, [text for text, _ in rows])
        return TensorDataset(vectors.clone(), torch.tensor([i for _, i in rows]))

    def _samples(self, encoder: DescriptionEncoder, tasks: list[Task]) -> Tensor:
        """(tasks, d): the mean of a task's inputs' vectors and its description's, of length 1."""
        vectors, owners = self.train.tensors
        described = embed_inputs(encoder, [task.definition for task in tasks])
        means = [vectors[owners == i].mean(0) for i in range(len(tasks))]
        return normalize(torch.stack(means) + described, dim=-1)


class RouterTraining(lightning.LightningModule):
    """Cross-entropy over tasks; the best epoch by accuracy on tune rows is written.

    Args:
        hidden: width of the MLP.
        lr: learning rate of AdamW.
        weight_decay: of AdamW.
        out: folder for the router; none if None.
    """

    def __init__(
        self,
        hidden: int = 128,
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        out: str | None = None,
    ) -> None:
        super().__init__()
        self.hidden, self.lr, self.weight_decay, self.out = hidden, lr, weight_decay, out
        self.router: Router | None = None
        self.best = -1.0
        self._best_state: dict[str, Tensor] = {}

    def configure_model(self) -> None:
        """The classes are known once the data is."""
        if self.router is not None:
            return
        data: Any = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        data.prepare()
        dimension = data.samples.shape[1]
        self.router = Router(RouterConfig(data.names, dimension, self.hidden, data.encoder_name))
        self.router.samples.copy_(data.samples)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), self.lr, weight_decay=self.weight_decay)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = cross_entropy(self._logits(batch[0]), batch[1])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        right = (self._logits(batch[0]).argmax(-1) == batch[1]).float().mean()
        self.log("val_accuracy", right, prog_bar=True, batch_size=len(batch[1]))

    def on_validation_epoch_end(self) -> None:
        accuracy = float(self.trainer.callback_metrics["val_accuracy"])
        if not self.trainer.sanity_checking and accuracy > self.best and self.router is not None:
            self.best = accuracy
            self._best_state = {k: v.detach().clone() for k, v in self.router.state_dict().items()}

    def on_fit_end(self) -> None:
        """Write the router as it was in its best epoch."""
        if self.out is None or self.router is None or not self._best_state:
            return
        self.router.load_state_dict(self._best_state)
        about = {"val_accuracy": round(self.best, 4), "epochs": self.trainer.current_epoch}
        info = CheckpointInfo(encoder=self.router.encoder, training=about)
        save_checkpoint(Path(self.out), self.router, info, overwrite=True)

    def _logits(self, vectors: Tensor) -> Tensor:
        assert self.router is not None, "Lightning calls configure_model first"
        return self.router(vectors)
