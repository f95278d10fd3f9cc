"""Backdoor screening: two scores of an adapter's spectrum, against a bank of one recipe.

The known-kind score is a logistic regression on log singular values, fitted on adapters with and
without planted backdoors, merges among both (after the five statistics of arXiv 2602.15195). It
knows the kinds that it was fitted on and no others. The outlier score is the largest robust
deviation of a module's norm from the library's profile: it sees what was scaled by hand. Both are
scores with a calibration set, never proofs: they miss what an attacker takes care to hide, and
refuse nothing. A score warns only where the bank holds: the same base, modules and recipe.
Elsewhere it is reported with no verdict, since a clean adapter of another recipe looks poisoned to
the bank (docs/screening.md has the numbers).
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from verification.checks.screening_bank import Bank
from verification.checks.spectrum import log_profile, log_spectrum, singular_values
from verification.hook import Finding
from verification.scores.calibration import FALSE_ALARMS, made_by, share_below

SCREENING_HOOK = "screening"
NOT_APPLICABLE, UNCALIBRATED = "screening-not-applicable", "screening-uncalibrated"
KNOWN_KIND, OUTLIER, QUIET = "screening-known-kind", "screening-outlier", "screening-quiet"


@dataclass(frozen=True)
class Linear:
    """The known-kind score: bias + Σ weight·(x − centre)/spread."""

    bias: float
    centre: Float[Tensor, " features"]
    spread: Float[Tensor, " features"]
    weight: Float[Tensor, " features"]

    def __call__(self, values: Float[Tensor, "n sites rank"]) -> Float[Tensor, " n"]:
        return (log_spectrum(values) - self.centre) / self.spread @ self.weight + self.bias


@dataclass(frozen=True)
class Profile:
    """The outlier score: max over modules of |x − centre| / spread, x the norms' profile."""

    centre: Float[Tensor, " sites"]
    spread: Float[Tensor, " sites"]

    def deviations(self, values: Float[Tensor, "n sites rank"]) -> Float[Tensor, "n sites"]:
        return ((log_profile(values) - self.centre) / self.spread).abs()

    def __call__(self, values: Float[Tensor, "n sites rank"]) -> Float[Tensor, " n"]:
        return self.deviations(values).amax(dim=-1)


def known_kind(bank: Bank) -> Linear:
    return Linear(bank.bias, bank.centre, bank.spread, bank.weight)


def profile(bank: Bank) -> Profile:
    return Profile(bank.profile_centre, bank.profile_spread)


def check_spectra(
    adapter: Adapter, bank: Bank, recipe: str | None, base_sha256: str | None
) -> list[Finding]:
    """Both screening scores of one adapter (n = 1) against a bank.

    Args:
        recipe: the `generator` of its provenance; None where it says nothing.
        base_sha256: of the base in its provenance.
    """
    if not bank.fits(adapter.layout):
        message = (
            f"no screening: the bank is of {len(bank.modules)} modules at rank {bank.rank} or "
            f"above, the adapter has {adapter.layout.describe()}"
        )
        return [Finding(SCREENING_HOOK, NOT_APPLICABLE, "info", message)]
    if not adapter.is_finite():
        message = "no screening: a weight is not a finite number"
        return [Finding(SCREENING_HOOK, NOT_APPLICABLE, "info", message)]
    values = bank.in_order(adapter.layout, singular_values(adapter, bank.rank))
    return _screening(values, bank, recipe, base_sha256)


def _screening(
    values: Float[Tensor, "1 sites rank"], bank: Bank, recipe: str | None, base_sha256: str | None
) -> list[Finding]:
    deviations = profile(bank).deviations(values)[0]
    worst = bank.modules[int(deviations.argmax())][0]
    kind = _Scored.of(float(known_kind(bank)(values)), bank.known_scores, bank)
    outlier = _Scored.of(float(deviations.max()), bank.outlier_scores, bank)
    evidence = {
        "known_kind": kind.evidence,
        "outlier": {**outlier.evidence, "module": worst},
        "poison": bank.poison,
    }
    scores = (
        f"known-kind score {kind}; outlier score {outlier}, largest in {worst}; calibrated on "
        f"{bank.name}; a score, no proof"
    )
    if (recipe, base_sha256) != (bank.recipe, bank.base_sha256):
        message = (
            f"the adapter is {made_by(recipe)} or on another base, for which the bank does not "
            f"hold: {scores}"
        )
        return [Finding(SCREENING_HOOK, UNCALIBRATED, "info", message, evidence)]
    warnings = []
    if kind.flagged:
        message = f"the spectrum is like that of adapters with a planted backdoor: {scores}"
        warnings.append(Finding(SCREENING_HOOK, KNOWN_KIND, "warn", message, evidence))
    if outlier.flagged:
        message = f"one module's norm stands out as in no clean adapter: {scores}"
        warnings.append(Finding(SCREENING_HOOK, OUTLIER, "warn", message, evidence))
    return warnings or [
        Finding(SCREENING_HOOK, QUIET, "info", f"nothing stands out: {scores}", evidence)
    ]


@dataclass(frozen=True)
class _Scored:
    """A score, its threshold, and the share of clean adapters below it."""

    score: float
    threshold: float
    below: float

    @classmethod
    def of(cls, score: float, clean: Float[Tensor, " 101"], bank: Bank) -> "_Scored":
        return cls(score, bank.threshold(clean, FALSE_ALARMS), share_below(score, clean))

    @property
    def flagged(self) -> bool:
        return not self.score <= self.threshold  # NaN is flagged

    @property
    def evidence(self) -> dict[str, float]:
        return {"score": self.score, "threshold": self.threshold, "clean_below": self.below}

    def __str__(self) -> str:
        return (
            f"{self.score:.2f} (above {self.below:.0%} of clean adapters; threshold "
            f"{self.threshold:.2f})"
        )
