"""Recipes and update rules on the same tasks: scores on tune rows, numbers trained, time: JSON.

    python -m benchmarks.quality.recipes --tasks tasks/train --steps 300 --device cuda --compile \\
        --out docs/results/recipes.json

Each recipe trains an adapter for every tenth task, all at once. The file is written again after
every recipe, so that a run that is stopped keeps what it has. `--recipes` names others, with an
update rule after a plus and a rate after an at: lora+lora-pro, lora-sb@0.01.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from library.adapter import Adapter, stack_padded
from library.base.compiled import compile_layers
from library.base.decode import greedy
from library.base.models import BaseModel, fast_dtype, load_base, load_config, resolve_base
from library.base.prompts import prompt_ids
from library.build.build import TRAINERS
from library.build.plan import tokenised
from library.factored import Residual
from library.layout import Layout, layout_of
from library.tasks.files import Task, read_tasks
from library.tasks.metrics import bootstrap_ci95, rouge_l
from library.trainer.batched import BatchedTrainer
from library.trainer.recipes.recipe import Recipe, TrainingJob
from library.trainer.recipes.registry import RECIPES, recipe_named
from library.trainer.recipes.updates import UPDATES
from library.trainer.run_state import TrainConfig, Trained, best_check
from library.trainer.trainer import AdapterTrainer

ALL = [
    *(name for name, recipe in RECIPES.items() if recipe.trained_by == "batched"),
    *(f"lora+{update}" for update in UPDATES if update != "adamw"),
]


def parsed(text: str) -> Recipe:
    """NAME[+UPDATE][@RATE]."""
    text, _, rate = text.partition("@")
    name, _, update = text.partition("+")
    return recipe_named(name, lr=float(rate) if rate else None, update=update or "adamw")


def numbers(trainer: AdapterTrainer[Any]) -> int | None:
    """How many numbers an adapter trains; of PEFT's recipes nobody counts them."""
    if not isinstance(trainer, BatchedTrainer):
        return None
    return sum(p[0].numel() for p in trainer.optimiser.parameters if p.requires_grad)


def distinct(adapter: Adapter) -> int:
    """How many different numbers an adapter stores: as-lora's after it put its Bs together."""
    return sum(len(factor.unique()) for factor in adapter.factors())


@torch.no_grad()
def conversion_error(trainer: BatchedTrainer) -> float:
    """‖ΔW − B·A‖ / ‖ΔW‖ of the last states: ΔW in float64, A and B as they are stored."""
    residual, optimiser = Residual(), trainer.optimiser
    stored, recipe = optimiser.adapters().to("cpu", torch.float32), trainer.recipe
    for number, group in enumerate(trainer.layout.groups):
        exact = {name: value.cpu().double() for name, value in optimiser.groups[number].items()}
        a, b = recipe.expand(exact)
        for i, site in enumerate(group.sites):
            deltas = recipe.scale(site.rank) * b[:, i] @ a[:, i]
            for delta, x, y in zip(deltas, *stored.site(site), strict=True):
                residual.add(delta, x, y)
    return residual.relative


def rouge(base: BaseModel, tasks: list[Task], adapters: Mapping[str, Adapter]) -> list[float]:
    """ROUGE-L x 100 on the tune rows of each task that has an adapter."""
    asked = [task for task in tasks if task.name in adapters]
    placed = stack_padded([adapters[task.name] for task in asked]).to(base.device)
    prompts = [prompt_ids(base.tokenizer, row.input) for task in asked for row in task.tune]
    owners = [i for i, task in enumerate(asked) for _ in task.tune]
    answers = iter(greedy(base, prompts, placed, owners, batch_size=512))
    return [
        100 * sum(rouge_l(next(answers), row.outputs) for row in task.tune) / len(task.tune)
        for task in asked
    ]


def mean(values: list[float], name: str) -> dict[str, Any]:
    """The mean over tasks with its 95 % interval, and the tasks' own."""
    each = [round(value, 3) for value in values]
    interval = [round(end, 3) for end in bootstrap_ci95(values)]
    return {
        name: round(sum(values) / len(values), 3), f"{name}_ci95": interval, f"{name}_each": each,
    }  # fmt: skip


def measured(
    base: BaseModel, layout: Layout, tasks: list[Task], jobs: list[TrainingJob], recipe: Recipe,
    config: TrainConfig,
) -> dict[str, Any]:  # fmt: skip
    """A recipe's row of the report."""
    pad, cuda = base.tokenizer.pad_token_id, base.device.type == "cuda"
    trainer = TRAINERS[recipe.trained_by](base.model, layout, recipe, config, pad=pad)
    start = time.perf_counter()
    results: dict[str, Trained] = {done.job.name: done for done in trainer.run(jobs)}
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    done = [results[job.name] for job in jobs]
    adapters = {one.job.name: one.adapter for one in done if one.adapter is not None}
    best = [check for one in done if (check := best_check(one.checks)) is not None]
    if isinstance(trainer, BatchedTrainer):
        error = conversion_error(trainer)
    else:
        error = max(one.scores["conversion_error"] for one in done)
    return {
        "recipe": recipe.name, "update": recipe.update, "lr": recipe.lr,
        "seconds": round(seconds, 2), "adapters": len(adapters),
        "steps": round(sum(one.steps for one in done) / len(done), 1),
        "restarts": sum(one.restarts for one in done),
        "numbers": numbers(trainer),
        "distinct": max(map(distinct, adapters.values())),
        "conversion_error": error,
        **mean([100 * check.accuracy for check in best], "token_accuracy"),
        **mean([check.loss for check in best], "loss"),
        **mean(rouge(base, tasks, adapters), "rouge_l"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--recipes", nargs="+", default=ALL)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=320)
    parser.add_argument("--base")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    o = parser.parse_args()
    logging.set_verbosity_error()
    recipes = [parsed(text) for text in o.recipes]
    reference = resolve_base(o.base)
    base = load_base(reference, device=o.device, dtype=fast_dtype(o.device))
    layout = layout_of(load_config(reference), rank=o.rank)
    tasks = read_tasks(o.tasks)[:: o.every]
    rows = [
        (t, *(tokenised(x, base.tokenizer, o.max_length) for x in (t.train, t.tune))) for t in tasks
    ]
    jobs = [TrainingJob(task.name, train, tune) for task, train, tune in rows if train and tune]
    config = TrainConfig(steps=o.steps, rows=o.rows, slots=len(jobs), patience=0)
    if o.compile:  # before the first recipe's time is taken
        compile_layers(base.model)
        few, short = jobs[:2], replace(config, steps=3, slots=2)
        measured(base, layout, tasks, few, RECIPES["lora"], short)
    report = {
        "command": " ".join(["python", "-m", "benchmarks.quality.recipes", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if o.device != "cpu" else "cpu",
        "base": reference.name, "rank": o.rank, "steps": o.steps, "rows": o.rows,
        "tasks": [job.name for job in jobs], "recipes": [],
    }  # fmt: skip
    o.out.parent.mkdir(parents=True, exist_ok=True)
    for recipe in recipes:
        report["recipes"].append(measured(base, layout, tasks, jobs, recipe, config))
        o.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        shown = ("recipe", "update", "seconds", "numbers", "token_accuracy", "rouge_l")
        print("  ".join(str(report["recipes"][-1][name]) for name in shown), flush=True)


if __name__ == "__main__":
    main()
