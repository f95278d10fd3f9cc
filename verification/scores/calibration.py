"""Thresholds from scores of right and wrong, for screening, agreement and behaviour."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def area_under_curve(right: Sequence[float], wrong: Sequence[float]) -> float:
    """How often a right one scores above a wrong one; ties count half (Mann-Whitney)."""
    wins = sum((r > w) + 0.5 * (r == w) for r in right for w in wrong)
    return wins / (len(right) * len(wrong))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def share_below(score: float, quantiles: Sequence[float] | Float[Tensor, " n"]) -> float:
    """The share of a calibration set that lies below a score, by its quantiles in equal steps."""
    index = torch.searchsorted(torch.as_tensor(quantiles, dtype=torch.float64), score)
    return min(float(index) / (len(quantiles) - 1), 1.0)


def made_by(recipe: str | None) -> str:
    """Of an adapter, by the `generator` of its provenance, for a sentence."""
    return f"made by {recipe}" if recipe else "of unknown making"
