"""The agreement hook: do an adapter's weights go with its description, by the weight encoder?

The cosine of both in the encoder's space, beside those of pairs that belong together and of pairs
that do not, all of tasks that the encoder has not seen (benchmarks/quality/agreement.py). It is
told as it is for every adapter, and warns only within the recipe that it was calibrated on: of
what a generator makes it says next to nothing. Whoever makes an adapter can make it agree with any
text, so it refuses none.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from index.encoders.weights import WeightEncoder
from library.adapter import Adapter
from library.calibration import read_calibration
from verification.hook import Finding
from verification.scores.calibration import FALSE_ALARMS, made_by, share_below
from verification.scores.neighbours import same_modules

AGREEMENT_HOOK = "agreement"
FITS, LOW, UNCALIBRATED = "agreement-fits", "agreement-low", "agreement-uncalibrated"
NOT_APPLICABLE = "agreement-not-applicable"


@dataclass(frozen=True)
class AgreementCalibration:
    """Cosines of pairs that belong together, and of pairs that do not.

    Attributes:
        checkpoint: digest of the weight encoder that gave them.
        recipe: the `generator` of provenance that they hold for.
        tasks: which the encoder had not seen.
        descriptions: of these tasks, definitions and paraphrases.
        right, wrong: quantiles 0, 0.01, ... 1 of the cosines; each task counts the same.
    """

    checkpoint: str
    recipe: str
    tasks: int
    descriptions: int
    right: tuple[float, ...]
    wrong: tuple[float, ...]

    @property
    def threshold(self) -> float:
        """The cosine that only FALSE_ALARMS in a hundred right pairs are below."""
        return self.right[FALSE_ALARMS]

    def describe(self) -> str:
        """Half a sentence for people."""
        return (
            f"calibrated on {self.descriptions} descriptions of {self.tasks} train tasks that the "
            f"encoder had not seen, with their adapters ({self.recipe})"
        )


@cache
def agreement_calibration() -> AgreementCalibration:
    """The calibration that came with the package."""

    def build(data: dict[str, Any]) -> AgreementCalibration:
        quantiles = {key: tuple(data[key]) for key in ("right", "wrong")}
        return AgreementCalibration(**{**data, **quantiles})

    return read_calibration(Path(__file__).with_name("agreement.json"), build)


def check_agreement(
    adapter: Adapter,
    description: Float[Tensor, "1 e"],
    encoder: WeightEncoder,
    recipe: str | None,
    base_sha256: str | None,
    limits: AgreementCalibration | None = None,
) -> Finding:
    """One finding: the cosine of weights and description, and where it stands.

    Args:
        adapter: one adapter.
        description: as the description encoder pools it.
        recipe: the `generator` of its provenance; None where it says nothing.
        base_sha256: of the base in its provenance.
        limits: of this encoder; those that came with the package if None.
    """
    if base_sha256 != encoder.info.base["sha256"]:
        return not_applicable("the adapter is for another base than the weight encoder")
    if not same_modules(adapter.layout, encoder.layout):
        return not_applicable("the adapter's modules are not those of the weight encoder")
    if not adapter.is_finite():
        return not_applicable("a weight is not a finite number")
    vector = encoder.encode(adapter)
    if not vector.any():
        return not_applicable("the adapter changes nothing")
    limits = limits or agreement_calibration()
    cosine = float((vector * encoder.describe(description)).sum())
    return _finding(cosine, recipe, limits)


def not_applicable(reason: str) -> Finding:
    """The finding that there is no score, and why."""
    return Finding(AGREEMENT_HOOK, NOT_APPLICABLE, "info", f"no agreement: {reason}")


def _finding(cosine: float, recipe: str | None, limits: AgreementCalibration) -> Finding:
    right, wrong = (share_below(cosine, scores) for scores in (limits.right, limits.wrong))
    message = (
        f"the cosine of weights and description is {cosine:.2f}, above {right:.0%} of pairs that "
        f"belong together and {wrong:.0%} of pairs that do not; {limits.describe()}; a score, no "
        "proof"
    )
    evidence = {
        "cosine": cosine,
        "threshold": limits.threshold,
        "right_below": right,
        "wrong_below": wrong,
        "calibration_tasks": limits.tasks,
        "checkpoint": limits.checkpoint,
    }
    if recipe != limits.recipe:
        message = (
            f"the adapter is {made_by(recipe)}, for which the calibration does not hold: {message}"
        )
        return Finding(AGREEMENT_HOOK, UNCALIBRATED, "info", message, evidence)
    if not cosine >= limits.threshold:  # NaN is low
        return Finding(AGREEMENT_HOOK, LOW, "warn", message, evidence)
    return Finding(AGREEMENT_HOOK, FITS, "info", message, evidence)
