"""Expected scores: how many of 100 answers will be exactly right, from what a request knows.

Calibrated on tasks that nothing was trained on (benchmarks/calibrate/expected.py): a few groups of
similar requests, each with the scores that its adapters reached there. What puts a request into a
group is known before any user asks: whether it was refined, and on held-out examples how many
answers were right.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from generator.refine.refine import Refined
from generator.strategies.base import Proposal
from library.calibration import read_calibration

FILE = Path(__file__).with_name("expected.json")


@dataclass(frozen=True)
class Expected:
    """Of 100 answers, how many will be exactly right.

    Attributes:
        score: the middle of what was measured.
        low, high: four of five tasks like it lie between.
        calibration: what it was measured on.
    """

    score: float
    low: float
    high: float
    calibration: str

    def to_dict(self) -> dict[str, Any]:
        """As provenance, `--json` and REST show it."""
        return {**vars(self)}


@cache
def _calibration(file: Path = FILE) -> dict[str, Any]:
    """The calibration that ships. Raises CheckpointError if it is missing or damaged."""
    return read_calibration(file, lambda data: data)


def expectation(proposal: Proposal) -> Expected | None:
    """What to expect of a proposal's answers; None where nothing like it was measured."""
    return expectation_of(proposal.chosen.strategy, proposal.refined)


def expectation_of(strategy: str, refined: Refined | None) -> Expected | None:
    """The same, from the strategy's name and what its training gave."""
    return None
