"""RandLoRA (Albert et al. 2025) and VeRA (Kopiczko et al. 2024): learned scales of random factors.

The ΔW of RandLoRA has full rank, that of VeRA the rank of its projections.
"""

from dataclasses import dataclass
from typing import Any

from library.layout import Layout
from library.trainer.recipes.peft_recipe import PeftRecipe, module_settings

RANDLORA_SCALE = 20  # alpha over rank, as PEFT advises
VERA_START = 0.1  # of the vector d (table 6 of its paper)


@dataclass(frozen=True)
class RandLoRA(PeftRecipe):
    """Learns diagonal scales of enough random factors to reach full rank."""

    def settings(self, layout: Layout, steps: int, seed: int) -> Any:
        from peft import RandLoraConfig

        return RandLoraConfig(
            r=layout.rank,
            projection_prng_key=seed,
            randlora_alpha=RANDLORA_SCALE * layout.rank,
            **module_settings(layout),
        )


@dataclass(frozen=True)
class VeRA(PeftRecipe):
    """Learns two vectors that scale one random pair of factors."""

    def settings(self, layout: Layout, steps: int, seed: int) -> Any:
        from peft import VeraConfig

        return VeraConfig(
            r=layout.rank,
            projection_prng_key=seed,
            d_initial=VERA_START,
            **module_settings(layout),
        )
