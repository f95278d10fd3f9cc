"""A small network that predicts the weights with which two adapters are best merged.

After LoRA.rar (Shenaj et al. 2025, arXiv 2412.05148), which predicts coefficients for the columns
of two ΔW. Here there is one weight for each module and adapter, read from features that do not
depend on how ΔW is factored (index.merge.pair_features), so one network serves any layout and any
rank. It is a residual around the mean: a network of zeros merges with weights of one half.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from index.merge.pair_features import FEATURES, pair_features
from index.merge.weighted_sum import require_mergeable, sum_by_module
from library.adapter import Adapter, of_all_modules
from library.checkpoint import Checkpointed, load_checkpoint

HALF = 0.5


@dataclass(frozen=True)
class MergePredictorConfig:
    """The width of both hidden layers."""

    width: int = 64


class MergePredictor(Checkpointed):
    """Features of a pair to two weights a module; swapping the two swaps the weights."""

    kind = "lora-rar"
    Config = MergePredictorConfig
    for_layout = False

    def __init__(
        self, config: MergePredictorConfig = MergePredictorConfig(), layout: None = None
    ) -> None:
        super().__init__(config, layout)
        width = config.width
        self.inner = nn.Sequential(
            nn.Linear(FEATURES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, first: Adapter, second: Adapter) -> Float[Tensor, "2 n sites"]:
        """Weights of the first adapters and of the second, for n pairs."""
        features = torch.stack([pair_features(first, second), pair_features(second, first)])
        return HALF + self.head(self.inner(features.to(self.head.weight.dtype)))[..., 0]


@dataclass(frozen=True)
class Predictor:
    """A loaded network, its digest and what it was trained on."""

    module: MergePredictor
    digest: str
    training: dict[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def merge(self, first: Adapter, second: Adapter, rank: int | None = None) -> Adapter:
        """n pairs merged, at the sum of the ranks or at `rank`. Raises LayoutMismatch."""
        require_mergeable([first, second], [HALF, HALF])
        weights = self.module(*of_all_modules([first, second]))
        joined = sum_by_module([first, second], weights)
        return joined if rank is None else joined.recompressed(rank)


def load_predictor(folder: Path) -> Predictor:
    """Read a checkpoint; it computes in float64. Raises MissingPath, CheckpointError."""
    checkpoint = load_checkpoint(folder, MergePredictor)
    return Predictor(checkpoint.module.double(), checkpoint.digest, checkpoint.info.training)
