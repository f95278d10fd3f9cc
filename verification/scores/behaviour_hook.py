"""The behaviour hook: from measured losses to a finding, by a threshold that was calibrated.

The threshold comes from benchmarks/quality/behaviour_hook.py: on train tasks set aside, few
adapters of other tasks pass it. It is in nats a token of the base that it was calibrated on.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.adapter import Adapter
from library.base.models import BaseModel
from library.tasks.files import Example
from verification.hook import Finding
from verification.scores.behaviour import OWN, Behaviour, Bounds, Contender, measure

BEHAVIOUR_HOOK = "behaviour"
FITS, UNDECIDED = "behaviour-fits", "behaviour-undecided"
NO_BETTER, UNMEASURED = "behaviour-no-better", "behaviour-unmeasured"
_CALIBRATION = Path(__file__).with_name("behaviour.json")


@dataclass(frozen=True)
class BehaviourCalibration:
    """Where the threshold comes from.

    Attributes:
        threshold: margin over the best rival, nats a token, beyond which an adapter fits.
        false_alarm: share of other tasks' adapters that exceed it, on `tasks` train tasks.
        examples: of each task.
        base_sha256: the base's weights.
    """

    threshold: float
    false_alarm: float
    tasks: int
    examples: int
    base_sha256: str

    def describe(self) -> str:
        """Half a sentence for people."""
        return (
            f"calibrated on {self.tasks} train tasks, where {self.false_alarm:.0%} of other tasks' "
            "adapters exceed it"
        )


def behaviour_calibration() -> BehaviourCalibration:
    """The calibration that came with the package."""
    return BehaviourCalibration(**json.loads(_CALIBRATION.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Examples:
    """Examples and where they come from: the request, or a task with its nearness."""

    rows: Sequence[Example]
    source: str
    similarity: float | None = None


def check_behaviour(
    base: BaseModel,
    adapter: Adapter,
    rivals: Sequence[Contender],
    examples: Examples,
    bounds: Bounds | None = None,
    progress: Callable[[float], None] | None = None,
) -> Finding:
    """One finding: the adapter beats every rival clearly, or by less, or it does not.

    Arguments and errors are those of `verification.scores.behaviour.measure`.
    """
    found = measure(base, adapter, rivals, examples.rows, bounds, progress)
    limits = behaviour_calibration()
    evidence = _evidence(found, examples, limits, base)
    side = "below" if found.margin >= 0 else "above"
    message = (
        f"on {found.examples} examples the loss is {found.losses[OWN]:.2f} nats a token, "
        f"{abs(found.margin):.2f} {side} that of the best rival ({found.best_rival}); the "
        f"threshold is {limits.threshold:.2f}, {limits.describe()}"
    )
    if not math.isfinite(found.losses[OWN]):
        message = f"on {found.examples} examples the loss is not a finite number"
    if not found.margin > 0:  # nor is a loss that is not finite
        return Finding(BEHAVIOUR_HOOK, NO_BETTER, "warn", message, evidence)
    code = FITS if found.margin > limits.threshold else UNDECIDED
    return Finding(BEHAVIOUR_HOOK, code, "info", message, evidence)


def unmeasured(reason: str) -> Finding:
    """Behaviour was not measured, and why: said, and held against nobody."""
    return Finding(BEHAVIOUR_HOOK, UNMEASURED, "info", f"behaviour was not measured: {reason}")


def _evidence(
    found: Behaviour, examples: Examples, limits: BehaviourCalibration, base: BaseModel
) -> dict[str, Any]:
    return {
        "losses": found.losses,
        "rouge_l": found.rouge_l,
        "margin": found.margin,
        "best_rival": found.best_rival,
        "examples": found.examples,
        "examples_given": found.given,
        "examples_too_long": found.too_long,
        "examples_scored": found.scored,
        "source": examples.source,
        "similarity": examples.similarity,
        "threshold": limits.threshold,
        "calibrated_on_this_base": base.sha256 == limits.base_sha256,
        "calibration_tasks": limits.tasks,
    }
