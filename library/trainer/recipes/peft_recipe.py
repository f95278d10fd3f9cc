"""A recipe that PEFT trains: its settings, its own steps around PEFT's, reading the result.

PEFT is imported where it is first used, as that takes seconds that batched recipes need not wait.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from library.errors import UsageError
from library.factored import best_of_rank
from library.layout import Layout, Site
from library.trainer.recipes.recipe import Recipe, TrainingJob

TRAINED = "default"  # PEFT's name of the adapter that is trained

FactorPair = tuple[Float[Tensor, "rank in_features"], Float[Tensor, "out_features rank"]]


@dataclass(frozen=True)
class PeftRecipe(Recipe, ABC):
    """LoRA as PEFT trains it, and what the families change about it.

    `model` is PEFT's, around the base; `module` is one of its adapted layers.
    """

    trained_by: Literal["batched", "peft"] = "peft"

    def require_fit(self, layout: Layout, steps: int) -> None:
        smallest = min(min(site.in_features, site.out_features) for site in layout.sites)
        if any(site.rank != layout.rank for site in layout.sites):
            raise UsageError(f"recipe '{self.name}' takes one rank for all modules")
        if layout.rank > smallest:
            raise UsageError(
                f"recipe '{self.name}' takes a rank of at most {smallest}, the smallest side of a "
                f"target module, not {layout.rank}"
            )

    @abstractmethod
    def settings(self, layout: Layout, steps: int, seed: int) -> Any:
        """PEFT's config for the layout's modules."""

    def prepare(self, model: Any, settings: Any, job: TrainingJob, pad: int) -> None:
        """Measure on the bare base what its start needs, before PEFT adapts it."""

    def start(self, model: Any, layout: Layout, job: TrainingJob, pad: int) -> None:
        """Set the start that PEFT does not set itself; the base has its own weights again.

        Raises UsageError where the recipe cannot start on the job's rows.
        """

    def regularise(self, model: Any) -> None:
        """Add the gradient of what the recipe adds to the loss."""

    def after_step(self, model: Any, step: int) -> None:
        """Act after the `step`-th step, while its gradient is there."""

    def is_settled(self, model: Any, step: int) -> bool:
        """False while a state cannot be the result yet."""
        return True

    def read_out(
        self, module: Any, site: Site
    ) -> tuple[Float[Tensor, "out_features in_features"], FactorPair]:
        """ΔW of a trained module in float64, and its factors A and B with the scale in B."""
        delta = self.delta(module).contiguous()
        delta = delta.T if site.transposed else delta  # (out, in)
        return delta, self.factors(module, delta, site.rank)

    def delta(self, module: Any) -> Float[Tensor, "rows columns"]:
        """ΔW in float64, laid out as the base's weight is."""
        return module.get_delta_weight(TRAINED).double()

    def factors(
        self, module: Any, delta: Float[Tensor, "out_features in_features"], rank: int
    ) -> FactorPair:
        """FactorPair as training left them; here the best of `rank` (Eckart–Young)."""
        return best_of_rank(delta, rank)


def module_settings(layout: Layout) -> dict[str, Any]:
    """The part of PEFT's configs that names the modules."""
    return {
        "target_modules": [site.name for site in layout.sites],
        "fan_in_fan_out": layout.sites[0].transposed,
    }


def lora_settings(recipe: Recipe, layout: Layout, **options: Any) -> Any:
    """PEFT's config of a variant of LoRA."""
    from peft import LoraConfig

    alpha = int(recipe.alpha)
    return LoraConfig(r=layout.rank, lora_alpha=alpha, **module_settings(layout), **options)
