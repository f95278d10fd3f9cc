"""Recipes and update rules on the same tasks: scores on tune rows, numbers trained, time: JSON.

    python -m benchmarks.quality.recipes --tasks tasks/train --steps 300 --device cuda --compile \\
        --out docs/results/recipes.json

Each recipe trains an adapter for every tenth task, all at once. The file is written again after
every recipe, so that a run that is stopped keeps what it has; `rouge_l_less_first` is the paired
difference to the run's first recipe. `--recipes` names others, with an update rule after a plus and
a rate after an at: lora+lora-pro, lora-sb@0.01.
"""

import argparse

from benchmarks.quality.trained_tasks import TrainedTasks, add_options
from library.trainer.recipes.recipe import Recipe
from library.trainer.recipes.registry import RECIPES, recipe_named
from library.trainer.recipes.updates import UPDATES

ALL = [
    *(name for name, recipe in RECIPES.items() if recipe.trained_by == "batched"),
    *(f"lora+{update}" for update in UPDATES if update != "adamw"),
]


def parsed(text: str) -> Recipe:
    """NAME[+UPDATE][@RATE]."""
    text, _, rate = text.partition("@")
    name, _, update = text.partition("+")
    return recipe_named(name, lr=float(rate) if rate else None, update=update or "adamw")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, rank=8)
    parser.add_argument("--recipes", nargs="+", default=ALL)
    o = parser.parse_args()
    recipes = [parsed(text) for text in o.recipes]
    run = TrainedTasks("recipes", o)
    for recipe in recipes:
        about = {"recipe": recipe.name, "update": recipe.update, "lr": recipe.lr}
        run.add(about, recipe, run.layout)


if __name__ == "__main__":
    main()
