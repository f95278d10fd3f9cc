"""What reports of `lorasmith evaluate` say of adapters, as the product would expect it of them."""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generator.expected import TRAINED, group_of
from generator.strategies.multi_task import MultiTask
from training.evaluation.comparison import Row
from training.evaluation.methods import Method, parse_methods


@dataclass(frozen=True)
class Point:
    """A measured adapter: what was known of it, and the share of exact answers x 100."""

    task: str
    group: str
    share: float | None
    confidence: float | None
    score: float


def points_of(paths: Sequence[Path], base_sha256: str | None) -> list[Point]:
    """The rows that a strategy's adapter answered, in the prompt it was made for.

    Swapped descriptions and examples are no request, so they are left out, and so are several
    adapters that answer together. What `auto` chose counts as that. Exits for another base.
    """
    points = []
    for path in paths:
        report = json.loads(path.read_text())
        if report["base_sha256"] != base_sha256:
            sys.exit(f"{path} measures another base than the calibration's")
        for row, strategy in _measured(report):
            refined = row.get("refined")
            if strategy == MultiTask.name and row["usage"] == "bare" and refined is None:
                continue
            held_out = (refined or {}).get("held_out")
            group = group_of(strategy, row["usage"]) if refined is None else TRAINED
            share = held_out["right"] / held_out["of"] if held_out else None
            confidence = math.exp(-held_out["loss"]) if held_out else None
            points.append(Point(row["task"], group, share, confidence, 100 * row["strict_exact"]))
    return points


def _measured(report: dict[str, Any]) -> Iterator[tuple[Row, str]]:
    """Rows of strategies, or those of each paraphrase, and which strategy made the adapter."""
    methods = {row["method"]: parse_methods(row["method"])[0] for row in report["rows"]}
    for row in report["rows"]:
        method, cell = methods[row["method"]], f"{row['method']}, {row['mode']}"
        if not method.generates or method.suffix or method.samples > 1:
            continue
        parts = row.get("paraphrases")
        if not parts:
            yield row, _strategy(report, method, cell, row["task"])
        for number, part in enumerate(parts or [], start=1):
            numbered = f"{cell}, paraphrase {number}"
            yield {**row, **part}, _strategy(report, method, numbered, row["task"])


def _strategy(report: dict[str, Any], method: Method, cell: str, task: str) -> str:
    return report.get("chosen", {}).get(cell, {}).get(task, method.head)
