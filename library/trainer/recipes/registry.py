"""The recipes by name, and those that are refused."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from library.errors import UnknownName, UsageError
from library.peft.merging import MERGEABLE
from library.trainer.recipes.adalora import AdaLoRA
from library.trainer.recipes.dora import DoRA
from library.trainer.recipes.eva import EVA
from library.trainer.recipes.forms import FORMS
from library.trainer.recipes.measured_starts import CorDA, LoRAGA
from library.trainer.recipes.peft_type import PeftType
from library.trainer.recipes.pissa import OLoRA, PiSSA
from library.trainer.recipes.random_bases import RandLoRA, VeRA
from library.trainer.recipes.recipe import Recipe
from library.trainer.recipes.updates import UPDATES

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("lora", lr=2e-3),
        Recipe("rslora", rank_stabilised=True),
        Recipe("lora-fa", freeze_a=True),
        Recipe("lora-plus", b_rate=16.0, lr=1e-4),
        *FORMS,
        DoRA("dora"),
        PiSSA("pissa"),
        OLoRA("olora"),
        EVA("eva"),
        LoRAGA("lora-ga"),
        CorDA("corda"),
        AdaLoRA("adalora", lr=1e-2),
        RandLoRA("randlora", lr=1e-3),
        VeRA("vera", lr=3e-2),
        # AdaLoRA's ranks go with the steps, which its own recipe knows.
        *(PeftType(f"peft:{t.lower()}", lr=1e-3) for t in MERGEABLE if t != "ADALORA"),
    )
}
REFUSED_RECIPES = {
    "loftq": "it trains on quantised weights that take the base's place",
    "full-fine-tuning": "it trains the base's own weights, and no LoRA holds that change",
}


def recipe_named(name: str, *, lr: float | None = None, update: str = "adamw") -> Recipe:
    """A recipe, in any case, with another rate if one is given, and an update rule.

    Raises UsageError for one that does not end in LoRA on the original base, UnknownName.
    """
    name = name.lower()
    if name in REFUSED_RECIPES:
        raise UsageError(f"recipe '{name}' is refused: {REFUSED_RECIPES[name]}")
    if name not in RECIPES:
        raise UnknownName(f"unknown recipe '{name}'; known: {', '.join(RECIPES)}")
    if update not in UPDATES:
        raise UnknownName(f"unknown update rule '{update}'; known: {', '.join(UPDATES)}")
    return replace(RECIPES[name], lr=RECIPES[name].lr if lr is None else lr, update=update)


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a plan stores it; without an update rule as before there were any."""
    return {k: v for k, v in asdict(recipe).items() if (k, v) != ("update", "adamw")}


def recipe_from_dict(data: Mapping[str, Any]) -> Recipe:
    """The recipe that a plan stores; of a name that is not registered, its settings alone."""
    return type(RECIPES.get(data["name"], RECIPES["lora"]))(**data)
