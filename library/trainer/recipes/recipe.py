"""The settings that all recipes have (LoRA and its nearest relatives have no more), and a job."""

import math
from dataclasses import dataclass
from typing import Literal

from library.adapter import Adapter
from library.base.batches import TokenRow
from library.layout import Layout


@dataclass(frozen=True)
class Recipe:
    """A way to train a LoRA adapter. This class serves the batched trainer.

    Attributes:
        name: as users write it and records store it.
        alpha: numerator of the scale.
        rank_stabilised: divide alpha by sqrt(rank) (Kalajdzievski 2023), not by rank.
        freeze_a: train B alone (LoRA-FA, Zhang et al. 2023).
        b_rate: learning rate of B over that of A (LoRA+, Hayou et al. 2024).
        lr: peak learning rate of A; linear rise and fall.
        warmup: share of the steps over which the rate rises.
        weight_decay: AdamW's.
        clip: largest norm of one adapter's gradient.
        trained_by: the trainer that can train it.
    """

    name: str
    alpha: float = 16.0
    rank_stabilised: bool = False
    freeze_a: bool = False
    b_rate: float = 1.0
    lr: float = 5e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    trained_by: Literal["batched", "peft"] = "batched"

    def scale(self, rank: int) -> float:
        """The factor in ΔW = scale·B·A."""
        return self.alpha / (math.sqrt(rank) if self.rank_stabilised else rank)

    def rate(self, step: int, steps: int) -> float:
        """Factor on the peak rate at `step` of `steps`, counted from 0."""
        rise = max(1, round(steps * self.warmup))
        if step < rise:
            return (step + 1) / rise
        return max(0.0, (steps - step) / max(1, steps - rise))

    def require_fit(self, layout: Layout, steps: int) -> None:
        """Raise UsageError where the recipe cannot serve a layout, or not in so few steps."""


@dataclass(frozen=True)
class TrainingJob:
    """One adapter to train: its name, rows, the seed of their order, and its start.

    Attributes:
        train: rows; those with a teacher, if there are any, are drawn apart from the others, as
            many of each kind a step.
        start: an adapter of the trainer's layout, n = 1, which the batched trainer goes on from;
            None for the start that all adapters share.
    """

    name: str
    train: tuple[TokenRow, ...]
    tune: tuple[TokenRow, ...] = ()
    seed: int = 0
    start: Adapter | None = None
