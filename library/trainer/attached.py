"""One adapter of PEFT on a base model, from its start until it is read out as plain LoRA."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peft
import torch
from torch import Tensor, nn

from library.adapter import Adapter, from_sites
from library.factored import Residual, best_of_rank
from library.layout import Layout
from library.trainer.peft_recipes import (
    CHANGES_BASE,
    NAME,
    low_rank,
    orthogonality,
    peft_settings,
    start_eva,
    take_start_apart,
    trained_delta,
)
from library.trainer.recipes import Recipe
from library.trainer.run_state import TrainingJob

State = dict[str, Tensor]


class Attached:
    """An adapter in training; made by `attached`.

    Args:
        model: PEFT's, around the base.
    """

    def __init__(self, model: Any, layout: Layout, recipe: Recipe) -> None:
        self._model, self._layout, self._recipe = model, layout, recipe
        self._trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._modules = {s.name: model.get_base_model().get_submodule(s.name) for s in layout.sites}

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return list(self._trained.values())

    def state(self) -> State:
        """A copy of what is trained."""
        return {name: p.detach().clone() for name, p in self._trained.items()}

    def regularise(self) -> None:
        """Add the gradient of what the recipe adds to the loss."""
        if self._recipe.name == "adalora":
            weight = self._model.peft_config[NAME].orth_reg_weight
            (weight * orthogonality(self._model)).backward()

    def after_step(self, step: int) -> None:
        """What the recipe does after the `step`-th step, while the gradient is there."""
        if self._recipe.name == "adalora":
            self._model.base_model.update_and_allocate(step)

    def counts(self, step: int) -> bool:
        """Whether a state may be kept as the best: AdaLoRA's, once the ranks are given out."""
        settings = self._model.peft_config[NAME]
        return self._recipe.name != "adalora" or step >= settings.total_step - settings.tfinal

    @torch.no_grad()
    def adapter(self, state: State) -> tuple[Adapter, float]:
        """A state as plain LoRA on the original base, on the CPU.

        Returns:
            The adapter, and ‖ΔW − B·A‖ / ‖ΔW‖ over all modules, ΔW being what PEFT's model adds
            to the base's weights.
        """
        for name, value in state.items():
            self._trained[name].copy_(value)
        pairs, residual = {}, Residual()
        for site in self._layout.sites:
            module = self._modules[site.name]
            delta = trained_delta(module, self._recipe)
            delta = delta.T if site.transposed else delta
            pair = low_rank(module, self._recipe)
            a, b = pair if pair is not None else best_of_rank(delta, site.rank)
            residual.add(delta, a, b)
            pairs[site.name] = (a.cpu(), b.cpu())
        return from_sites(self._layout, pairs), residual.relative


@contextmanager
def attached(
    model: Any, layout: Layout, recipe: Recipe, job: TrainingJob, *, steps: int, pad: int, seed: int
) -> Iterator[Attached]:
    """Put a fresh adapter on a base; afterwards the base is as it was, to the bit.

    Raises UsageError where the recipe cannot start on the job's rows.
    """
    settings = peft_settings(recipe, layout, steps, seed)
    weights = [model.get_submodule(site.name).weight for site in layout.sites]
    kept = [(weight, weight.data, weight.data.clone()) for weight in weights]
    made = _wrapped(model, settings, seed)
    try:
        for weight, place, original in kept:
            weight.data = place.copy_(original)
        if recipe.name in CHANGES_BASE:
            take_start_apart(made)
        if recipe.name == "eva":
            start_eva(made, job, layout.rank, pad)
        yield Attached(made, layout, recipe)
    finally:
        made.unload()


def _wrapped(model: Any, settings: Any, seed: int) -> Any:
    """PEFT's model around a base, which stays in its mode (training or not)."""
    cuda = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints on memory, and other libraries' own deprecations
        torch.manual_seed(seed)
        made: Any = peft.get_peft_model(model, settings)
    return made.train(model.training)
