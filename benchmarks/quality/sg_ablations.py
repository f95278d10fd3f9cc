"""SG-LoRA beside its baselines, and without its parts, on tasks that it was not trained on.

    python -m benchmarks.quality.sg_ablations --library LIB --checkpoint runs/sg_lora/checkpoint \
        --tasks TASKS/public_heldout --device cuda --batch-size 448 --out OUT.json

Base, soup, adapter-soup, nearest, top-k (μ* itself) and compose; SG-LoRA with z the prior's mean,
five draws of the prior and of N(0, I), without the pattern of the variance, with 1 to 8 experts,
without the nearest expert, by paraphrases; and how far its adapters lie from μ* and from the
nearest snapshot of the library. With --oracles, a library of the tasks' own adapters.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality.sg_contenders import OWN, Contenders
from benchmarks.quality.sg_distances import Distances
from generator.engine import read_generator
from generator.models.sg_lora import SGLoRA
from generator.resources import Resources
from generator.strategies.generated import Generated
from generator.strategies.multi_task import MultiTask, shipped_multi_tasks
from index.search.retriever import Retriever
from library.adapter import Adapter
from library.base.models import resolve_base
from library.base.prompts import Mode
from library.base.usage import Usage
from library.store.open import open_library
from library.tasks.files import Task, read_tasks
from training.evaluation.cells import Cell, Pool, Prompts, cell_key, decode_all
from training.evaluation.comparison import Row, means, pairs
from training.evaluation.methods import Method
from training.evaluation.swaps import GIBBERISH

PARAPHRASES = 3
MODES: tuple[Mode, ...] = ("bare", "prompted")
COMPARED = ("base", "oracle", "soup", "adapter-soup", "nearest", "top-k", "compose", OWN)


class Measurement:
    """Cells of a run: every method's adapter of every task, in some modes."""

    def __init__(self, o: argparse.Namespace) -> None:
        self.o, self.reference = o, resolve_base(o.base)
        self.resources = Resources(open_library(o.library), device=o.device)
        self.checkpoint = read_generator(o.checkpoint)
        single = MultiTask(*shipped_multi_tasks())
        self.strategy = Generated(self.checkpoint, self.resources, single)
        self.strategy.fit.require(self.reference)
        module = self.strategy.module
        if not isinstance(module, SGLoRA):
            raise SystemExit(f"{o.checkpoint} is a checkpoint of {module.kind}, not {SGLoRA.kind}")
        self.contenders = Contenders(module, self.resources, self.reference, o.samples)
        self.tasks = read_tasks(o.tasks)[: o.limit]
        self.modes: list[Mode] = [mode for mode in MODES if mode in o.modes.split(",")]
        self.base = self.resources.model(self.reference)
        self.pool, self.prompts = Pool(), Prompts(self.base, seed=0)
        self.cells: list[Cell] = []
        self.distances = Distances()

    def run(self) -> dict[str, Any]:
        oracles = self._oracles()
        for task in self.tasks:
            adapters = self.contenders.of_task(task.name, task.definition)
            self._note_distances(task, adapters)
            if task.name in oracles:
                adapters["oracle"] = oracles[task.name]
            for i, text in enumerate(task.paraphrases[:PARAPHRASES]):
                given = self.contenders.of_paraphrase(task.name, text)
                adapters |= {f"{name}, paraphrase {i}": a for name, a in given.items()}
            self._add(task, "base", None)
            for name, adapter in adapters.items():
                self._add(task, name, adapter)
            print(f"{task.name}: {len(adapters)} adapters", flush=True)
        decode_all(self.cells, self.base, self.pool, self.o.batch_size, _printed)
        return self._report()

    def _add(self, task: Task, name: str, adapter: Adapter | None) -> None:
        source = None if adapter is None else self.pool.add(adapter)
        for mode in self.modes:
            ids = self.prompts.of(task, Usage.of(mode, task.definition), 0)
            key = cell_key(self.base, ids, self.pool.digest(source))
            split, method = self._split(task), Method(name, name)
            self.cells.append(Cell(task, split, method, mode, mode, source, ids, key))

    def _split(self, task: Task) -> str:
        return "seen" if task.name in self.checkpoint.info.tasks else "held-out"

    def _note_distances(self, task: Task, adapters: dict[str, Adapter]) -> None:
        kinds = ("top-k", OWN, f"{OWN}, sample ", f"{OWN}, N(0, I) ")
        for name, adapter in adapters.items():
            if name in kinds[:2] or name.startswith(kinds[2:]):
                label = {"task": task.name, "split": self._split(task), "method": name}
                self.distances.add(adapters["top-k"], adapter, **label)

    def _oracles(self) -> dict[str, Adapter]:
        if self.o.oracles is None:
            return {}
        folder, encoder = open_library(self.o.oracles), self.resources.encoder()
        retriever = Retriever(folder, self.reference, encoder)
        names = {task.name for task in self.tasks}
        chosen = [r for r in retriever.records if r["task"] in names]
        return {record["task"]: retriever.adapter(record["id"]) for record in chosen}

    def _report(self) -> dict[str, Any]:
        cells: list[Row] = [
            {
                "task": cell.task.name,
                "split": cell.split,
                "method": cell.method.name,
                "mode": cell.mode,
                **cell.scores(),
            }
            for cell in self.cells
        ]
        rows = [*cells, *sampled(cells, "sample"), *sampled(cells, "N(0, I)")]
        compared = [r for r in rows if r["method"] in (*COMPARED, f"{OWN}, mean of sample")]
        distances = self.distances.measured(self.resources.retriever(self.reference))
        return {
            "command": "python -m benchmarks.quality.sg_ablations --library LIB --checkpoint "
            f"CHECKPOINT --tasks TASKS --samples {self.o.samples} --device {self.o.device}",
            "checkpoint": self.checkpoint.digest,
            "training": self.checkpoint.info.training,
            "base_sha256": self.base.sha256,
            "means": means(rows, "method", "mode", "split"),
            "pairs": pairs(compared),
            "paraphrase_spread": paraphrase_spread(rows),
            "refused": self._refused(),
            "distance_means": distance_means(distances),
            "distances": distances,
            "rows": rows,
        }

    def _refused(self) -> dict[str, Any]:
        """Share of descriptions below the checkpoint's floor, by kind, and their similarities."""
        texts = {
            "definitions": [(t.name, t.definition) for t in self.tasks],
            "paraphrases": [(t.name, text) for t in self.tasks for text in t.paraphrases],
            "gibberish": [("", text) for text in GIBBERISH],
        }
        found: dict[str, Any] = {"floor": self.strategy.module.floor}
        for kind, named in texts.items():
            queries = [self.contenders.query(*pair) for pair in named]
            nearest = [query.nearest_experts(1)[0].similarity for query in queries]
            refused = sum(bool(self.strategy.refusal(query)) for query in queries)
            found[kind] = {"of": len(queries), "refused": refused, "similarities": sorted(nearest)}
        return found


