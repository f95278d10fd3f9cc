"""Thresholds from scores of right and wrong pairs, for screening, agreement and behaviour."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Scores = Sequence[float] | Float[Tensor, " n"]


def area_under_curve(right: Scores, wrong: Scores) -> float:
    """The share of pairs in which the right one scores higher; ties count half (Mann-Whitney)."""
    a, b = (torch.as_tensor(scores, dtype=torch.float64) for scores in (right, wrong))
    a, b = a[:, None], b[None]  # (n, 1), (1, m)
    return float(((a > b).double() + 0.5 * (a == b)).mean())


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    return float(np.quantile(values, share, method="inverted_cdf"))
