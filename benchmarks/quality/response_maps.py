"""Which weights does a task's adapter change, does another training of the task change the same,
and does LoFA's first stage know it beforehand?

    python benchmarks/quality/response_maps.py --libraries LIB LIB2 --held-out ORACLES \
        --checkpoint runs/lofa_stage1/checkpoint --device cuda --out response-maps.json

The libraries are trainings of the same tasks from different seeds (variants of a task in one
library do as well). The report has, over their adapters:

- `spread`: the histogram of |Δw/w| by module and layer, with the shares of entries below the
  paper's 2 % and above the threshold;
- `reproducibility`: how far two adapters of one task agree, beside two of different tasks: Jaccard
  index and cosine of their maps, area under the curve and average precision of one's |Δw/w| for the
  other's map, and the correlation of log|Δw/w|. Two maps over the same weights agree by these
  alone: `weights` is the ranking by 1/|W|. If one task agrees no better than two, a map is noise;
- `predictors`, where there is a library of left-out tasks: area and precision of the mean map of
  the first library, of 1/|W|, of 1/|W| times the first library's mean change of an entry's row and
  column (in logarithms), and of stage I by a task's own description and by another left-out task's.

Ranking is measured at entries drawn from each module.
"""

import argparse
import json
import os
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.quality.map_measures import (
    EDGES,
    SMALLEST,
    Means,
    agreement,
    averaged,
    ranking,
    spread_of,
)
from generator.layers.response_maps import TINY, ResponseMaps, relative_change
from index.encoders.descriptions import DescriptionEncoder, Embeddings, join, normalise
from library.adapter import Adapter, stack
from library.base.models import load_model, resolve_base
from library.base.weights import group_weights
from library.checkpoint import Checkpoint, load_checkpoint
from library.errors import UsageError
from library.layout import Group
from library.store.catalogue import records
from library.store.open import open_library
from training.data.libraries import read_stock
from training.objectives.response_maps import response_threshold

ROWS = 16  # adapters whose ΔW is formed at a time


class Shelf:
    """Adapters of some libraries one after the other, with task and library of each."""

    def __init__(self, locations: list[str], limit: int | None, without: set[str]) -> None:
        adapters: list[Adapter] = []
        self.tasks: list[str] = []
        self.libraries: list[int] = []
        self.descriptions: dict[str, str] = {}
        for number, location in enumerate(locations):
            stock, _ = read_stock(location)
            names = [task for task in dict.fromkeys(stock.tasks) if task not in without][:limit]
            rows = [i for i, task in enumerate(stock.tasks) if task in names]
            if not rows:
                raise UsageError(f"{location} holds no task that is left to be measured")
            adapters.append(stock.adapters[rows].to(dtype=torch.float32))
            self.tasks += [stock.tasks[i] for i in rows]
            self.libraries += [number] * len(rows)
            found = records(open_library(location))
            self.descriptions |= {r["task"]: normalise(r["description"]) for r in found}
        self.adapters = stack(adapters)

    def changes(self, group: Group, place: int, w: Float[Tensor, "out in"]) -> Tensor:
        """|Δw/w| of every adapter at one module: [n, out, in], ROWS at a time on w's device."""
        a, b = self.adapters.A[group.key][:, place], self.adapters.B[group.key][:, place]
        parts = zip(a.split(ROWS), b.split(ROWS), strict=True)
        return torch.cat([relative_change(x.to(w.device), y.to(w.device), w) for x, y in parts])

    def others(self) -> list[int]:
        """For each adapter the next one of another task; itself where there is none."""
        n = len(self.tasks)
        turns = [[(i + step) % n for step in range(1, n)] for i in range(n)]
        return [
            next((j for j in turn if self.tasks[j] != self.tasks[i]), i)
            for i, turn in enumerate(turns)
        ]

    def pairs(self) -> list[tuple[str, int, int]]:
        """Pairs of adapters of one task, and as many of different tasks, alike in library."""
        same = [
            (i, j)
            for i, j in combinations(range(len(self.tasks)), 2)
            if self.tasks[i] == self.tasks[j]
        ]
        found = [("same task", i, j) for i, j in same]
        for i, j in same:
            others = [
                k
                for k, task in enumerate(self.tasks)
                if task != self.tasks[i] and self.libraries[k] == self.libraries[j]
            ]
            if others:
                found.append(("other task", i, others[(i * 7919 + j) % len(others)]))
        return found


