"""Measure how often the behaviour check tells the right adapter from another task's.

    python benchmarks/quality/behaviour_hook.py --heldout TASKS/public_heldout --train \
        TASKS/train \\
        --library LIB --oracles LIB2 --scores docs/results/heldout.json \\
        --out docs/results/behaviour.json

Right: the adapter that the shipped generator makes from a task's own description. Wrong: those
that it makes from other tasks' descriptions. Both are held against the same rivals on the task's
own examples: the first train rows of held-out tasks. Train tasks set aside from the rivals
calibrate the threshold, on tune rows, as the adapters have seen the train rows; there the library's
own adapters are measured too, and in the same way those of the held-out tasks in LIB2, made by
`lorasmith library build --tasks TASKS/public_heldout --out LIB2`. The peer of the times is one PEFT
forward of each example for each contender.
"""

import argparse
import functools
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import peft
import torch

from benchmarks.quality.thresholds import area_under_curve, quantile
from generator.engine import open_engine
from generator.models.text_to_lora import TextToLoRA
from generator.request import Request
from library.adapter import Adapter, zeros
from library.base.batches import example_row
from library.base.models import BaseModel, load_base, resolve_base
from library.peft.write import to_peft
from library.store.catalogue import read_adapter, records
from library.store.open import open_library
from library.tasks.files import Example, Task, read_tasks
from verification.scores.behaviour_contenders import (
    NONE,
    Contender,
    by_modules,
    scores_by_contender,
)
from verification.scores.behaviour_measure import MAX_EXAMPLE_TOKENS, Bounds, measure
from verification.scores.behaviour_rivals import evenly_spaced, rivals_of

COUNTS = (5, 16)
WRONG = 2
CALIBRATING, CALIBRATED = 40, 16  # tasks, and examples of each
FALSE_ALARM = 0.1
GAIN = 0.1
TIMED = 3
RIGHT, LIBRARY_RIGHT, LIBRARY_WRONG = "right", "library right", "library wrong"

Losses = dict[str, list[float]]  # by contender, one for each example


class Field:
    """The adapters and the base that a task's examples are tried with."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.engine = open_engine(device=options.device)
        self.checkpoint = self.engine.generated[TextToLoRA.kind].checkpoint
        self.library = open_library(str(options.library))
        self.where = options.device
        self.base = load_base(resolve_base(), device=options.device)
        stored = [r for r in records(self.library) if r["variant"] == 0 and r["id"]]
        self.stored = {r["task"]: (self.library, r["id"]) for r in stored}
        oracles = open_library(str(options.oracles))
        self.stored |= {r["task"]: (oracles, r["id"]) for r in records(oracles)}
        rivals = rivals_of(self.library, self.base.reference, description=None)
        self.rivals = [Contender(NONE, zeros(self.checkpoint.module.layout)), *rivals]
        aside = [r for r in stored if r["task"] not in {rival.name for rival in rivals}]
        self.calibrating = [r["task"] for r in evenly_spaced(aside, CALIBRATING)]

    @functools.cache  # noqa: B019 (one field a process)
    def generated(self, task: Task) -> Adapter:
        """As it would be served: bfloat16 in the file."""
        request = Request(task.definition)
        adapter = self.engine.propose(TextToLoRA.kind, request, self.base.reference).adapter
        return adapter.to("cpu", torch.bfloat16).to(dtype=torch.float32)

    def from_library(self, name: str) -> Adapter:
        return read_adapter(*self.stored[name], self.checkpoint.module.layout)


def losses_of(
    base: BaseModel, rows: Sequence[Example], field: Sequence[Contender], most: int
) -> Losses:
    """Losses of every contender on the first rows, in one forward for each example."""
    lots = by_modules([contender.adapter for contender in field], base.device)
    fitting = [
        row
        for row in (example_row(base.tokenizer, r) for r in rows)
        if len(row) <= MAX_EXAMPLE_TOKENS
    ]
    by_example = [scores_by_contender(base, lots, row)[1] for row in fitting[:most]]
    stacked = torch.stack(by_example, dim=1)
    return {c.name: losses.tolist() for c, losses in zip(field, stacked, strict=True)}


def others(tasks: Sequence[Task], seed: int) -> dict[str, list[int]]:
    """For each task the places of WRONG other ones: a seeded order, shifted."""
    order = list(range(len(tasks)))
    random.Random(seed).shuffle(order)
    return {
        tasks[position].name: [order[(i + shift) % len(order)] for shift in range(1, WRONG + 1)]
        for i, position in enumerate(order)
    }


def measured(
    field: Field, tasks: Sequence[Task], cache: Path, *, trained: bool
) -> dict[str, Losses]:
    """Losses by task; what is in the cache is not measured again.

    With `trained` those of adapters trained on the tasks too, and all of them on tune rows.
    """
    cached = json.loads(cache.read_text()) if cache.exists() else {}
    field.where = cached.setdefault("device", field.base.device.type)
    wrong = others(tasks, seed=0)
    for number, task in enumerate(tasks, 1):
        if task.name not in cached:
            line = [Contender(RIGHT, field.generated(task)), *field.rivals]
            for i, index in enumerate(wrong[task.name]):
                line.append(Contender(f"wrong {i}", field.generated(tasks[index])))
            if trained:
                line.append(Contender(LIBRARY_RIGHT, field.from_library(task.name)))
                other = tasks[wrong[task.name][0]].name
                line.append(Contender(LIBRARY_WRONG, field.from_library(other)))
            rows, most = (task.tune, CALIBRATED) if trained else (task.train, max(COUNTS))
            cached[task.name] = losses_of(field.base, rows, line, most)
            cache.write_text(json.dumps(cached))
        print(f"{number}/{len(tasks)} {task.name}", file=sys.stderr, flush=True)
    return {task.name: cached[task.name] for task in tasks}


def working(scores: Path) -> set[str]:
    """Held-out tasks on whose test rows the generated adapter adds GAIN to the base's ROUGE-L."""
    rows = [r for r in json.loads(scores.read_text())["rows"] if r["mode"] == "bare"]
    rouge_of = {(r["method"], r["task"]): r["rouge_l"] for r in rows}
    tasks = {task for _, task in rouge_of}
    return {t for t in tasks if rouge_of["text-to-lora", t] - rouge_of["base", t] >= GAIN}


