"""Recipes: how one adapter is trained, by name.

The batched trainer trains those that differ from LoRA in scale, in what is trained and in the rate
of B, many adapters at once; PEFT trains the others, one adapter after another. All end in plain
LoRA on the original base.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from library.errors import UnknownName, UsageError
from library.layout import Layout


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
        trained_by: which trainer knows it.
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
        Recipe("lora", lr=2e-3),
        Recipe("rslora", rank_stabilised=True),
        Recipe("lora-fa", freeze_a=True),
        Recipe("lora-plus", b_rate=16.0, lr=1e-4),
        Recipe("dora", trained_by="peft"),
        Recipe("pissa", trained_by="peft"),
        Recipe("olora", trained_by="peft"),
        Recipe("eva", trained_by="peft"),
        Recipe("adalora", lr=1e-2, trained_by="peft"),
        Recipe("randlora", lr=1e-3, trained_by="peft"),
        Recipe("vera", lr=3e-2, trained_by="peft"),
    )
}
REFUSED = {
    "loftq": "it trains on quantised weights that take the base's place",
    "corda": "it edits the base's weights by statistics of its own, and nothing here undoes that",
    "lora-ga": "it edits the base's weights by a first gradient, and nothing here undoes that",
    "full-fine-tuning": "it trains the base's own weights, and no LoRA holds that change",
}


def recipe_named(name: str, *, lr: float | None = None) -> Recipe:
    """A recipe, with another rate if one is given.

    Raises UsageError for one that does not end in LoRA on the original base, UnknownName.
    """
    if name in REFUSED:
        raise UsageError(f"recipe '{name}' is refused: {REFUSED[name]}")
    if name not in RECIPES:
        raise UnknownName(f"unknown recipe '{name}'; known: {', '.join(RECIPES)}")
    return RECIPES[name] if lr is None else replace(RECIPES[name], lr=lr)


def require_fit(recipe: Recipe, layout: Layout, steps: int) -> None:
    """Raise UsageError where a recipe cannot serve a layout, or not in so few steps."""
    if recipe.trained_by == "batched":
        return
    smallest = min(min(site.in_features, site.out_features) for site in layout.sites)
    if any(site.rank != layout.rank for site in layout.sites):
        raise UsageError(f"recipe '{recipe.name}' takes one rank for all modules")
    if layout.rank > smallest:
        raise UsageError(
            f"recipe '{recipe.name}' takes a rank of at most {smallest}, the smallest side of a "
            f"target module, not {layout.rank}"
        )
    if recipe.name == "adalora" and steps < 2:
        raise UsageError("recipe 'adalora' takes at least 2 steps")
    if recipe.name == "olora" and layout.sites[0].transposed:
        raise UsageError(f"recipe 'olora' cannot start on {layout.model_type}'s transposed layers")
