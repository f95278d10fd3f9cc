"""LoFA's second stage: a generator that starts from the first learns whole adapters."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generator.layers.response_maps import ResponseMaps
from generator.models.lofa import LoFA
from library.checkpoint import load_checkpoint
from library.errors import UsageError
from training.data.adapters_and_tasks import AdapterTaskBatch, LibraryTaskDataModule
from training.objectives.reconstruction import Spread, factor_loss, spread_on
from training.objectives.sft import SFT


class LoFAStage2(SFT):
    """Train on a library's adapters and through the frozen base at once.

    Loss (arXiv 2512.08785): `reconstruction_weight` times the mean absolute difference of A and of
    B, in standard deviations over the training adapters, plus `answer_weight` times the loss of
    SFT, which stands where the paper has the flow-matching loss of its image model.

    Args:
        stage1: folder of a first stage's checkpoint; none for a generator without features.
        reconstruction_weight: 0 to leave the adapters out.
        answer_weight: 0 to leave the base's answers out.
        **kwargs: see SFT.
    Raises:
        UsageError: features without a stage I or the other way round, or both weights 0.
        MissingPath, CheckpointError, LayoutMismatch: stage I cannot be used.
    """

    def __init__(
        self,
        stage1: str | None = None,
        reconstruction_weight: float = 1.0,
        answer_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(generator=LoFA, **kwargs)
        if not reconstruction_weight and not answer_weight:
            raise UsageError("reconstruction_weight and answer_weight cannot both be 0")
        self.reconstruction_weight, self.answer_weight = reconstruction_weight, answer_weight
        self.stage1_digest: str | None = None
        if stage1 is not None:
            checkpoint = load_checkpoint(Path(stage1), ResponseMaps)
            self.lofa.begin_from(checkpoint.module)
            self.stage1_digest = checkpoint.digest
        elif self.lofa.config.features:
            raise UsageError("stage1 is missing: name its checkpoint, or set features to false")
        self._spread: Spread | None = None

    @property
    def lofa(self) -> LoFA:
        assert isinstance(self.generator, LoFA)
        return self.generator

    def settings(self) -> dict[str, Any]:
        names = ("reconstruction_weight", "answer_weight", "stage1_digest")
        return {**super().settings(), **{name: getattr(self, name) for name in names}}

    def setup(self, stage: str) -> None:
        if self.answer_weight:
            super().setup(stage)
        data: LibraryTaskDataModule = self.data
        if self.reconstruction_weight and self._spread is None:
            data.library.require_base(self.reference)
            self.lofa.layout.require_same(data.library.layout, "the generator", "the library")
            self.lofa.prepare(data.library.adapters)
            self._spread = spread_on(data.library, self.trainer.strategy.root_device)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a step of LibraryTaskDataModule."""
        losses = []
        if self.answer_weight:
            losses.append(self.answer_weight * super().training_step(batch.tasks, batch_idx))
        if self.reconstruction_weight:
            losses.append(self.reconstruction_weight * self._reconstruction(batch))
        return torch.stack(losses).sum()

    def _reconstruction(self, batch: AdapterTaskBatch) -> Tensor:
        """Distance of generated adapters to the library's."""
        assert batch.adapters is not None
        condition = replace(batch.adapters.condition, base=self.base_model)
        loss = factor_loss(self.generator(condition), batch.adapters.targets, self._spread)
        self.log("train_reconstruction", loss, prog_bar=True)
        return loss
