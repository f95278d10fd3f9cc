"""Recipes: how one adapter is trained, by name.

What the batched trainer can train is here: they differ in scale, in what is trained and in the rate
of B, and end in plain LoRA.
"""

import math
from dataclasses import dataclass, replace

from library.errors import UnknownName


@dataclass(frozen=True)
class Recipe:
    """Settings of one way to train a LoRA adapter.

    Attributes:
        name: as it is asked for and recorded.
        alpha: numerator of the scale.
        rank_stabilised: divide alpha by sqrt(rank) (Kalajdzievski 2023), not by rank.
        freeze_a: train B alone (LoRA-FA, Zhang et al. 2023).
        b_rate: learning rate of B over that of A (LoRA+, Hayou et al. 2024).
        lr: peak learning rate of A; linear rise and fall.
        warmup: share of the steps over which the rate rises.
        weight_decay: AdamW's.
        clip: the gradient's norm, adapter by adapter.
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

    def scale(self, rank: int) -> float:
        """ΔW = scale·B·A."""
        return self.alpha / (math.sqrt(rank) if self.rank_stabilised else rank)

    def rate(self, step: int, steps: int) -> float:
        """Factor on the peak rate at `step` of `steps`, counted from 0."""
        rise = max(1, round(steps * self.warmup))
        if step < rise:
            return (step + 1) / rise
        return max(0.0, (steps - step) / max(1, steps - rise))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("lora"),
        Recipe("rslora", rank_stabilised=True),
        Recipe("lora-fa", freeze_a=True),
        Recipe("lora-plus", b_rate=16.0, lr=1e-4),
    )
}


def recipe_named(name: str, *, lr: float | None = None) -> Recipe:
    """A recipe, with another rate if one is given. Raises UnknownName."""
    if name not in RECIPES:
        raise UnknownName(f"unknown recipe '{name}'; known: {', '.join(RECIPES)}")
    return RECIPES[name] if lr is None else replace(RECIPES[name], lr=lr)
