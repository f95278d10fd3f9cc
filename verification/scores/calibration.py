"""A score's place in its calibration set, for screening and agreement."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

FALSE_ALARMS = 5  # of a hundred right ones (pairs, clean adapters) that a threshold warns of


def share_below(score: float, quantiles: Sequence[float] | Float[Tensor, " n"]) -> float:
    """The share of a calibration set that lies below a score, by its quantiles in equal steps."""
    index = torch.searchsorted(torch.as_tensor(quantiles, dtype=torch.float64), score)
    return min(float(index) / (len(quantiles) - 1), 1.0)


def made_by(recipe: str | None) -> str:
    """Words for an adapter's maker, by the `generator` of its provenance."""
    return f"made by {recipe}" if recipe else "of unknown origin"
