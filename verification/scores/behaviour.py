"""The behaviour hook: does an adapter do what its description says, or would another as well?

The loss on examples of the described task under this adapter is held against rivals: no adapter,
other tasks' adapters and their mean. An adapter that belongs to the examples beats the best of
them by a clear margin; another task's adapter does not.

The threshold comes from benchmarks/quality/behaviour_hook.py: on train tasks set aside, few
adapters of other tasks pass it. It is in nats a token of the base that it was calibrated on.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter, stack_padded, zeros
from library.base.batches import TokenRow, example_row
from library.base.decode import greedy
from library.base.example_loss import losses_under
from library.base.models import BaseModel
from library.calibration import read_calibration
from library.errors import UsageError
from library.tasks.files import Example
from library.tasks.metrics import rouge_l
from verification.artifact import ShareProgress
from verification.hook import Finding

BEHAVIOUR_HOOK = "behaviour"
FITS, UNDECIDED = "behaviour-fits", "behaviour-undecided"
NO_BETTER, UNMEASURED = "behaviour-no-better", "behaviour-unmeasured"
MAX_EXAMPLE_TOKENS = 320  # with the answer, as in training; longer ones are left out
OWN, NONE = "this adapter", "no adapter"


@dataclass(frozen=True)
class Contender:
    """An adapter with the name that evidence gives it."""

    name: str
    adapter: Adapter


@dataclass(frozen=True)
class Bounds:
    """Limits of a check, which cut the number of examples.

    Attributes:
        examples: how many at most, from the first on.
        seconds: after which no further example is begun; one is always finished.
        scored: how many are also answered greedily, for ROUGE-L.
    """

    examples: int = 16
    seconds: float = 30.0
    scored: int = 0


@dataclass(frozen=True)
class Behaviour:
    """Losses and scores on the same examples for every contender.

    Attributes:
        losses: mean over examples of the answer's cross-entropy, in nats a token, by contender;
            this adapter first.
        rouge_l: mean ROUGE-L F1 of greedy answers, by contender; empty if none were asked for.
        examples: how many the losses are means of.
        scored: how many the ROUGE-L are means of.
        too_long: examples left out for their length.
        available: examples at hand; fewer were used if the bounds cut them.
    """

    losses: dict[str, float]
    rouge_l: dict[str, float]
    examples: int
    scored: int
    too_long: int
    available: int

    @property
    def best_rival(self) -> str:
        """The name of the rival with the lowest loss."""
        rivals = [name for name in self.losses if name != OWN]
        return min(rivals, key=self.losses.__getitem__)

    @property
    def margin(self) -> float:
        """The best rival's loss less this adapter's, in nats a token."""
        return self.losses[self.best_rival] - self.losses[OWN]


def measure(
    base: BaseModel,
    adapter: Adapter,
    rivals: Sequence[Contender],
    examples: Sequence[Example],
    bounds: Bounds | None = None,
    progress: ShareProgress = lambda share: None,
) -> Behaviour:
    """Losses (and scores) of an adapter and its rivals on examples, in bare mode.

    Args:
        adapter: one adapter, for this base.
        rivals: compared with it, beside the base alone, which always is.
        examples: the first accepted answer counts for the loss, the best one for ROUGE-L.
        bounds: of examples and time.
        progress: called with the share that is done after each example. What it raises ends the
            check.
    Raises:
        UsageError: there is no example of at most 320 tokens.
    """
    bounds = bounds or Bounds()
    # 1. The examples that are short enough, and how many of them may be used.
    rows = [(example, example_row(base.tokenizer, example)) for example in examples]
    fitting = [pair for pair in rows if len(pair[1]) <= MAX_EXAMPLE_TOKENS]
    if not fitting:
        raise UsageError(
            f"there is no example of at most {MAX_EXAMPLE_TOKENS} tokens to check behaviour on"
        )
    used = fitting[: bounds.examples]
    scored = used[: bounds.scored]
    clock = _Clock(bounds.seconds, len(used) + len(scored), progress)
    # 2. Losses, then answers, example by example until time is up.
    contenders = [Contender(OWN, adapter), Contender(NONE, zeros(adapter.layout)), *rivals]
    lots = by_modules([contender.adapter for contender in contenders], base.device)
    losses = []
    for _, row in used:
        losses.append(losses_by_contender(base, lots, row))
        if clock.over():
            break
    scores = [] if clock.late else _scored(base, lots, scored, clock)
    # 3. Means.
    names = [contender.name for contender in contenders]
    return Behaviour(
        losses=_means(names, losses),
        rouge_l=_means(names, scores),
        examples=len(losses),
        scored=len(scores),
        too_long=len(rows) - len(fitting),
        available=len(rows),
    )


@dataclass(frozen=True)
class Lot:
    """Adapters of the same modules, stacked, and their indices among all contenders."""

    indices: list[int]
    adapters: Adapter


def by_modules(adapters: Sequence[Adapter], device: torch.device) -> list[Lot]:
    """Adapters stacked at the largest rank, in one lot for each set of modules."""
    indices: dict[str, list[int]] = {}
    for index, adapter in enumerate(adapters):
        indices.setdefault(adapter.layout.with_rank(1).digest, []).append(index)
    return [
        Lot(same, stack_padded([adapters[index] for index in same]).to(device))
        for same in indices.values()
    ]


def losses_by_contender(
    base: BaseModel, lots: Sequence[Lot], row: TokenRow
) -> Float[Tensor, " contenders"]:
    """The answer's mean loss (nats a token) under each adapter, in one forward for each lot."""
    losses = torch.zeros(sum(len(lot.indices) for lot in lots))
    for lot in lots:
        rows = [replace(row, owner=owner) for owner in range(len(lot.indices))]
        losses[lot.indices] = losses_under(base, lot.adapters, rows)
    return losses