def margins(rows: Mapping[str, Losses], rivals: Sequence[str], who: str, n: int) -> list[float]:
    """Margins by task: the best rival's loss less that of `who`, on the first n."""
    results = []
    for losses in rows.values():
        best = min(statistics.fmean(losses[rival][:n]) for rival in rivals)
        results.append(best - statistics.fmean(losses[who][:n]))
    return results


def wrong_margins(rows: Mapping[str, Losses], rivals: Sequence[str], n: int) -> list[float]:
    return [m for i in range(WRONG) for m in margins(rows, rivals, f"wrong {i}", n)]


def by_who(losses: Losses, rivals: Sequence[str]) -> dict[str, dict[str, float]]:
    """One task's margins, by number of examples."""
    people = (RIGHT, *(f"wrong {i}" for i in range(WRONG)))
    return {str(n): {w: margins({"": losses}, rivals, w, n)[0] for w in people} for n in COUNTS}


def rates(right: Sequence[float], wrong: Sequence[float], threshold: float) -> dict[str, Any]:
    def share(values: Sequence[float], bound: float) -> float:
        return sum(value > bound for value in values) / len(values)

    return {
        "auc": area_under_curve(right, wrong),
        "share_above_threshold": {
            "right": share(right, threshold),
            "wrong": share(wrong, threshold),
        },
        "share_above_rivals": {"right": share(right, 0.0), "wrong": share(wrong, 0.0)},
        "right": len(right),
        "wrong": len(wrong),
        "median_margin": {"right": statistics.median(right), "wrong": statistics.median(wrong)},
    }


