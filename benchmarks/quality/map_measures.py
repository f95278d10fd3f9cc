"""Measures of response maps: how far two agree, and how well scores find a map's entries."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from benchmarks.quality.thresholds import area_under_curve, average_precision

EDGES = tuple(10 ** (exponent / 2) for exponent in range(-10, 7))  # of the histograms of |Δw/w|
PAPER = 0.02  # the paper's threshold
SMALLEST = 1e-12  # below which |Δw| counts as this, where its logarithm is taken
DIGITS = 4
Values = dict[str, float]


def agreement(
    one: Float[Tensor, " entries"], other: Float[Tensor, " entries"], threshold: float
) -> Values:
    """How far |Δw/w| of one adapter tells the map of another, at the same entries."""
    map1, map2 = one > threshold, other > threshold
    both, either = (map1 & map2).sum(), (map1 | map2).sum()
    size = (map1.sum() * map2.sum()).double().sqrt()
    logs = torch.stack([one, other]).clamp_min(SMALLEST).log()
    return {
        "jaccard": float(both / either) if either else 0.0,
        "cosine": float(both / size) if size else 0.0,
        **ranking(one, map2),
        "correlation_of_logs": float(torch.corrcoef(logs)[0, 1]),
    }


def ranking(scores: Float[Tensor, " entries"], wanted: Bool[Tensor, " entries"]) -> Values:
    """Area under the curve and average precision; nothing if a map is full or empty."""
    if wanted.all() or not wanted.any():
        return {}
    return {
        "auroc": area_under_curve(scores[wanted], scores[~wanted]),
        "average_precision": average_precision(scores, wanted),
    }


def spread_of(changes: Float[Tensor, "n out in"], threshold: float) -> dict[str, Any]:
    """Histogram of |Δw/w| over n adapters of one module, and shares of its entries."""
    flat = changes.flatten()
    edges = torch.tensor(EDGES, device=flat.device)
    counts = torch.bincount(torch.bucketize(flat, edges), minlength=len(EDGES) + 1)
    return {
        "histogram": [round(float(count) / len(flat), DIGITS) for count in counts],
        "below_2_percent": float((flat < PAPER).double().mean()),
        "active": float((flat > threshold).double().mean()),
    }


class Means:
    """Means of named values over pairs or maps, under labels such as a group of modules."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def add(self, labels: Sequence[str], values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._found[*labels, name].append(value)

    def nested(self) -> dict[str, Any]:
        """The means by label, label by label, and over how many values each was taken."""
        report: dict[str, Any] = {}
        for path, values in self._found.items():
            at = report
            for label in path[:-1]:
                at = at.setdefault(label, {})
            at[path[-1]] = round(mean(values), DIGITS)
            at["count"] = len(values)
        return report


def averaged(reports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of reports of `spread_of`, value by value."""
    rows = list(reports)
    histogram = [mean(values) for values in zip(*(row["histogram"] for row in rows), strict=True)]
    shares = {name: mean(row[name] for row in rows) for name in ("below_2_percent", "active")}
    return {
        "histogram": [round(value, DIGITS) for value in histogram],
        **{name: round(value, DIGITS) for name, value in shares.items()},
    }
