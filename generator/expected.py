"""Expected scores: how many of 100 answers will be exactly right, from what a request knows.

Calibrated on tasks that nothing was trained on (benchmarks/calibrate/expected.py). Where examples
were held out, the expectation is linear in the share of them that were right and in the probability
of a right answer's token; where none were, it is that of the strategy.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from generator.refine.refine import Refined
from generator.strategies.base import Proposal
from library.calibration import read_calibration

FILE = Path(__file__).with_name("expected.json")  # of the default base
FILES = (FILE, Path(__file__).with_name("expected-qwen2.5-coder-0.5b.json"))
TRAINED = "trained"  # the group of what was trained on examples of which none was held out
LEAST_POINTS = 20  # measured adapters that a group needs


@dataclass(frozen=True)
class ScoreRange:
    """Of 100 answers, how many were exactly right: mean, and where four of five tasks lie."""

    score: float
    low: float
    high: float


@dataclass(frozen=True)
class ScoreFit:
    """score = intercept + share · (share right) + confidence · exp(-loss), and its spread.

    Attributes:
        low, high: residuals between which four of five tasks lie.
    """

    intercept: float
    share: float
    confidence: float
    low: float
    high: float


@dataclass(frozen=True)
class Expected(ScoreRange):
    """Of 100 answers, how many will be exactly right: best guess, and four of five tasks like it.

    Attributes:
        calibration: what it was measured on.
    """

    calibration: str

    def to_dict(self) -> dict[str, Any]:
        """As provenance, `--json` and REST show it."""
        return {**vars(self)}


@dataclass(frozen=True)
class _Calibration:
    """Of one base.

    Attributes:
        held_out: None where too few adapters with held-out examples were measured.
        checkpoints: of the strategies that have one.
    """

    held_out: ScoreFit | None
    groups: dict[str, ScoreRange]
    calibration: str
    checkpoints: dict[str, str]


def expectation(proposal: Proposal, base_sha256: str | None) -> Expected | None:
    """What to expect of a proposal's answers; None where nothing like it was measured.

    Args:
        base_sha256: of the base's weights.
    """
    if proposal.refined is not None:
        return expectation_after(proposal.refined, base_sha256)
    strategy, known = proposal.chosen.strategy, _calibrations().get(base_sha256)
    if known is None or proposal.saw_examples or strategy not in known.checkpoints:
        return None
    if proposal.checkpoint != known.checkpoints[strategy]:
        return None
    return _expected(known, known.groups.get(group_of(strategy, proposal.usage.mode)))


def expectation_after(refined: Refined, base_sha256: str | None) -> Expected | None:
    """The same of an adapter that was trained on examples, by what the held-out ones say.

    None where a teacher's answers were learned: nothing like it was measured.
    Raises CheckpointError if the calibration is missing or damaged.
    """
    scores, known = refined.held_out, _calibrations().get(base_sha256)
    if refined.taught is not None or known is None:
        return None
    if scores is None:
        return _expected(known, known.groups.get(TRAINED))
    if known.held_out is None:
        return None
    share, confidence = scores.right / scores.of, math.exp(-scores.loss)
    return _expected(known, predicted(known.held_out, share, confidence))


def group_of(strategy: str, mode: str) -> str:
    """The group of what was not trained on examples: a strategy and the mode of its prompts."""
    return f"{strategy}, {mode}"


def _expected(known: _Calibration, found: ScoreRange | None) -> Expected | None:
    return None if found is None else Expected(**vars(found), calibration=known.calibration)


def predicted(fit: ScoreFit, share: float, confidence: float) -> ScoreRange:
    """The expectation where examples were held out.

    Args:
        share: of them answered exactly right, 0 to 1.
        confidence: exp(-loss), the geometric mean of the right tokens' probabilities.
    """
    score = fit.intercept + fit.share * share + fit.confidence * confidence
    return ScoreRange(*(_percent(score + spread) for spread in (0.0, fit.low, fit.high)))


def _percent(value: float) -> float:
    return round(min(100.0, max(0.0, value)), 1)


@cache
def _calibrations() -> dict[str | None, _Calibration]:
    """Those that ship, by the digest of their base's weights.

    Raises CheckpointError if one is missing or damaged.
    """
    return dict(read_calibration(file, _calibration) for file in FILES)


def _calibration(data: dict[str, Any]) -> tuple[str, _Calibration]:
    fit = data["held_out"]
    known = _Calibration(
        None if fit is None else ScoreFit(**fit),
        {name: ScoreRange(**group) for name, group in data["groups"].items()},
        data["calibration"],
        dict(data["checkpoints"]),
    )
    return data["base_sha256"], known