def table(
    heldout: Mapping[str, Losses],
    oracles: Mapping[str, Losses],
    train: Mapping[str, Losses],
    rivals: Sequence[str],
    works: set[str],
) -> dict[str, Any]:
    """AUC and rates by number of examples."""
    good = {name: losses for name, losses in heldout.items() if name in works}
    rows = {}
    for n in COUNTS:
        alarms = wrong_margins(train, rivals, n)
        threshold = quantile(alarms, 1 - FALSE_ALARM)
        right, wrong = (margins(train, rivals, who, n) for who in (LIBRARY_RIGHT, LIBRARY_WRONG))
        rows[str(n)] = {
            "threshold": threshold,
            "heldout": rates(
                margins(heldout, rivals, RIGHT, n), wrong_margins(heldout, rivals, n), threshold
            ),
            "heldout_where_the_adapter_works": rates(
                margins(good, rivals, RIGHT, n), wrong_margins(good, rivals, n), threshold
            ),
            "heldout_trained": rates(
                margins(oracles, rivals, LIBRARY_RIGHT, n),
                margins(oracles, rivals, LIBRARY_WRONG, n),
                threshold,
            ),
            "calibration": rates(margins(train, rivals, RIGHT, n), alarms, threshold),
            "library_adapters": rates(right, wrong, threshold),
        }
    return rows


def timed(field: Field, tasks: Sequence[Task]) -> dict[str, Any]:
    """CPU seconds of a whole check, and of PEFT forwards of the same rows, adapter by adapter."""
    report: dict[str, Any] = {"threads": torch.get_num_threads(), "tasks": len(tasks)}
    rivals, base = field.rivals[1:], load_base(resolve_base())
    for n in COUNTS:
        hook, peer = [], []
        for task in tasks:
            adapter = field.generated(task)
            start = time.process_time()
            measure(base, adapter, rivals, task.train, Bounds(n, seconds=3600))
            middle = time.process_time()
            peft_losses(base, [adapter, *(r.adapter for r in field.rivals)], task.train[:n])
            hook.append(middle - start)
            peer.append(time.process_time() - middle)
        ours_s, peer_s = statistics.median(hook), statistics.median(peer)
        report[str(n)] = {
            "cpu_seconds": ours_s,
            "peft_cpu_seconds": peer_s,
            "ratio": peer_s / ours_s,
        }
    return report


@torch.inference_mode()
def peft_losses(base: BaseModel, adapters: Sequence[Adapter], rows: Sequence[Example]) -> None:
    """The peer: PEFT with every adapter loaded, row by row, adapter by adapter."""
    model: Any = None
    for i, adapter in enumerate(adapters):
        config = peft.LoraConfig(**_lora_config(adapter))
        if model is None:
            model = peft.get_peft_model(base.model, config, adapter_name="a0")
        else:
            model.add_adapter(f"a{i}", config)
    try:
        for i in range(len(adapters)):
            model.set_adapter(f"a{i}")
            for row in (example_row(base.tokenizer, r) for r in rows):
                ids = torch.tensor([row.prompt + row.answer], device=base.device)
                labels = ids.clone()
                labels[0, : len(row.prompt)] = -100
                model(input_ids=ids, labels=labels)
    finally:
        model.unload()


def _lora_config(adapter: Adapter) -> dict[str, Any]:
    config = json.loads(to_peft(adapter, base_name="base").config_bytes)
    keys = ("r", "lora_alpha", "target_modules")
    return {key: config[key] for key in keys}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("heldout", "train", "library", "oracles", "scores", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("runs/behaviour"))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    field = Field(options)
    heldout = read_tasks(options.heldout)
    calibrating = set(field.calibrating)
    train = [task for task in read_tasks(options.train) if task.name in calibrating]
    rivals = [rival.name for rival in field.rivals]
    by_task = measured(field, heldout, options.cache / "heldout.json", trained=False)
    by_oracle = measured(field, heldout, options.cache / "oracles.json", trained=True)
    by_train = measured(field, train, options.cache / "train.json", trained=True)
    report = {
        "command": "python benchmarks/quality/behaviour_hook.py",
        "losses_measured_on": field.where,
        "base_sha256": field.base.sha256,
        "checkpoint": field.checkpoint.digest,
        "rivals": rivals,
        "calibration_tasks": [task.name for task in train],
        "false_alarm": FALSE_ALARM,
        "gain_that_counts_as_working": GAIN,
        "examples": table(by_task, by_oracle, by_train, rivals, working(options.scores)),
        "time_per_check_on_the_cpu": timed(field, heldout[:: len(heldout) // TIMED][:TIMED]),
        "heldout": [{"task": name, **by_who(losses, rivals)} for name, losses in by_task.items()],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: report[k] for k in ("examples", "time_per_check_on_the_cpu")}, indent=1))


if __name__ == "__main__":
    main()
