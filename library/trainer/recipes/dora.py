"""DoRA (Liu et al. 2024): LoRA on the direction of each row of the weight, beside its magnitude."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from library.layout import Layout
from library.trainer.recipes.peft_recipe import TRAINED, PeftRecipe, lora_settings


@dataclass(frozen=True)
class DoRA(PeftRecipe):
    """Its ΔW has full rank."""

    def settings(self, layout: Layout, steps: int, seed: int) -> Any:
        return lora_settings(self, layout, use_dora=True)

    def delta(self, module: Any) -> Tensor:
        # PEFT's get_delta_weight leaves the magnitudes out.
        weight = module.get_base_layer().weight.double()
        return module.lora_variant[TRAINED].merge_safe(module, TRAINED, weight) - weight
