"""The report that a new adapter carries in its provenance: what the quick hooks say of its bytes.

No times and nothing of this machine: the same adapter has the same report.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.base.models import BaseReference
from library.errors import AdapterRefused
from library.peft.provenance import AdapterFiles, with_report
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, PeftFiles
from verification.artifact import Artifact, Context
from verification.findings import Finding, verdict
from verification.run import Policy, run_hooks, verify_path

# Integrity and signature compare with a provenance, which is only being written.
AT_BIRTH = Policy(hooks=("format", "target", "statistics", "base"))


def quick_report(
    peft: PeftFiles, base: BaseReference | None = None
) -> tuple[dict[str, Any], dict[str, float]]:
    """The report of the quick hooks on a new adapter, and the milliseconds of each hook.

    Raises AdapterRefused if a hook refuses it.
    """
    milliseconds: dict[str, float] = {}
    files = {CONFIG_FILE: peft.config_bytes, WEIGHTS_FILE: peft.weights}
    findings = run_hooks(Artifact(files), Context(base=base), AT_BIRTH, milliseconds)
    require_accepted(findings, "the adapter")
    return summary(findings), milliseconds


@dataclass(frozen=True)
class Reported:
    """An adapter with its report, and the milliseconds of each hook, which are in no file."""

    files: AdapterFiles
    report: dict[str, Any]
    milliseconds: dict[str, float]


def reported(made: AdapterFiles, base: BaseReference | None = None) -> Reported:
    """Check an adapter that was just made and write the report into its provenance.

    Args:
        base: its base model; None for the one that its config names, if that is at hand.
    Raises:
        AdapterRefused: a hook refuses it; it should not leave.
    """
    times: dict[str, float] = {}
    found = run_hooks(Artifact(made.files), Context(base=base), AT_BIRTH, times)
    require_accepted(found, made.id)
    report = summary(found)
    return Reported(with_report(made, report), report, times)


def require_sound(path: Path, name: str) -> None:
    """Raise AdapterRefused if the format hook refuses the files at `path`, which are not ours."""
    require_accepted(verify_path(path, Context(), Policy(hooks=("format",))), name)


def summary(findings: list[Finding]) -> dict[str, Any]:
    """Verdict and findings as JSON."""
    return {"verdict": verdict(findings), "findings": [f.to_dict() for f in findings]}


def require_accepted(findings: list[Finding], name: str) -> None:
    """Raise AdapterRefused with the first reason, if there is one."""
    refused = next((f for f in findings if f.severity == "refuse"), None)
    if refused is not None:
        raise AdapterRefused(f"{name} is refused, {refused.hook}/{refused.code}: {refused.message}")


def server_timing(milliseconds: Mapping[str, float]) -> str:
    """The value of HTTP's Server-Timing header."""
    return ", ".join(f"{name};dur={value:.3f}" for name, value in milliseconds.items())
