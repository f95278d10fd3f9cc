"""One condition's product as a function of a phase, cut into adapters with break points."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from generator.models.base import Condition, Generator
from library.adapter import Adapter
from library.errors import UsageError
from library.peft.phases import require_rising


@torch.no_grad()
def phase_adapters(
    generator: Generator, condition: Condition, break_points: Sequence[float]
) -> list[Adapter]:
    """The generator's adapters at the middle of each interval between 0, the break points and 1.

    Args:
        generator: one that reads phases, in eval mode.
        condition: of n adapters; a phase in it is replaced.
        break_points: k - 1 numbers that rise strictly within (0, 1); none for a single phase.
    Returns k adapters of n rows. Raises UsageError.
    """
    require_rising(break_points)
    if not generator.phases:
        raise UsageError(f"this {generator.kind} was made without phases")
    middles = torch.tensor(interval_middles(break_points), dtype=torch.float64)
    return [generator(replace(condition, phase=t[None])) for t in middles]


def interval_middles(break_points: Sequence[float]) -> list[float]:
    """The middles of the intervals between 0, the break points and 1."""
    return [(start + end) / 2 for start, end in pairwise([0.0, *break_points, 1.0])]
