"""What objectives share that train a generator through the frozen base.

The base is not a submodule: it is frozen, belongs in no checkpoint, and is loaded once.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from generator.models.base import Condition
from library.adapter import Adapter
from library.checkpoint import CheckpointInfo
from library.errors import UsageError
from library.layout import Layout
from training.data.batches import TaskBatch
from training.objectives.frozen_base import FrozenBase
from training.objectives.module import GeneratorModule


class ThroughBase(GeneratorModule):
    """Base of the objectives whose adapters act in the base, on batches of TaskDataModule.

    Args:
        compile_layers: compile the base's layers with torch.compile; for GPUs.
        **kwargs: see GeneratorModule.
    Raises:
        UsageError: once the data is there, if it has other numbers of examples than the generator,
            embeds descriptions by another encoder, or cuts its rows by another tokenizer.
    """

    gives = GeneratorModule.gives | {"examples"}
    seen: Sequence[str] = ()  # tasks of the training that this one goes on from
    beside: Sequence[Layout] = ()  # of adapters that act in the base beside the generated ones

    merged: Adapter | None = None  # what the base's weights hold beside their own

    def __init__(self, compile_layers: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.compile_layers = compile_layers

    @cached_property
    def frozen(self) -> FrozenBase:
        """The base, on the device that is trained on."""
        layout, device = self.generator.layout, self.trainer.strategy.root_device
        return FrozenBase(
            self.reference,
            layout,
            device,
            compiled=self.compile_layers,
            others=self.beside,
            merged=self.merged,
        )

    def setup(self, stage: str) -> None:
        self.require_tokens_of(self.reference)
        given, most = self.data.sampling.examples, self.generator.max_examples
        if given != most:
            raise UsageError(
                f"sampling.examples is {given}, and {self.generator.kind} is made for {most}: set "
                "it and architecture.examples alike"
            )
        encoder = getattr(self.data, "encoder_name", self.encoder_name)
        if encoder != self.encoder_name:
            raise UsageError(
                f"the data are embedded by {encoder}, and the generator is to read "
                f"{self.encoder_name}: set data.encoder and the generator's alike"
            )
        self._require_widths()
        _ = self.frozen  # loaded before the clock starts

    def _require_widths(self) -> None:
        """Raise UsageError unless the generator reads vectors as long as the encoder's."""
        widths, config = self.data.text_widths, self.generator.config
        for name, width in zip(("embedding_dim", "words_dim"), widths or (), strict=False):
            asked = getattr(config, name, 0)
            if asked and asked != width:
                raise UsageError(
                    f"{self.encoder_name} gives vectors of {width} numbers, and the generator is "
                    f"to read {asked}: set architecture.{name} to {width}"
                )

    def info(self) -> CheckpointInfo:
        """What the checkpoint says: its tasks are those of this training and of the one before."""
        info = super().info()
        return replace(info, tasks=sorted({*info.tasks, *self.seen}))

    def on_train_start(self) -> None:
        self._begin, self._tokens = time.monotonic(), 0

    def condition(self, batch: TaskBatch) -> Condition:
        """What a batch's adapters are made from."""
        if batch.embeddings is None:
            raise ValueError("the batch has not been moved to its device by TaskDataModule")
        return Condition(text=batch.embeddings, examples=batch.pairs, base=self.base_model)

    def log_costs(self, tokens: int) -> None:
        """Log tokens without padding and seconds since training began, and peak memory.

        Args:
            tokens: of this step.
        """
        self._tokens += tokens
        self.log("tokens", float(self._tokens))
        self.log("seconds", time.monotonic() - self._begin)
        if self.device.type == "cuda":
            self.log("memory_gb", torch.cuda.max_memory_allocated(self.device) / 1e9)
