"""AdaLoRA (Zhang et al. 2023): ΔW = B·diag(E)·A; the least important ranks are dropped."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from library.errors import UsageError
from library.layout import Layout
from library.trainer.recipes.peft_recipe import TRAINED, FactorPair, PeftRecipe, module_settings


@dataclass(frozen=True)
class AdaLoRA(PeftRecipe):
    """Starts with half as much rank again, dropped between a tenth and seven of the steps."""

    def require_fit(self, layout: Layout, steps: int) -> None:
        super().require_fit(layout, steps)
        if steps < 2:
            raise UsageError("recipe 'adalora' takes at least 2 steps")

    def settings(self, layout: Layout, steps: int, seed: int) -> Any:
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            target_r=layout.rank,
            init_r=layout.rank + max(1, layout.rank // 2),
            tinit=steps // 10,
            tfinal=3 * steps // 10,
            deltaT=max(1, steps // 30),
            total_step=steps,
            lora_alpha=int(self.alpha),
            **module_settings(layout),
        )

    def regularise(self, model: Any) -> None:
        weight = model.peft_config[TRAINED].orth_reg_weight
        (weight * orthogonality(model)).backward()

    def after_step(self, model: Any, step: int) -> None:
        model.base_model.update_and_allocate(step)

    def is_settled(self, model: Any, step: int) -> bool:
        """False until the last ranks are dropped."""
        settings = model.peft_config[TRAINED]
        return step >= settings.total_step - settings.tfinal

    def factors(self, module: Any, delta: Tensor, rank: int) -> FactorPair:
        present = module.lora_E[TRAINED][:, 0] != 0  # E is (rank, 1)
        present[0] |= not present.any()  # a layout has no rank 0; the factor stays zero
        scale = module.scaling[TRAINED] / (module.ranknum[TRAINED] + 1e-5)
        a, b = module.lora_A[TRAINED] * module.lora_E[TRAINED], module.lora_B[TRAINED] * scale
        return a[present], b[:, present]


def orthogonality(model: nn.Module) -> Tensor:
    """AdaLoRA's regulariser (equation 4 of its paper): the distance of A and B from orthogonal.

    The mean over factors of ‖AAᵀ − I‖ and ‖BᵀB − I‖.
    """
    norms = []
    for name, factor in model.named_parameters():
        if f"lora_A.{TRAINED}" in name or f"lora_B.{TRAINED}" in name:
            gram = factor @ factor.T if "lora_A" in name else factor.T @ factor  # (rank, rank)
            norms.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram)).to(gram)))
    return torch.stack(norms).mean()
