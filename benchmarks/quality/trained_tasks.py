"""One adapter for each of some tasks, all trained at once and scored on tune rows, as JSON rows."""

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
from library.trainer.recipes.registry import RECIPES
from library.trainer.run_state import TrainConfig, Trained, best_check
from library.trainer.trainer import AdapterTrainer


def add_options(parser: argparse.ArgumentParser, *, rank: int) -> None:
    """The options of every script that trains on the tasks."""
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--every", type=int, default=10, help="of how many tasks one is trained")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rank", type=int, default=rank)
    parser.add_argument("--targets", help="module types, comma-separated; the base's default ones")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=320)
    parser.add_argument("--base")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")


class TrainedTasks:
    """The tasks of a run, the base that adapters are trained on, and the report.

    Attributes:
        tasks: every n-th of the folder, if it has rows that are short enough.
        layout: of all target modules at the rank of the options.
    """

    def __init__(self, script: str, o: argparse.Namespace) -> None:
        logging.set_verbosity_error()
        self.out: Path = o.out
        self.reference = resolve_base(o.base)
        self.base = load_base(self.reference, device=o.device, dtype=fast_dtype(o.device))
        self.layout = layout_of(
            load_config(self.reference), o.targets and o.targets.split(","), rank=o.rank
        )
        self.tasks, self.jobs = list[Task](), list[TrainingJob]()
        for task in read_tasks(o.tasks)[:: o.every]:
            train, tune = (
                tokenised(rows, self.base.tokenizer, o.max_length)
                for rows in (task.train, task.tune)
            )
            if train and tune:
                self.tasks.append(task)
                self.jobs.append(TrainingJob(task.name, train, tune))
        self.config = TrainConfig(steps=o.steps, rows=o.rows, slots=len(self.jobs), patience=0)
        if o.compile:  # before the first row's time is taken
            compile_layers(self.base.model)
            few = replace(self.config, steps=3, slots=2)
            self._row(RECIPES["lora"], self.layout, self.jobs[:2], few)
        self.report: dict[str, Any] = {
            "command": " ".join(["python", "-m", f"benchmarks.quality.{script}", *sys.argv[1:]]),
            "device": torch.cuda.get_device_name() if o.device != "cpu" else "cpu",
            "base": self.reference.name, "rank": o.rank, "steps": o.steps, "rows": o.rows,
            "tasks": [job.name for job in self.jobs], "results": [],
        }  # fmt: skip

    def add(self, about: Mapping[str, Any], recipe: Recipe, layout: Layout) -> None:
        """Train and score, and write the report with one row more, which says what it is about."""
        row = {**about, **self._row(recipe, layout, self.jobs, self.config)}
        rows: list[dict[str, Any]] = self.report["results"]
        if rows:
            row |= less_first(row, rows[0], len(self.tasks))
        rows.append(row)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(self.report, indent=1) + "\n", encoding="utf-8")
        shown = (*about, "seconds", "numbers", "token_accuracy", "rouge_l")
        print("  ".join(str(row[k]) for k in shown if not isinstance(row[k], dict)), flush=True)

    def _row(
        self, recipe: Recipe, layout: Layout, jobs: list[TrainingJob], config: TrainConfig
    ) -> dict[str, Any]:
        base, pad = self.base, self.base.tokenizer.pad_token_id
        trainer = TRAINERS[recipe.trained_by](base.model, layout, recipe, config, pad=pad)
        start = time.perf_counter()
        results: dict[str, Trained] = {done.job.name: done for done in trainer.run(jobs)}
        if base.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        done = [results[job.name] for job in jobs]
        adapters = {one.job.name: one.adapter for one in done if one.adapter is not None}
        best = [check for one in done if (check := best_check(one.checks)) is not None]
        if isinstance(trainer, BatchedTrainer):
            error = conversion_error(trainer)
        else:
            error = max(one.scores["conversion_error"] for one in done if one.adapter is not None)
        return {
            "seconds": round(seconds, 2), "adapters": len(adapters),
            "steps": round(sum(one.steps for one in done) / len(done), 1),
            "restarts": sum(one.restarts for one in done),
            "numbers": numbers(trainer),
            "distinct": max(map(distinct, adapters.values())),
            "conversion_error": error,
            **mean([100 * check.accuracy for check in best], "token_accuracy"),
            **mean([check.loss for check in best], "loss"),
            **mean(rouge(base, self.tasks, adapters), "rouge_l"),
        }  # fmt: skip


def numbers(trainer: AdapterTrainer[Any]) -> int | None:
    """How many numbers an adapter trains; of PEFT's recipes nobody counts them."""
    if not isinstance(trainer, BatchedTrainer):
        return None
    if trainer.recipe.is_plain:  # whose factors stand padded to the largest rank of a group
        of_a = not trainer.recipe.freeze_a
        sites = trainer.layout.sites
        return sum(site.rank * (site.in_features * of_a + site.out_features) for site in sites)
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


def less_first(row: dict[str, Any], first: dict[str, Any], tasks: int) -> dict[str, Any]:
    """The paired difference of a row's ROUGE-L to the first row's, if both have all adapters."""
    if not row["adapters"] == first["adapters"] == tasks:
        return {}
    pairs = zip(row["rouge_l_each"], first["rouge_l_each"], strict=True)
    return mean([one - other for one, other in pairs], "rouge_l_less_first")


def mean(values: list[float], name: str) -> dict[str, Any]:
    """The mean over tasks with its 95 % interval, and the tasks' own."""
    each = [round(value, 3) for value in values]
    interval = [round(end, 3) for end in bootstrap_ci95(values)]
    return {
        name: round(sum(values) / len(values), 3), f"{name}_ci95": interval, f"{name}_each": each,
    }  # fmt: skip
