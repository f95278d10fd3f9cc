"""What PEFT makes of each recipe: its settings, the data-driven start of EVA, the end as LoRA.

PiSSA (Meng et al. 2024) and OLoRA (Büyükakyüz 2024) take a part B0·A0 out of the base's weights and
train it on, so that against the original base ΔW = scale·(B·A − B0·A0), plain LoRA of twice the
rank. Here the base keeps its weights and −B0·A0 is a second adapter, frozen: the same model,
without rounding W − B0·A0 to the base's type. AdaLoRA (Zhang et al. 2023) ends in B·diag(E)·A, with
E zero where a rank was given up. DoRA (Liu et al. 2024) and RandLoRA (Albert et al. 2025) end in a
ΔW of full rank, which the truncated SVD approximates best (Eckart–Young); VeRA's (Kopiczko et al.
2024) has the rank of its projections. EVA (Paischer et al. 2024) is LoRA from another start.
"""

from dataclasses import replace
from typing import Any

import peft
import torch
from jaxtyping import Float
from peft.tuners.lora.eva import initialize_lora_eva_weights
from torch import Tensor, nn

from library.base.batches import TokenRow
from library.errors import UsageError
from library.factored import canonical
from library.layout import Layout
from library.trainer.recipes import Recipe
from library.trainer.run_state import TrainingJob

NAME, START = "default", "start"  # PEFT's names of what is trained and of −B0·A0
EVA_ROWS = 32  # of a batch for the incremental SVD
RANDLORA_SCALE = 20  # alpha over rank, as PEFT advises
VERA_START = 0.1  # of the vector d (table 6 of its paper)
CHANGES_BASE = ("olora", "pissa")

Pair = tuple[Tensor, Tensor]  # A (rank, in), B (out, rank)


def peft_settings(recipe: Recipe, layout: Layout, steps: int, seed: int) -> Any:
    """PEFT's config of a recipe on the layout's modules."""
    modules: dict[str, Any] = {
        "target_modules": [site.name for site in layout.sites],
        "fan_in_fan_out": layout.sites[0].transposed,
    }
    if recipe.name == "adalora":
        return _adalora(recipe, layout.rank, steps, modules)
    shared: dict[str, Any] = {"r": layout.rank, **modules}
    if recipe.name == "vera":
        return peft.VeraConfig(projection_prng_key=seed, d_initial=VERA_START, **shared)
    if recipe.name == "randlora":
        alpha = RANDLORA_SCALE * layout.rank
        return peft.RandLoraConfig(projection_prng_key=seed, randlora_alpha=alpha, **shared)
    start: Any = {"pissa": "pissa_niter_16", "olora": "olora", "eva": "eva"}.get(recipe.name, True)
    return peft.LoraConfig(
        lora_alpha=int(recipe.alpha),
        use_dora=recipe.name == "dora",
        init_lora_weights=start,
        # One rank everywhere, so that the adapters of a library have one layout.
        eva_config=peft.EvaConfig(rho=1.0) if start == "eva" else None,
        **shared,
    )


def _adalora(recipe: Recipe, rank: int, steps: int, modules: dict[str, Any]) -> Any:
    """Half as much rank again to start with, given up between a tenth and seven of the steps."""
    return peft.AdaLoraConfig(
        target_r=rank,
        init_r=rank + max(1, rank // 2),
        tinit=steps // 10,
        tfinal=3 * steps // 10,
        deltaT=max(1, steps // 30),
        total_step=steps,
        lora_alpha=int(recipe.alpha),
        **modules,
    )


def start_eva(model: Any, job: TrainingJob, rank: int, pad: int) -> None:
    """Start A at the main directions of the modules' inputs on the job's rows.

    Raises UsageError if no batch of rows has as many tokens as the rank.
    """
    parts = [job.train[i : i + EVA_ROWS] for i in range(0, len(job.train), EVA_ROWS)]
    batches = [_inputs(part, pad) for part in parts if sum(map(len, part)) >= rank]
    if not batches:
        raise UsageError(f"the rows of {job.name} have fewer tokens than eva's rank {rank}")
    initialize_lora_eva_weights(model, batches, show_progress_bar=False)


def _inputs(rows: tuple[TokenRow, ...], pad: int) -> dict[str, Tensor]:
    longest = max(map(len, rows))
    ids = [[*row.prompt, *row.answer, *[pad] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def orthogonality(model: nn.Module) -> Tensor:
    """AdaLoRA's regulariser (equation 4 of its paper): how far A and B are from orthogonal.

    The mean over factors of ‖AAᵀ − I‖ and ‖BᵀB − I‖.
    """
    found = []
    for name, factor in model.named_parameters():
        if f"lora_A.{NAME}" in name or f"lora_B.{NAME}" in name:
            gram = factor @ factor.T if "lora_A" in name else factor.T @ factor
            found.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram)).to(gram)))
    return torch.stack(found).mean()


def take_start_apart(model: Any) -> None:
    """Add −B0·A0 as an adapter of its own, once the base has its weights back."""
    settings = model.peft_config[NAME]
    model.add_adapter(START, replace(settings, init_lora_weights=False))
    with torch.no_grad():
        for module in model.modules():
            if START in getattr(module, "lora_A", {}):
                module.lora_A[START].weight.copy_(module.lora_A[NAME].weight)
                module.lora_B[START].weight.copy_(-module.lora_B[NAME].weight)
    model.base_model.set_adapter([NAME, START])
    for name, parameter in model.named_parameters():
        if f".{START}." in name:
            parameter.requires_grad_(False)


def low_rank(module: Any, recipe: Recipe) -> Pair | None:
    """A trained module's ΔW as the recipe itself factors it; None where it does not."""
    if recipe.name == "adalora":
        kept = module.lora_E[NAME][:, 0] != 0
        kept[0] |= not kept.any()  # a layout has no rank 0; the factor stays zero
        scale = module.scaling[NAME] / (module.ranknum[NAME] + 1e-5)
        a, b = module.lora_A[NAME] * module.lora_E[NAME], module.lora_B[NAME] * scale
        return a[kept], b[:, kept]
    if recipe.name == "eva":
        return module.lora_A[NAME].weight, module.lora_B[NAME].weight * module.scaling[NAME]
    if recipe.name in CHANGES_BASE:
        a = torch.cat([module.lora_A[n].weight for n in (NAME, START)])
        b = torch.cat([module.lora_B[n].weight * module.scaling[n] for n in (NAME, START)], dim=1)
        # The two nearly cancel, and would not once they are rounded: their sum is factored anew.
        a, b = canonical(a, b)
        return a.float(), b.float()
    return None


def trained_delta(module: Any, recipe: Recipe) -> Float[Tensor, "rows columns"]:
    """What a module adds to its base's weight, in float64, laid out as that weight is."""
    weight = module.get_base_layer().weight.double()
    if recipe.name == "dora":  # get_delta_weight leaves the magnitudes out
        return module.lora_variant[NAME].merge_safe(module, NAME, weight) - weight
    names = (NAME, START) if recipe.name in CHANGES_BASE else (NAME,)
    return torch.stack([module.get_delta_weight(name).double() for name in names]).sum(0)