def _scored(
    base: BaseModel,
    lots: Sequence[Lot],
    examples: Sequence[tuple[Example, TokenRow]],
    clock: "_Clock",
) -> list[Float[Tensor, " contenders"]]:
    """ROUGE-L of greedy answers, example by example."""
    by_example = []
    for example, row in examples:
        scores = torch.zeros(sum(len(lot.indices) for lot in lots))
        for lot in lots:
            prompts = [row.prompt] * len(lot.indices)
            answers = greedy(base, prompts, lot.adapters, range(len(prompts)))
            scores[lot.indices] = torch.tensor([rouge_l(text, example.outputs) for text in answers])
        by_example.append(scores)
        if clock.over():
            break
    return by_example


def _means(names: Sequence[str], rows: Sequence[Tensor]) -> dict[str, float]:
    if not rows:
        return {}
    return dict(zip(names, torch.stack(list(rows)).double().mean(dim=0).tolist(), strict=True))


class _Clock:
    """Counts steps, tells how far the work is, and says when time is up."""

    def __init__(self, seconds: float, steps: int, progress: ShareProgress) -> None:
        self._end = time.monotonic() + seconds
        self._steps, self._done, self._progress = steps, 0, progress
        self.late = False

    def over(self) -> bool:
        """One more step is done; whether no further one may begin."""
        self._done += 1
        self._progress(self._done / self._steps)
        self.late = time.monotonic() >= self._end
        return self.late


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
            f"calibrated on {self.tasks} train tasks, where {self.false_alarm:.0%} of other tasks' "
            "adapters exceed it"
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


def check_behaviour(
    base: BaseModel,
    adapter: Adapter,
    rivals: Sequence[Contender],
    examples: Examples,
    progress: ShareProgress = lambda share: None,
) -> Finding:
    """One finding: the adapter beats every rival clearly, or by less, or it does not.

    Arguments and errors are those of `measure`.
    """
    measured = measure(base, adapter, rivals, examples.rows, progress=progress)
    limits = behaviour_calibration()
    evidence = _evidence(measured, examples, limits, base)
    side = "below" if measured.margin >= 0 else "above"
    message = (
        f"on {measured.examples} examples the loss is {measured.losses[OWN]:.2f} nats a token, "
        f"{abs(measured.margin):.2f} {side} that of the best rival ({measured.best_rival}); the "
        f"threshold is {limits.threshold:.2f}, {limits.describe()}"
    )
    if not math.isfinite(measured.losses[OWN]):
        message = f"on {measured.examples} examples the loss is not a finite number"
    if not measured.margin > 0:  # nor is a loss that is not finite
        return Finding(BEHAVIOUR_HOOK, NO_BETTER, "warn", message, evidence)
    code = FITS if measured.margin > limits.threshold else UNDECIDED
    return Finding(BEHAVIOUR_HOOK, code, "info", message, evidence)


def unmeasured(reason: str) -> Finding:
    """Behaviour was not measured, and why; informational."""
    return Finding(BEHAVIOUR_HOOK, UNMEASURED, "info", f"behaviour was not measured: {reason}")


def _evidence(
    measured: Behaviour, examples: Examples, limits: BehaviourCalibration, base: BaseModel
) -> dict[str, Any]:
    return {
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
