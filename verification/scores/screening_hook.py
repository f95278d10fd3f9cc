"""The screening hooks: an adapter's spectra and neighbours, turned into findings.

None of them refuses, as scores are no proofs, and each names its calibration set. A score warns
only where the bank holds: the same base, modules and recipe. Elsewhere it is told as it is, with
no verdict, since a clean adapter of another recipe looks poisoned to the bank
(docs/screening.md has the numbers).
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from verification.checks.spectrum import singular_values
from verification.hook import Finding
from verification.scores.bank import Bank
from verification.scores.calibration import made_by, share_below
from verification.scores.neighbours import Neighbours, distances, e_diem, same_modules
from verification.scores.screening import known_kind, profile

SCREENING, NEIGHBOURS = "screening", "neighbours"
NOT_APPLICABLE, UNCALIBRATED = "screening-not-applicable", "screening-uncalibrated"
KNOWN_KIND, OUTLIER, QUIET = "screening-known-kind", "screening-outlier", "screening-quiet"
NEAREST, COPY, E_DIEM = "neighbours-nearest", "neighbours-copy", "neighbours-e-diem"
INCOMPARABLE = "neighbours-not-comparable"
FALSE_ALARMS = 5  # of a hundred clean adapters of the bank's recipe, for each of the two scores
SAME = 5e-3  # a relative distance below this is the same ΔW, up to rounding to bfloat16


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
        return [Finding(SCREENING, NOT_APPLICABLE, "info", message)]
    if not finite(adapter):
        message = "no screening: a weight is not a finite number"
        return [Finding(SCREENING, NOT_APPLICABLE, "info", message)]
    values = bank.in_order(adapter.layout, singular_values(adapter, bank.rank))
    return _screening(values, bank, recipe, base_sha256)


def finite(adapter: Adapter) -> bool:
    """Whether every weight is a finite number."""
    return all(bool(factor.isfinite().all()) for factor in adapter.factors())


def _screening(
    values: Float[Tensor, "1 sites rank"], bank: Bank, recipe: str | None, base_sha256: str | None
) -> list[Finding]:
    deviations = profile(bank).deviations(values)[0]
    worst = bank.modules[int(deviations.argmax())][0]
    known = _Scored.of(float(known_kind(bank)(values)), bank.known_scores, bank)
    outlier = _Scored.of(float(deviations.max()), bank.outlier_scores, bank)
    evidence = {
        "known_kind": known.evidence,
        "outlier": {**outlier.evidence, "module": worst},
        "poison": bank.poison,
    }
    said = (
        f"known-kind score {known}; outlier score {outlier}, largest in {worst}; calibrated on "
        f"{bank.name}; a score, no proof"
    )
    if (recipe, base_sha256) != (bank.recipe, bank.base_sha256):
        message = (
            f"the adapter is {made_by(recipe)} or on another base, for which the bank does not "
            f"hold: {said}"
        )
        return [Finding(SCREENING, UNCALIBRATED, "info", message, evidence)]
    found = []
    if known.flagged:
        message = f"the spectrum is like that of adapters with a planted backdoor: {said}"
        found.append(Finding(SCREENING, KNOWN_KIND, "warn", message, evidence))
    if outlier.flagged:
        message = f"one module's norm stands out as in no clean adapter: {said}"
        found.append(Finding(SCREENING, OUTLIER, "warn", message, evidence))
    return found or [Finding(SCREENING, QUIET, "info", f"nothing stands out: {said}", evidence)]


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


def check_neighbours(adapter: Adapter, neighbours: Neighbours, k: int = 5) -> list[Finding]:
    """The nearest library adapters by the cosine of ΔW, and E-DIEM of the nearest one."""
    if not same_modules(adapter.layout, neighbours.adapters.layout):
        message = f"the adapter's modules are not those of {neighbours.name}"
        return [Finding(NEIGHBOURS, INCOMPARABLE, "info", message)]
    if not finite(adapter):
        message = "no neighbours: a weight is not a finite number"
        return [Finding(NEIGHBOURS, INCOMPARABLE, "info", message)]
    found = distances(adapter, neighbours.adapters, neighbours.norms)
    order = found.cosine[0].argsort(descending=True, stable=True)[:k].tolist()
    first = order[0]
    near = [
        {
            "id": neighbours.ids[row],
            "task": neighbours.tasks[row],
            "cosine": float(found.cosine[0, row]),
            "relative_distance": float(found.relative[0, row]),
        }
        for row in order
    ]
    cosine = float(found.cosine[0, first])
    closer = float((neighbours.nearest < cosine).double().mean())
    message = (
        f"the nearest is {neighbours.tasks[first]} at cosine {cosine:.3f}, nearer than "
        f"{closer:.0%} of nearest pairs within {neighbours.name}"
    )
    code = COPY if float(found.relative[0, first]) < SAME else NEAREST
    return [
        Finding(NEIGHBOURS, code, "info", message, {"nearest": near}),
        _e_diem(found.by_module[0, first], adapter, neighbours, neighbours.tasks[first]),
    ]


def _e_diem(
    distance: Float[Tensor, " sites"], adapter: Adapter, neighbours: Neighbours, task: str
) -> Finding:
    scores = e_diem(distance, neighbours.mean, neighbours.spread)
    worst = int(scores.abs().argmax())
    name = adapter.layout.sites[worst].name
    message = (
        f"E-DIEM to {task} is {float(scores.mean()):.1f} on average and "
        f"{float(scores[worst]):.1f} in {name}; 0 is an average pair within {neighbours.name}"
    )
    by_module = dict(
        zip((site.name for site in adapter.layout.sites), scores.tolist(), strict=True)
    )
    return Finding(NEIGHBOURS, E_DIEM, "info", message, {"by_module": by_module})
