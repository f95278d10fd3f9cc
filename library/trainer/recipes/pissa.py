"""PiSSA (Meng et al. 2024) and OLoRA (Büyükakyüz 2024): LoRA that starts from a part of the weight.

They take a part B0·A0 out of the base's weights and train it on, so that against the original base
ΔW = scale·(B·A − B0·A0), plain LoRA of twice the rank. Here the base keeps its weights and −B0·A0
is a second adapter, frozen: the same model, without rounding W − B0·A0 to the base's type.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from library.errors import UsageError
from library.factored import canonical
from library.layout import Layout
from library.trainer.recipes.peft_recipe import TRAINED, FactorPair, PeftRecipe, lora_settings
from library.trainer.recipes.recipe import TrainingJob

START = "start"  # the name of −B0·A0


@dataclass(frozen=True)
class PiSSA(PeftRecipe):
    """Starts from the largest singular values (randomised SVD of 16 iterations)."""

    initialisation: ClassVar[str] = "pissa_niter_16"

    def settings(self, layout: Layout, steps: int, seed: int) -> Any:
        return lora_settings(self, layout, init_lora_weights=self.initialisation)

    @torch.no_grad()
    def start(self, model: Any, layout: Layout, job: TrainingJob, pad: int) -> None:
        settings = model.peft_config[TRAINED]
        model.add_adapter(START, replace(settings, init_lora_weights=False, corda_config=None))
        for module in model.modules():
            if START in getattr(module, "lora_A", {}):
                module.lora_A[START].weight.copy_(module.lora_A[TRAINED].weight)
                module.lora_B[START].weight.copy_(-module.lora_B[TRAINED].weight)
        model.base_model.set_adapter([TRAINED, START])
        for name, parameter in model.named_parameters():
            if f".{START}." in name:
                parameter.requires_grad_(False)

    def delta(self, module: Any) -> Tensor:
        trained, start = (module.get_delta_weight(name).double() for name in (TRAINED, START))
        return trained + start

    def factors(self, module: Any, delta: Tensor, rank: int) -> FactorPair:
        names = (TRAINED, START)
        a = torch.cat([module.lora_A[n].weight for n in names])  # (2·rank, in)
        scaled = [module.lora_B[n].weight * module.scaling[n] for n in names]
        b = torch.cat(scaled, dim=1)  # (out, 2·rank)
        # The two nearly cancel, and would not once they are rounded: their sum is factored anew.
        a, b = canonical(a, b)
        return a.float(), b.float()


@dataclass(frozen=True)
class OLoRA(PiSSA):
    """Starts from the QR decomposition."""

    initialisation: ClassVar[str] = "olora"

    def require_fit(self, layout: Layout, steps: int) -> None:
        super().require_fit(layout, steps)
        if layout.sites[0].transposed:
            raise UsageError(
                f"recipe 'olora' cannot start on {layout.model_type}'s transposed layers"
            )
