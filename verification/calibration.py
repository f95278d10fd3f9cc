"""From scores of right and wrong to a threshold, and how well the scores tell them apart."""

import math
from collections.abc import Sequence


def area_under_curve(right: Sequence[float], wrong: Sequence[float]) -> float:
    """How often a right one scores above a wrong one; ties count half (Mann-Whitney)."""
    wins = sum((r > w) + 0.5 * (r == w) for r in right for w in wrong)
    return wins / (len(right) * len(wrong))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
