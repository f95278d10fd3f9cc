"""The behaviour hook: does an adapter do its task, and would another do it as well?

Two questions. How many examples are answered exactly right: fewer than a third is of no use to
anyone, whatever others do. And is the loss clearly below that of rivals (no adapter, other tasks'
adapters and their mean): an adapter that belongs to the examples beats the best of them by a
margin; another task's adapter does not.

The threshold comes from benchmarks/quality/behaviour_hook.py: on train tasks set aside, few
adapters of other tasks pass it. It is in nats a token of the base that it was calibrated on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from library.adapter import Adapter
from library.base.models import BaseModel
from library.base.usage import BARE, Usage
from library.calibration import read_calibration
from library.tasks.files import Example
from library.tasks.identity import examples_digest
from verification.artifact import ShareProgress
from verification.hook import Finding, Severity
from verification.scores.behaviour_contenders import NONE, OWN, Contender
from verification.scores.behaviour_measure import Behaviour, measure

BEHAVIOUR_HOOK = "behaviour"
FAILS, TRAINED_ON = "behaviour-fails", "behaviour-trained-on"
FITS, UNDECIDED = "behaviour-fits", "behaviour-undecided"
NO_BETTER, UNMEASURED = "behaviour-no-better", "behaviour-unmeasured"
LEAST_RIGHT = 3  # one of so many; below it a user would have to check every answer
LONG_ANSWER = 12  # tokens in the median; of longer answers hardly one is exactly right
REQUEST = "request"


@dataclass(frozen=True)
class BehaviourCalibration:
    """The threshold and its origin.

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
            f"calibrated with bare prompts on {self.tasks} train tasks, where "
            f"{self.false_alarm:.0%} of other tasks' adapters exceed it"
        )


@cache
def behaviour_calibration() -> BehaviourCalibration:
    """The calibration that came with the package."""
    file = Path(__file__).with_name("behaviour.json")
    return read_calibration(file, lambda data: BehaviourCalibration(**data))


@dataclass(frozen=True)
class Examples:
    """Examples and where they come from: the request, or a task with its nearness."""

    rows: Sequence[Example]
    source: str
    similarity: float | None = None


@dataclass(frozen=True)
class Origin:
    """What an adapter's provenance says that bears on its behaviour.

    Attributes:
        usage: the prompt that it is for.
        examples: digest of the examples that it was trained on; None if nobody said.
    """

    usage: Usage = BARE
    examples: str | None = None


def check_behaviour(
    base: BaseModel,
    adapter: Adapter,
    rivals: Sequence[Contender],
    examples: Examples,
    origin: Origin | None = None,
    progress: ShareProgress = lambda share: None,
) -> Finding:
    """One finding: it fails; or it beats every rival clearly, or by less, or it does not.

    Arguments and errors are those of `measure`.
    """
    origin = origin or Origin()
    measured = measure(base, adapter, rivals, examples.rows, progress=progress, usage=origin.usage)
    seen = origin.examples is not None and origin.examples == examples_digest(examples.rows)
    code, severity = _judged(measured, seen=seen)
    parts = [_count(measured)]
    if examples.source != REQUEST:
        parts.append(f"the examples are of the nearest stored task, {examples.source}")
    if code == FAILS:
        parts.append(f"fewer than one in {LEAST_RIGHT} are right")
    if seen:
        parts.append("it was trained on these very examples, which measure nothing")
    parts.append(_loss(measured))
    evidence = _evidence(measured, examples, base) | {
        "usage": origin.usage.mode,
        "trained_on_these": seen,
    }
    return Finding(BEHAVIOUR_HOOK, code, severity, "; ".join(parts), evidence)


def unmeasured(reason: str) -> Finding:
    """Behaviour was not measured, and why; informational."""
    return Finding(BEHAVIOUR_HOOK, UNMEASURED, "info", f"behaviour was not measured: {reason}")


def _judged(measured: Behaviour, *, seen: bool) -> tuple[str, Severity]:
    """Code and severity; what is wrong even on examples that were trained on is wrong."""
    if not _long(measured) and LEAST_RIGHT * measured.right[OWN] < measured.examples:
        return FAILS, "warn"
    if not measured.margin > 0:  # nor is a loss that is not finite
        return NO_BETTER, "warn"
    if seen:
        return TRAINED_ON, "info"
    return FITS if measured.margin > behaviour_calibration().threshold else UNDECIDED, "info"


def _long(measured: Behaviour) -> bool:
    """Whether answers are so long that exactness says little of them."""
    return measured.answer_tokens > LONG_ANSWER


def _count(measured: Behaviour) -> str:
    """How many answers are right, with the rivals' and those that are no label."""
    rivals = [count for name, count in measured.right.items() if name not in (OWN, NONE)]
    best = f", best rival {max(rivals)}" if rivals else ""
    text = (
        f"{measured.right[OWN]} of {measured.examples} right "
        f"(no adapter {measured.right[NONE]}{best})"
    )
    if measured.labels:
        text += f", {measured.outside} outside the labels"
    if _long(measured):
        text += f", exactly, which says little of answers of {measured.answer_tokens:.0f} tokens"
    return text


def _loss(measured: Behaviour) -> str:
    """The loss beside the best rival's, with the threshold."""
    limits = behaviour_calibration()
    if not math.isfinite(measured.losses[OWN]):
        return "the loss is not a finite number"
    side = "below" if measured.margin >= 0 else "above"
    return (
        f"the loss is {measured.losses[OWN]:.2f} nats a token, "
        f"{abs(measured.margin):.2f} {side} that of the best rival ({measured.best_rival}); the "
        f"threshold is {limits.threshold:.2f}, {limits.describe()}"
    )


def _evidence(measured: Behaviour, examples: Examples, base: BaseModel) -> dict[str, Any]:
    limits = behaviour_calibration()
    return {
        "right": measured.right,
        "answer_tokens": measured.answer_tokens,
        "labels": measured.labels,
        "outside_labels": measured.outside if measured.labels else None,
        "losses": measured.losses,
        "rouge_l": measured.rouge_l,
        "margin": measured.margin,
        "best_rival": measured.best_rival,
        "examples": measured.examples,
        "examples_given": measured.available,
        "examples_too_long": measured.too_long,
        "examples_scored": measured.scored,
        "source": examples.source,
        "similarity": examples.similarity,
        "threshold": limits.threshold,
        "calibrated_on_this_base": base.sha256 == limits.base_sha256,
        "calibration_tasks": limits.tasks,
    }
