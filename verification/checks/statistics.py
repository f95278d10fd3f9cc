"""The statistics hook: norm, stable rank and spectral entropy of every ΔW, beside a library's.

The quantiles are those of the screening bank, which findings name as their calibration set. Nothing
here refuses: an unusual adapter may be a good one.
"""

from jaxtyping import Float
from torch import Tensor

from library.base.models import DEFAULT_BASE
from verification.artifact import Artifact, Context
from verification.checks.norms import singular_values_of
from verification.checks.spectrum import Statistics, statistics
from verification.hook import Finding
from verification.scores.bank import Bank, shipped_bank

STATISTICS_HOOK = "statistics"
MAX_RANK = 1024  # a Gram matrix has the rank's square of numbers
DIGITS = 6  # significant ones in evidence, which a report keeps for ever


def check_statistics(subject: Artifact, context: Context) -> list[Finding]:
    """How far norms, stable ranks and entropies lie outside what the library has. Raises BadFile.

    A ΔW that is zero in every module warns: the adapter changes nothing.
    """
    if subject.config is None or subject.config.get("peft_type") != "LORA":
        return []
    rank = max(a[0] for a, _ in subject.pairs.values())
    if rank > MAX_RANK:
        message = f"rank {rank} is above {MAX_RANK}: spectra are not computed"
        return [
            Finding(STATISTICS_HOOK, "statistics-not-comparable", "info", message, {"rank": rank})
        ]
    names, values = singular_values_of(subject)
    norm = values.norm(dim=-1)
    if not norm.any():
        message = "every ΔW is zero: the adapter changes nothing"
        return [Finding(STATISTICS_HOOK, "no-effect", "warn", message)]
    bank = shipped_bank()
    place = {name: position for position, name in enumerate(names)}
    differs = _difference(subject, bank)
    if differs is not None:
        message = (
            f"no comparison: the calibration set, {statistics_calibration(bank)}, is of {differs}; "
            f"‖ΔW‖ is {float(norm.min()):.3g} to {float(norm.max()):.3g} over {len(names)} modules"
        )
        evidence = {
            "norm": [_rounded(norm.min()), _rounded(norm.max())],
            "calibration": statistics_calibration(bank),
        }
        return [Finding(STATISTICS_HOOK, "statistics-not-comparable", "info", message, evidence)]
    return [compare_statistics(values[:, [place[row[0]] for row in bank.modules]], bank)]


def compare_statistics(values: Float[Tensor, "1 sites rank"], bank: Bank) -> Finding:
    """How many statistics leave the bank's central 99 %, by singular values in its order."""
    found = statistics(values)
    outside = {name: _outside(found, name, bank) for name in sorted(bank.limits)}
    count = sum(len(rows) for rows in outside.values())
    every = len(bank.limits) * len(bank.modules)
    message = (
        f"{count} of {every} statistics (norm, stable rank and spectral entropy of each module) "
        f"lie outside the central 99 % of {statistics_calibration(bank)}"
    )
    evidence = {
        "calibration": statistics_calibration(bank),
        "outside": {name: len(rows) for name, rows in outside.items()},
        "median": {name: _rounded(getattr(found, name).median()) for name in outside},
        "library_median": {name: _rounded(bank.limits[name][1].median()) for name in outside},
    }
    code = "statistics-outside" if count else "statistics-inside"
    return Finding(STATISTICS_HOOK, code, "info", message, evidence)


def statistics_calibration(bank: Bank) -> str:
    """The adapters that the limits come from: the bank's clean ones."""
    return f"{bank.clean} library adapters ({bank.recipe}, rank {bank.rank})"


def _outside(found: Statistics, name: str, bank: Bank) -> list[int]:
    """Places of the modules whose statistic is below the lowest or above the highest limit."""
    low, _, high = bank.limits[name]
    here = getattr(found, name)[0]
    return ((here < low) | (here > high)).nonzero()[:, 0].tolist()


def _difference(subject: Artifact, bank: Bank) -> str | None:
    """What the bank has that is not the adapter's, at any rank; None if they can be compared.

    The base is the one whose digest the provenance gives; without one, the config's name decides.
    """
    rows = [(name, a[1], b[0], 1) for name, (a, b) in subject.pairs.items() if len(a) == 2]
    if sorted(rows) != sorted(bank.modules):
        return "other modules"
    sha256 = subject.said("base", "sha256")
    if sha256 is not None:
        return None if sha256 == bank.base_sha256 else f"other weights of {DEFAULT_BASE}"
    named = (subject.config or {}).get("base_model_name_or_path")
    if named == DEFAULT_BASE:
        return None
    return f"{DEFAULT_BASE}, and the config names {named!s:.200}"


def _rounded(value: Tensor) -> float:
    return float(f"{float(value):.{DIGITS}g}")
