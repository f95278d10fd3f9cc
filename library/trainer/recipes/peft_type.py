"""Any type of PEFT that merges into the weights, as a recipe: `peft:vblora`, `peft:glora`."""

import copy
import math
import warnings
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from library.errors import UsageError, first_line
from library.layout import Layout, Site
from library.peft.merging import change_by_merging
from library.trainer.recipes.peft_recipe import PeftRecipe, module_settings
from library.trainer.recipes.recipe import TrainingJob

# IA3 takes no module for a feed-forward's, and GLoRA leaves biases alone.
OWN = {"feedforward_modules": [], "config_C": "none", "config_D_E": "none"}
PARTS = ("block_size", "boft_block_size", "group_size", "oft_block_size", "vector_length")
MOVE = 0.1  # of all trained numbers, by which a type shows what it changes


@dataclass(frozen=True)
class PeftType(PeftRecipe):
    """With PEFT's settings of the type, fitted to the layout; its ΔW may have any rank."""

    def require_fit(self, layout: Layout, steps: int) -> None:
        super().require_fit(layout, steps)
        shapes = {(s.in_features, s.out_features): s for s in layout.sites}.values()
        sites = tuple(replace(site, name=str(i)) for i, site in enumerate(shapes))
        try:
            fits = _adapts(self.settings(replace(layout, sites=sites), steps, 0), sites)
        except Exception as error:  # each type has checks of its own
            reason = first_line(error)
            raise UsageError(f"recipe '{self.name}' does not fit the modules: {reason}") from error
        if not fits:
            raise UsageError(f"recipe '{self.name}' does not fit the modules: PEFT adapts none")

    def settings(self, layout: Layout, steps: int, seed: int) -> Any:
        """PEFT's, but alpha keeps its ratio to the rank, and modules fall into whole parts."""
        import peft
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        kind = peft.PeftType(self.name.removeprefix("peft:").upper())
        config = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
        known: dict[str, Any] = {field.name: field.default for field in fields(config)}
        options: dict[str, Any] = {**OWN, **module_settings(layout)}
        if rank := known.get("r"):  # OFT's, a number of blocks, is 0
            alphas = {k: v for k, v in known.items() if k.endswith("alpha") and v}
            options |= {"r": layout.rank, **{k: v * layout.rank // rank for k, v in alphas.items()}}
        sides = [(site.in_features, site.out_features) for site in layout.sites]
        common = math.gcd(*(side for pair in sides for side in pair))
        for name in filter(known.get, PARTS):
            options[name] = max(n for n in range(1, known[name] + 1) if common % n == 0)
        options["n_frequency"] = min(known.get("n_frequency", 0), *map(math.prod, sides))
        return config(**{k: v for k, v in options.items() if k in known})

    def start(self, model: Any, layout: Layout, job: TrainingJob, pad: int) -> None:
        """Raises AdapterFileError where the type cannot be merged, or would change a bias."""
        for group in layout.groups:
            module = copy.deepcopy(model.get_base_model().get_submodule(group.sites[0].name))
            for parameter in module.parameters():
                parameter.data += MOVE * parameter.requires_grad
            change_by_merging(f"recipe '{self.name}'", module)

    def delta(self, module: Any) -> Tensor:
        return change_by_merging(f"recipe '{self.name}'", copy.deepcopy(module))


def _adapts(settings: Any, sites: tuple[Site, ...]) -> bool:
    """Whether PEFT trains anything in modules of the sites' shapes, whose weights are random."""
    from peft import get_peft_model
    from transformers.pytorch_utils import Conv1D

    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sizes = [(site.in_features, site.out_features) for site in sites]
        layers = [Conv1D(o, i) if sites[0].transposed else nn.Linear(i, o) for i, o in sizes]
        model: Any = get_peft_model(nn.Sequential(*layers), settings)  # pyright: ignore[reportArgumentType]
        return any(parameter.requires_grad for parameter in model.parameters())
