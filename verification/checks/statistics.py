"""The statistics hook: norm, stable rank and spectral entropy of every ΔW, beside a library's.

The quantiles are those of the screening bank, which findings name as their calibration set. Nothing
here refuses: an unusual adapter may be a good one.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from library.base.models import DEFAULT_BASE
from verification.artifact import Artifact, Context
from verification.checks.norms import singular_values_of
from verification.checks.screening_bank import Bank, shipped_bank
from verification.checks.spectrum import Statistics, statistics
from verification.hook import Finding

STATISTICS_HOOK = "statistics"
_MAX_RANK = 1024  # a Gram matrix has the rank's square of numbers
_DIGITS = 6  # significant ones in evidence, which a report keeps for ever


def check_statistics(artifact: Artifact, context: Context) -> list[Finding]:
    """Compare norms, stable ranks and entropies with the library's. Raises BadFile.

    A ΔW that is zero in every module warns: the adapter changes nothing.
    """
    if artifact.config is None or artifact.config.get("peft_type") != "LORA":
        return []
    rank = max(a[0] for a, _ in artifact.pairs.values())
    if rank > _MAX_RANK:
        message = f"rank {rank} is above {_MAX_RANK}: spectra are not computed"
        return [_not_comparable(message, rank=rank)]
    if artifact.config.get("target_parameters"):
        return [_not_comparable("it adapts stacks of matrices, whose spectra are not computed")]
    names, values = singular_values_of(artifact)
    norm = values.norm(dim=-1)
    if not norm.any():
        message = "every ΔW is zero: the adapter changes nothing"
        return [Finding(STATISTICS_HOOK, "no-effect", "warn", message)]
    if artifact.recorded("usage", "mode") is not None:
        message = (
            "no comparison: adapters that are generated or refined differ from the library's; "
            f"‖ΔW‖ is {float(norm.min()):.3g} to {float(norm.max()):.3g} over {len(names)} modules"
        )
        return [_not_comparable(message, norm=[_rounded(norm.min()), _rounded(norm.max())])]
    bank = shipped_bank()
    position_of = {name: position for position, name in enumerate(names)}
    differs = _difference(artifact, bank)
    if differs is not None:
        message = (
            f"no comparison: the calibration set, {statistics_calibration(bank)}, is of {differs}; "
            f"‖ΔW‖ is {float(norm.min()):.3g} to {float(norm.max()):.3g} over {len(names)} modules"
        )
        evidence = {
            "norm": [_rounded(norm.min()), _rounded(norm.max())],
            "calibration": statistics_calibration(bank),
        }
        return [_not_comparable(message, **evidence)]
    return [compare_statistics(values[:, [position_of[row[0]] for row in bank.modules]], bank)]


def compare_statistics(values: Float[Tensor, "1 sites rank"], bank: Bank) -> Finding:
    """The finding on singular values in the bank's order: how many leave its central 99 %."""
    computed = statistics(values)
    outside = {name: _outside(computed, name, bank) for name in sorted(bank.limits)}
    count = sum(len(rows) for rows in outside.values())
    total = len(bank.limits) * len(bank.modules)
    message = (
        f"{count} of {total} statistics (norm, stable rank and spectral entropy of each module) "
        f"lie outside the central 99 % of {statistics_calibration(bank)}"
    )
    evidence = {
        "calibration": statistics_calibration(bank),
        "outside": {name: len(rows) for name, rows in outside.items()},
        "median": {name: _rounded(getattr(computed, name).median()) for name in outside},
        "library_median": {name: _rounded(bank.limits[name][1].median()) for name in outside},
    }
    code = "statistics-outside" if count else "statistics-inside"
    return Finding(STATISTICS_HOOK, code, "info", message, evidence)


def statistics_calibration(bank: Bank) -> str:
    """The adapters that the limits come from: the bank's clean ones."""
    return f"{bank.clean} library adapters ({bank.recipe}, rank {bank.rank})"


def _not_comparable(message: str, **evidence: Any) -> Finding:
    return Finding(STATISTICS_HOOK, "statistics-not-comparable", "info", message, evidence)


def _outside(computed: Statistics, name: str, bank: Bank) -> list[int]:
    """Places of the modules whose statistic is below the lowest or above the highest limit."""
    low, _, high = bank.limits[name]
    values = getattr(computed, name)[0]
    return ((values < low) | (values > high)).nonzero()[:, 0].tolist()


def _difference(artifact: Artifact, bank: Bank) -> str | None:
    """Words for what the bank has and the adapter lacks; None if they can be compared.

    The base is the one whose digest the provenance gives; without one, the config's name decides.
    """
    rows = [(name, a[1], b[0], 1) for name, (a, b) in artifact.pairs.items() if len(a) == 2]
    if sorted(rows) != sorted(bank.modules):
        return "other modules"
    sha256 = artifact.recorded("base", "sha256")
    if sha256 is not None:
        return None if sha256 == bank.base_sha256 else f"other weights of {DEFAULT_BASE}"
    named = (artifact.config or {}).get("base_model_name_or_path")
    if named == DEFAULT_BASE:
        return None
    return f"{DEFAULT_BASE}, and the config names {named!s:.200}"


def _rounded(value: Tensor) -> float:
    return float(f"{float(value):.{_DIGITS}g}")
