"""The settings that all recipes have (LoRA and its nearest relatives have no more), and a job."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from library.base.batches import TokenRow
from library.errors import UsageError
from library.layout import Layout

# By name, what is trained of one group's sites, for n adapters side by side: `[n, ...]`, four axes.
FormParameters = Mapping[str, Tensor]
StackedPair = tuple[Float[Tensor, "_n _sites _rank _in"], Float[Tensor, "_n _sites _out _rank"]]


@dataclass(frozen=True)
class Recipe:
    """A way to train a LoRA adapter. This class serves the batched trainer.

    Its form (how a group's factors are parametrised) is A and B themselves; library.trainer.recipes
    .forms has others.

    Attributes:
        fixed: parameters that a form never trains.
        over_slots: parameters that all adapters trained at once have in common.
        passes: gradients that a start is made of.
        name: as users write it and records store it.
        alpha: numerator of the scale.
        rank_stabilised: divide alpha by sqrt(rank) (Kalajdzievski 2023), not by rank.
        freeze_a: train B alone (LoRA-FA, Zhang et al. 2023).
        b_rate: learning rate of B over that of A (LoRA+, Hayou et al. 2024).
        lr: peak learning rate of A; linear rise and fall.
        warmup: share of the steps over which the rate rises.
        weight_decay: AdamW's.
        clip: largest norm of one adapter's gradient.
        update: rule on the gradients of A and B (library.trainer.recipes.updates); adamw for none.
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
    update: str = "adamw"
    fixed: ClassVar[frozenset[str]] = frozenset()
    over_slots: ClassVar[frozenset[str]] = frozenset()
    passes: ClassVar[int] = 0

    @property
    def is_plain(self) -> bool:
        """True if the parameters are A and B of every site."""
        return type(self) is Recipe

    @property
    def frozen(self) -> frozenset[str]:
        """All parameters that are not trained."""
        return self.fixed | ({"A"} if self.freeze_a else set())

    def scale(self, rank: int) -> float:
        """The factor in ΔW = scale·B·A; ALLoRA has none."""
        if self.update == "allora":
            return 1.0
        return self.alpha / (math.sqrt(rank) if self.rank_stabilised else rank)

    def rate(self, step: int, steps: int) -> float:
        """Factor on the peak rate at `step` of `steps`, counted from 0."""
        rise = max(1, round(steps * self.warmup))
        if step < rise:
            return (step + 1) / rise
        return max(0.0, (steps - step) / max(1, steps - rise))

    def require_fit(self, layout: Layout, steps: int) -> None:
        """Raise UsageError where the recipe cannot serve a layout, or not in so few steps."""
        if self.update != "adamw" and (not self.is_plain or self.freeze_a):
            raise UsageError(
                f"update '{self.update}' takes a recipe that trains A and B themselves (lora, "
                f"rslora or lora-plus), not '{self.name}'"
            )
        if any(site.rank != layout.rank for site in layout.sites):
            self.require_ranks_by_module()
        smallest = min(site.full_rank for site in layout.sites)
        if self._of_one_rank and layout.rank > smallest:
            raise UsageError(
                f"{self._of_one_rank} takes a rank of at most {smallest}, the smallest side of a "
                f"target module, not {layout.rank}"
            )

    def require_ranks_by_module(self) -> None:
        """Raise UsageError where all modules have to have one rank."""
        if self._of_one_rank:
            raise UsageError(f"{self._of_one_rank} takes one rank for all modules")

    @property
    def _of_one_rank(self) -> str:
        """What it is that all modules have to have one rank; empty if they need not."""
        if self.update != "adamw":
            return f"update '{self.update}'"
        return "" if self.is_plain else f"recipe '{self.name}'"

    def parametrise(self, a: Tensor, b: Tensor, generator: torch.Generator) -> FormParameters:
        """A group's parameters at the start (n = 1), from the start of its A, and B = 0."""
        return {"A": a, "B": b}

    def expand(self, p: FormParameters) -> StackedPair:
        """The factors A and B, without the scale; differentiable."""
        return p["A"], p["B"]

    def started(
        self, number: int, seen: Sequence[StackedPair], rates: Tensor, group: int, p: FormParameters
    ) -> FormParameters:
        """A group's parameters that change after pass `number` of `passes`.

        Args:
            seen: by group, gradients of the first step's rows on A, and on B with the scale in it.
            rates: each adapter's of the first step.
        """
        return {}

    def midway(self, group: int, p: FormParameters) -> FormParameters:
        """A group's parameters that change when half of an adapter's steps are done (n = 1)."""
        return {}

    def first_result(self, steps: int) -> int:
        """The first step of `steps` after which a state can be the result."""
        return 0


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
