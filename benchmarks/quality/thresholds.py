"""Thresholds and ranking measures from scores of right and wrong, of pairs or of entries."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

Scores = Sequence[float] | Float[Tensor, " n"]


def area_under_curve(right: Scores, wrong: Scores) -> float:
    """The share of pairs in which the right one scores higher; ties count half (Mann-Whitney)."""
    a, b = (torch.as_tensor(scores, dtype=torch.float64) for scores in (right, wrong))
    ordered = b.sort().values
    below, reached = (torch.searchsorted(ordered, a, right=side) for side in (False, True))
    return float((below + reached).double().mean() / (2 * len(b)))


def average_precision(scores: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> float:
    """Mean precision at the right ones, best score first; equal scores come in together."""
    order = scores.argsort(descending=True)
    found = right[order].double().cumsum(dim=0)  # right ones among the first so many
    last = torch.ones_like(right)  # of each run of equal scores
    last[:-1] = scores[order].diff() != 0
    found, count = found[last], last.nonzero()[:, 0] + 1
    new = found.diff(prepend=found.new_zeros(1))
    return float((found / count * new).sum() / found[-1])


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    return float(np.quantile(values, share, method="inverted_cdf"))
