"""The probability that a result is the adapter of the task that was described.

A logistic function of the result's score and its margin: how far it lies above the best result of
another task, or below it. Its weights are `confidence.json`, which
`benchmarks/calibrate/confidence.py` makes from tasks of the train splits; and for what is found by
weights `weight_confidence.json`, which `benchmarks/calibrate/weight_confidence.py` makes from those
of them that the weight encoder has not seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from library.calibration import read_calibration

# Of a query: to descriptions; or to weights by a text, an adapter, or both.
Kind = Literal["description", "text", "adapter", "both"]
CONFIDENCE_FEATURES = ("score", "root of margin above", "margin above", "margin below")


@dataclass(frozen=True)
class ConfidenceCalibration:
    """Weights of CONFIDENCE_FEATURES, in that order."""

    bias: float
    weights: tuple[float, ...]

    def confidence(self, score: float, margin: float) -> float:
        """From 0 to 1. `score` and `margin` are cosines."""
        terms = zip(self.weights, confidence_features(score, margin), strict=True)
        return 1 / (1 + math.exp(-self.bias - sum(w * x for w, x in terms)))


def confidence_features(score: float, margin: float) -> tuple[float, float, float, float]:
    """The numbers that the logistic function is linear in."""
    above, below = max(margin, 0.0), min(margin, 0.0)
    return score, math.sqrt(above), above, below


def margins(scores: Sequence[float], tasks: Sequence[str]) -> list[float]:
    """Each result's score less the best of another task; less 0 where there is no other."""
    best: dict[str, float] = {}
    for score, task in zip(scores, tasks, strict=True):
        best[task] = max(score, best.get(task, score))
    return [
        score - max((value for name, value in best.items() if name != task), default=0.0)
        for score, task in zip(scores, tasks, strict=True)
    ]


@cache
def shipped_confidence(kind: Kind = "description") -> ConfidenceCalibration:
    """The calibration that is shipped, for the default encoder and the shipped weight encoder."""
    name = "confidence.json" if kind == "description" else "weight_confidence.json"

    def build(data: dict[str, Any]) -> ConfidenceCalibration:
        fit = data if kind == "description" else data[kind]
        weights = tuple(fit["weights"][feature] for feature in CONFIDENCE_FEATURES)
        return ConfidenceCalibration(fit["bias"], weights)

    return read_calibration(Path(__file__).with_name(name), build)