class Bench:
    """The measurements, module by module."""

    def __init__(self, o: argparse.Namespace) -> None:
        self.device, self.entries = torch.device(o.device), o.entries
        self.checkpoint: Checkpoint[ResponseMaps] | None = None
        if o.checkpoint:
            self.checkpoint = load_checkpoint(o.checkpoint, ResponseMaps)
        self.left_out = self._left_out(o)
        unseen = set(self.left_out.tasks) if self.left_out else set()
        self.shelf = Shelf(o.libraries, o.limit, unseen)
        self.first = [i for i, number in enumerate(self.shelf.libraries) if number == 0]
        self.base = load_model(resolve_base(o.base)).to(self.device)
        if self.checkpoint:
            self.threshold = self.checkpoint.info.training["settings"]["threshold"]
            self.checkpoint.module.to(self.device)
        else:
            self.threshold = response_threshold(self.shelf.adapters, self.base, o.active)
        self.text = self._embedded()
        self.spread: dict[str, dict[int, Any]] = {}
        self.agreements, self.predictors = Means(), Means()

    def _left_out(self, o: argparse.Namespace) -> Shelf | None:
        if not o.held_out:
            return None
        seen = set(self.checkpoint.info.tasks) if self.checkpoint else set()
        return Shelf([o.held_out], o.limit, seen)

    def _embedded(self) -> Embeddings | None:
        """Descriptions of the left-out adapters' tasks, for stage I."""
        if self.left_out is None or self.checkpoint is None:
            return None
        texts = [self.left_out.descriptions[task] for task in self.left_out.tasks]
        encoder = DescriptionEncoder(self.checkpoint.info.encoder, dtype=torch.float32)
        return join(encoder.encode_batch(texts)).to(self.device)

    @torch.inference_mode()
    def run(self) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0)
        for group in self.shelf.adapters.layout.groups:
            for place in range(len(group.sites)):
                w = group_weights(self.base, group, [place])[0].to(self.device)
                drawn = torch.randint(w.numel(), (self.entries,), generator=generator)
                self._module(group, place, w, drawn.to(self.device))
                print(f"{group.key} {place + 1}/{len(group.sites)}", file=sys.stderr)
        return self.report()

    def _module(self, group: Group, place: int, w: Tensor, drawn: Tensor) -> None:
        changes = self.shelf.changes(group, place, w)
        depth = group.sites[place].depth
        by_depth = self.spread.setdefault(group.key, {})
        by_depth[depth] = spread_of(changes, self.threshold)
        some, size = changes.flatten(1)[:, drawn], w.flatten()[drawn].abs()
        for kind, i, j in self.shelf.pairs():
            values = agreement(some[i], some[j], self.threshold)
            self.agreements.add((group.key, kind), values)
        for row in some:
            self.agreements.add((group.key, "weights"), ranking(-size, row > self.threshold))
        if self.left_out is not None:
            fixed = baselines(changes[self.first], w, self.threshold)
            fixed = {name: score.flatten()[drawn] for name, score in fixed.items()}
            self._predict(group, place, w, drawn, fixed)

    def _predict(
        self, group: Group, place: int, w: Tensor, drawn: Tensor, fixed: dict[str, Tensor]
    ) -> None:
        """Each predictor's ranking on the left-out tasks' maps of one module."""
        assert self.left_out is not None
        wanted = self.left_out.changes(group, place, w).flatten(1)[:, drawn] > self.threshold
        scores = {name: score.expand(len(wanted), -1) for name, score in fixed.items()}
        if self.checkpoint is not None and self.text is not None:
            network = self.checkpoint.module
            logits = self._logits(network, self.text, group, place)[:, drawn]
            scores |= {"stage I": logits, "stage I, shuffled": logits[self.left_out.others()]}
        for name, rows in scores.items():
            for row, one in zip(rows, wanted, strict=True):
                values = ranking(row, one)
                self.predictors.add((group.key, name), values)
                self.predictors.add(("all", name), values)

    def _logits(
        self, network: ResponseMaps, text: Embeddings, group: Group, place: int
    ) -> Float[Tensor, "n entries"]:
        """Stage I's maps of one module for all descriptions, ROWS at a time."""
        starts = range(0, len(text), ROWS)
        parts = [Embeddings(*(x[i : i + ROWS] for x in vars(text).values())) for i in starts]
        return torch.cat([network(part, self.base, group, [place]) for part in parts]).flatten(1)

    def report(self) -> dict[str, Any]:
        spread = {
            key: {"all": averaged(found.values()), "by_depth": found}
            for key, found in self.spread.items()
        }
        return {
            "threshold": self.threshold,
            "checkpoint": self.checkpoint.digest if self.checkpoint else None,
            "adapters": len(self.shelf.tasks),
            "tasks": len(set(self.shelf.tasks)),
            "left_out_tasks": len(set(self.left_out.tasks)) if self.left_out else 0,
            "entries": self.entries,
            "histogram_edges": EDGES,
            "spread": spread,
            "reproducibility": self.agreements.nested(),
            "predictors": self.predictors.nested(),
        }


def baselines(
    train: Float[Tensor, "n out in"], w: Float[Tensor, "out in"], threshold: float
) -> dict[str, Float[Tensor, "out in"]]:
    """Scores of a module's entries that no description can change, from |Δw/w| of other tasks."""
    size = (w.abs() + TINY).log()
    typical = train.clamp_min(SMALLEST).log().mean(dim=0) + size  # mean log|Δw|
    sides = typical.mean(dim=0) + typical.mean(dim=1, keepdim=True)
    mean_map = (train > threshold).float().mean(dim=0)
    return {"mean map": mean_map, "1/|W|": -size, "1/|W| and mean rows and columns": sides - size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libraries", nargs="+", required=True)
    parser.add_argument("--held-out", help="library of tasks that stage I has not seen")
    parser.add_argument("--checkpoint", type=Path, help="of stage I")
    parser.add_argument("--base", help="Hub id or folder; the default base if not given")
    parser.add_argument("--active", type=float, default=0.3, help="share, without a checkpoint")
    parser.add_argument("--limit", type=int, help="tasks of each library")
    parser.add_argument("--entries", type=int, default=16384, help="drawn from each module")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    text = json.dumps(Bench(o).run(), indent=1) + "\n"
    o.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
