"""Which trainer a recipe takes."""

from typing import TYPE_CHECKING, Any

from library.layout import Layout
from library.trainer.batched import BatchedTrainer, TrainConfig
from library.trainer.recipes import Recipe

if TYPE_CHECKING:
    from library.trainer.peft_trainer import PeftTrainer


def trainer_for(
    model: Any, layout: Layout, recipe: Recipe, config: TrainConfig, *, pad: int, seed: int = 0
) -> "BatchedTrainer | PeftTrainer":
    """The trainer of a recipe, with its arguments. Raises UsageError, as the trainer does."""
    if recipe.trained_by == "batched":
        return BatchedTrainer(model, layout, recipe, config, pad=pad, seed=seed)
    from library.trainer.peft_trainer import PeftTrainer

    return PeftTrainer(model, layout, recipe, config, pad=pad, seed=seed)
