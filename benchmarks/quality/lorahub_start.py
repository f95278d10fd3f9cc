"""LoraHub's mix of library adapters as a start: trained on the examples that chose its weights.

    python -m benchmarks.quality.lorahub_start --tasks TASKS/public_heldout --library LIB \
        --device cuda --batch-size 448 --out OUT.json

Methods `lorahub:N` and `refine:lorahub:N`, for 5 and 16 train rows, bare and prompted, in a report
of `lorasmith evaluate`'s form (benchmarks/quality/join_reports.py joins them).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from generator.refine.refine import Start, refine_starts
from generator.resources import Resources
from library.adapter import Adapter
from library.base.models import BaseModel, resolve_base
from library.base.prompts import Mode
from library.base.usage import Usage
from library.store.open import open_library
from library.tasks.files import Task, read_tasks
from training.evaluation.cells import Cell, Pool, Prompts, cell_key, decode_all
from training.evaluation.evaluate import EvaluationOutcome, EvaluationPlan
from training.evaluation.library_methods import LibraryMethods
from training.evaluation.methods import Method
from training.evaluation.report import build_report, table

EXAMPLES = (5, 16)
MODES: tuple[Mode, ...] = ("bare", "prompted")


class Measurement:
    """Cells of LoraHub's adapters, before and after training."""

    def __init__(self, o: argparse.Namespace) -> None:
        self.o, self.reference = o, resolve_base(o.base)
        self.resources = Resources(open_library(o.library), device=o.device)
        self.base: BaseModel = self.resources.model(self.reference)
        retriever = self.resources.retriever(self.reference)
        self.methods = LibraryMethods(retriever, retriever)
        self.tasks = read_tasks(o.tasks)[: o.limit]
        self.pool, self.prompts = Pool(), Prompts(self.base, seed=0)
        self.cells: list[Cell] = []

    def run(self) -> dict[str, Any]:
        for count in EXAMPLES:
            name = f"lorahub:{count}"
            mixed = self.methods.adapters(name, self.tasks, self.base)
            started = [(t, a) for t, a in zip(self.tasks, mixed, strict=True) if a is not None]
            print(f"{name}: {len(started)} mixes", file=sys.stderr, flush=True)
            for mode in MODES:
                self._add(name, mode, started)
                self._add(f"refine:{name}", mode, self._refined(started, count, mode))
        decode_all(self.cells, self.base, self.pool, self.o.batch_size, lambda done, of: None)
        methods = [Method(n, n) for n in dict.fromkeys(c.method.name for c in self.cells)]
        splits = ["held-out"] * len(self.tasks)
        plan = EvaluationPlan(self.tasks, splits, methods, MODES, 0, self.o.batch_size)
        return build_report(
            plan,
            EvaluationOutcome(cells=self.cells),
            command=f"python -m benchmarks.quality.lorahub_start --tasks TASKS --library LIB "
            f"--device {self.o.device} --batch-size {self.o.batch_size} --out OUT.json",
            commit=self.o.commit,
            device=self.o.device,
            base=self.base,
        )

    def _refined(
        self, started: list[tuple[Task, Adapter]], count: int, mode: Mode
    ) -> list[tuple[Task, Adapter]]:
        """Trained on the rows that chose the weights; adapters of one layout together."""
        refined: list[tuple[Task, Adapter]] = []
        for layout in dict.fromkeys(adapter.layout.digest for _, adapter in started):
            group = [(t, a) for t, a in started if a.layout.digest == layout]
            starts = [
                Start(a, t.train[:count], Usage.of(mode, t.definition), saw_examples=True)
                for t, a in group
            ]
            results = refine_starts(self.base, starts)
            refined += [(t, r.adapter) for (t, _), r in zip(group, results, strict=True)]
        return refined

    def _add(self, name: str, mode: Mode, adapters: list[tuple[Task, Adapter]]) -> None:
        for task, adapter in adapters:
            source = self.pool.add(adapter)
            ids = self.prompts.of(task, Usage.of(mode, task.definition), 0)
            key = cell_key(self.base, ids, self.pool.digest(source))
            method = Method(name, name)
            self.cells.append(Cell(task, "held-out", method, mode, mode, source, ids, key))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", required=True, type=Path)
    parser.add_argument("--library", required=True)
    parser.add_argument("--base", default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--commit", default=None)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    report = Measurement(options).run()
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(table(report))


if __name__ == "__main__":
    main()