def sampled(rows: Sequence[Row], kind: str) -> list[Row]:
    """For each task and mode the mean of all draws of a kind, the best and the worst."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if row["method"].startswith(f"{OWN}, {kind} "):
            key = (row["task"], row["split"], row["mode"])
            groups.setdefault(key, []).append(row["rouge_l"])
    pick = {"mean": statistics.mean, "best": max, "worst": min}
    return [
        {"task": task, "split": split, "mode": mode, "method": f"{OWN}, {name} of {kind}",
         "rouge_l": choose(scores)}
        for (task, split, mode), scores in groups.items()
        for name, choose in pick.items()
    ]  # fmt: skip


def paraphrase_spread(rows: Sequence[Row]) -> list[Row]:
    """Standard deviation of a task's score over its descriptions, and paraphrases − definition."""
    scores = {(r["method"], r["mode"], r["task"]): r["rouge_l"] for r in rows}
    found = []
    for name in (OWN, "top-k"):
        for mode in sorted({row["mode"] for row in rows}):
            deviations, shifts = [], []
            for (method, other, task), own in scores.items():
                keys = [(f"{name}, paraphrase {i}", mode, task) for i in range(PARAPHRASES)]
                others = [scores[key] for key in keys if key in scores]
                if (method, other) == (name, mode) and others:
                    deviations.append(statistics.pstdev([own, *others]))
                    shifts.append(statistics.mean(others) - own)
            if deviations:
                figures = {"deviation": deviations, "shift": shifts}
                averages = {k: statistics.mean(v) for k, v in figures.items()}
                found.append({"method": name, "mode": mode, "tasks": len(shifts), **averages})
    return found


def distance_means(distances: Sequence[Row]) -> list[Row]:
    """Mean distances by split and kind of adapter, all draws of a kind together."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in distances:
        kind = row["method"].rstrip("0123456789 ")
        groups.setdefault((row["split"], kind), []).append(row)
    return [
        {
            "split": split,
            "method": kind,
            **{k: statistics.mean(r[k] for r in rows) for k in ("to_mean", "to_snapshot")},
        }
        for (split, kind), rows in groups.items()
    ]


def _printed(done: int, of: int) -> None:
    print(f"decoded {done} of {of}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", required=True, help="that the checkpoint was trained on")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tasks", type=Path, required=True, help="folder of task files")
    parser.add_argument("--oracles", help="library of the tasks' own adapters")
    parser.add_argument("--base", help="default: the default base")
    parser.add_argument("--modes", default="bare,prompted")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--limit", type=int, help="number of tasks")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    report = Measurement(options).run()
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for row in report["means"]:
        print(f"{row['method']:<36} {row['mode']:<9} {row['split']:<9} {100 * row['rouge_l']:.1f}")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
