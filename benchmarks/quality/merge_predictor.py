"""The merge predictor against constant weights, by the base's loss on pairs of tasks set aside.

    python benchmarks/quality/merge_predictor.py --library LIB --tasks TASKS/train --out OUT.json

The pairs are of tasks that the checkpoint says were set aside; their merged adapter answers tune
rows of both. Constants are tried on pairs of the tasks that it was trained on, and the best of them
stands beside it: what a network has to beat is not the mean alone.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from index.merge.lora_rar import load_predictor
from index.merge.weighted_sum import sum_by_module
from library.tasks.metrics import bootstrap_ci95
from training.data.pairs import AdapterPairBatch, Member, PairDataModule
from training.objectives.frozen_base import FrozenBase

CONSTANTS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 1.0)
Pair = tuple[Member, Member]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", required=True)
    parser.add_argument("--tasks", required=True, nargs="+")
    parser.add_argument("--base", help="the library's; default: the default base")
    parser.add_argument("--predictor", type=Path, default=Path("pretrained/lora-rar"))
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--rows", type=int, default=8, help="tune rows of each task")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    report = measured(options)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in report.items() if k != "pairs"}, indent=1))


def measured(o: argparse.Namespace) -> dict[str, Any]:
    predictor = load_predictor(o.predictor)
    record = predictor.training["data"]
    names = ("max_length", "set_aside_share", "seed")
    same = {name: record[name] for name in names}
    same["exclude_license_classes"] = record["excluded_license_classes"]
    data = PairDataModule(o.library, o.tasks, o.base, **same)
    data.setup("fit")
    leaked = {member.task.name for member in data.held_back} & set(record["tasks"])
    if leaked:
        sys.exit(f"the checkpoint was trained on {sorted(leaked)[0]}, which is to be held out")
    scorer = Scorer(data, o.device, o.rows)
    rng = random.Random(f"{data.seed}/constants")
    trained = [(one, two) for one, two in (rng.sample(data.training, 2) for _ in range(o.pairs))]
    tried = {c: mean(scorer.constant(pair, c) for pair in trained) for c in CONSTANTS}
    best = min(tried, key=tried.__getitem__)
    rows = []
    for pair in held_out(data, o.pairs):
        rows.append(
            {
                "tasks": [member.task.name for member in pair],
                "mean": scorer.constant(pair, 0.5),
                "best_constant": scorer.constant(pair, best),
                "sum": scorer.constant(pair, 1.0),
                "predicted": scorer.predicted(pair, predictor.module.float()),
            }
        )
    kinds = ("mean", "best_constant", "sum", "predicted")
    differences = {
        f"predicted_minus_{kind}": [row["predicted"] - row[kind] for row in rows]
        for kind in ("mean", "best_constant")
    }
    return {
        "command": "python benchmarks/quality/merge_predictor.py --library LIB --tasks TASKS "
        f"--pairs {o.pairs} --rows {o.rows} --device {o.device} --out OUT",
        "checkpoint": predictor.digest,
        "bytes": (o.predictor / "model.safetensors").stat().st_size,
        "training": predictor.training,
        "rows_per_task": o.rows,
        "constants_on_training_pairs": tried,
        "best_constant": best,
        "loss": {kind: mean(row[kind] for row in rows) for kind in kinds},
        "difference": {
            name: {"mean": mean(values), "ci95": bootstrap_ci95(values)}
            for name, values in differences.items()
        },
        "pairs_better_than_mean": sum(d < 0 for d in differences["predicted_minus_mean"]),
        "pairs": rows,
    }


class Scorer:
    """The base's mean loss on tune rows of both tasks of a pair, under a merge."""

    def __init__(self, data: PairDataModule, device: str, rows: int) -> None:
        layout = data.plan.layout
        doubled = layout.with_rank(2 * layout.rank)
        self.data, self.device, self.rows = data, torch.device(device), rows
        self.base = FrozenBase(data.base, doubled, self.device, compiled=False)

    def constant(self, pair: Pair, weight: float) -> float:
        sites = len(self.data.plan.layout.sites)
        return self._loss(self._batch(pair), torch.full((2, 1, sites), weight))

    def predicted(self, pair: Pair, network: Any) -> float:
        batch = self._batch(pair)
        return self._loss(batch, network.to(self.device)(batch.first, batch.second))

    def _batch(self, pair: Pair) -> AdapterPairBatch:
        rows = [replace(row, owner=0) for member in pair for row in member.tune[: self.rows]]
        batch = self.data.batch([pair], rows)
        return self.data.transfer_batch_to_device(batch, self.device, 0)

    @torch.no_grad()
    def _loss(self, batch: AdapterPairBatch, weights: torch.Tensor) -> float:
        merged = sum_by_module([batch.first, batch.second], weights.to(self.device))
        return float(self.base.losses(batch.rows, merged).mean())


def held_out(data: PairDataModule, count: int) -> Sequence[Pair]:
    pairs = list(combinations(data.held_back, 2))
    random.Random(f"{data.seed}/scored").shuffle(pairs)
    return pairs[:count]


def mean(values: Any) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


if __name__ == "__main__":
    with torch.no_grad():
        main()
