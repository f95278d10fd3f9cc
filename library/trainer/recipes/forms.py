"""Forms: what is trained in place of A and B, from which they are made at every step.

Each ties or multiplies the factors of one group, that is of one module type of one shape over all
layers. What it makes is plain LoRA of the given rank, so nothing is lost when it is stored. A form
is a class here and a name in FORMS.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from library.layout import Layout
from library.trainer.recipes.recipe import Factors, Parameters, Recipe, require_uniform


@dataclass(frozen=True)
class Form(Recipe):
    """A recipe whose parameters are others than A and B of every site."""

    def require_fit(self, layout: Layout, steps: int) -> None:
        super().require_fit(layout, steps)
        require_uniform(self, layout)


@dataclass(frozen=True)
class ShareLoRA(Form):
    """ShareLoRA (Song et al. 2024): one A for all layers, a B for each."""

    tied: ClassVar[str] = "A"

    def parametrise(self, a: Tensor, b: Tensor, generator: torch.Generator) -> Parameters:
        return {name: v[:, :1] if name == self.tied else v for name, v in (("A", a), ("B", b))}

    def expand(self, p: Parameters) -> Factors:
        sites = max(p["A"].shape[1], p["B"].shape[1])
        return p["A"].expand(-1, sites, -1, -1), p["B"].expand(-1, sites, -1, -1)


@dataclass(frozen=True)
class ShareB(ShareLoRA):
    """The same with one B, and an A for each layer."""

    tied: ClassVar[str] = "B"


FORMS = (
    ShareLoRA("share-lora", lr=2e-3),
    ShareB("share-lora-b", lr=2e-3),
)
