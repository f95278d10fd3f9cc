"""Settings of refinement, measured on train tasks: score against examples, steps, rate and start.

    python benchmarks/calibrate/refine.py --tasks TASKS/train --count 48 --device cuda \\
        --examples 2,5,16,64 --lr 1e-3,2e-3 --steps 30,60,120 --out refine.json

Every adapter is trained on the first N train rows of its task, with no tune row, and scored on the
task's tune rows; test rows stay unseen. A start is `fresh`, or NAME=FOLDER of a PEFT adapter.
"""

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from generator.refine.training import Refinement, RefineSettings, example_rows, refine_adapters
from library.adapter import Adapter, stack
from library.base.decode import greedy
from library.base.models import (
    BaseModel,
    fast_dtype,
    load_base,
    load_config,
    resolve_base,
)
from library.base.prompts import Mode, prompt_ids, user_turn
from library.base.stored_adapters import read_for_base
from library.base.usage import Usage
from library.files import write_file
from library.layout import layout_of
from library.tasks.files import Task, read_tasks
from library.tasks.metrics import rouge_l, strict_exact
from library.trainer.optimiser import shared_start

RANK = 8


def main() -> None:
    o = _options()
    tasks = sorted(read_tasks(o.tasks), key=lambda task: task.name)
    if o.names:
        named = set(o.names.read_text().split())
        tasks = [task for task in tasks if task.name in named]
    tasks = random.Random(0).sample(tasks, min(o.count, len(tasks)))
    reference = resolve_base(o.base)
    base = load_base(reference, device=o.device, dtype=fast_dtype(o.device))
    fresh = layout_of(load_config(reference), ("q_proj", "v_proj"), rank=RANK)
    results = []
    grid = itertools.product(o.start, o.mode, o.examples, o.lr, o.steps, o.decay, o.seed)
    for start, mode, count, lr, steps, decay, seed in grid:
        begun = time.perf_counter()
        name, _, folder = start.partition("=")
        adapter = read_for_base(Path(folder), reference) if folder else shared_start(fresh, seed)
        settings = RefineSettings(steps, lr, weight_decay=decay)
        scores = measure(base, tasks, adapter, mode, count, settings, seed)
        results.append(
            {
                "start": name,
                "mode": mode,
                "examples": count,
                "lr": lr,
                "steps": steps,
                "weight_decay": decay,
                "seed": seed,
                **scores,
                "seconds": round(time.perf_counter() - begun, 1),
            }
        )
        print(json.dumps({k: v for k, v in results[-1].items() if k != "tasks"}), flush=True)
        report = {"command": " ".join(["python", *sys.argv]), "count": len(tasks), "rows": results}
        write_file(o.out, (json.dumps(report, indent=1) + "\n").encode())


def measure(
    base: BaseModel,
    tasks: list[Task],
    start: Adapter,
    mode: Mode,
    count: int,
    settings: RefineSettings,
    seed: int,
) -> dict[str, object]:
    """Mean scores on the tune rows of all tasks, each with its own refined adapter."""
    refinements = [
        Refinement(start, example_rows(base, task.train[:count], Usage.of(mode, task.definition)))
        for task in tasks
    ]
    if settings.steps:
        trained = refine_adapters(base, start.layout, refinements, settings, seed=seed)
        adapters = stack([one.adapter for one in trained])
    else:
        adapters = stack([start] * len(tasks))
    adapters = adapters.to(base.device, base.model.dtype)
    rows = [(owner, example) for owner, task in enumerate(tasks) for example in task.tune]
    prompts = [
        prompt_ids(base.tokenizer, user_turn(mode, tasks[owner].definition, example.input))[-1024:]
        for owner, example in rows
    ]
    answers = greedy(base, prompts, adapters, [owner for owner, _ in rows], batch_size=256)
    by_task: dict[str, list[tuple[float, float]]] = {}
    for (owner, example), answer in zip(rows, answers, strict=True):
        pair = (rouge_l(answer, example.outputs), strict_exact(answer, example.outputs))
        by_task.setdefault(tasks[owner].name, []).append(pair)
    means = {name: torch.tensor(pairs).mean(0).tolist() for name, pairs in by_task.items()}
    rouge, exact = (torch.tensor([*means.values()]).mean(0) * 100).tolist()
    return {
        "rouge_l": round(rouge, 2),
        "exact": round(exact, 2),
        "tasks": {name: round(100 * pair[0], 1) for name, pair in means.items()},
    }


def _several(kind: Callable[[str], Any], text: str) -> list[Any]:
    return [kind(part) for part in text.split(",")]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--names", type=Path, help="File with names of the tasks to take.")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--start", type=lambda t: t.split(","), default=["fresh"])
    parser.add_argument("--mode", type=lambda t: t.split(","), default=["bare"])
    numbers = {"examples": int, "lr": float, "steps": int, "decay": float, "seed": int}
    defaults = {"examples": [5], "lr": [2e-3], "steps": [60], "decay": [0.0], "seed": [0]}
    for option, kind in numbers.items():
        read = partial(_several, kind)
        parser.add_argument(f"--{option}", type=read, default=defaults[option])
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
