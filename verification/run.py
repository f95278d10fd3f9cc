"""Running hooks: the quick ones, the policy that picks among them, and their report."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from library.base.models import BaseReference
from library.errors import (
    AdapterRefused,
    InputFileError,
    LorasmithError,
    UnknownName,
    UsageError,
)
from library.peft.provenance import PROVENANCE_FILE, AdapterFiles, encode_provenance
from library.peft.safetensors_file import BadFile, parse_object
from verification.artifact import Artifact, Context, read_artifact
from verification.checks.base import check_base
from verification.checks.expected import EXPECTED_HOOK, check_expected
from verification.checks.format import WRAPPED_NAMES, check_format
from verification.checks.integrity import check_integrity
from verification.checks.signature import check_signature
from verification.checks.statistics import check_statistics
from verification.checks.target import check_target
from verification.hook import Finding, Hook, Verdict, verdict

_FORMAT = Hook("format", 0.7, check_format, sound_only=False)
HOOKS: tuple[Hook, ...] = (
    _FORMAT,
    Hook("integrity", 0.3, check_integrity, sound_only=False),
    Hook(EXPECTED_HOOK, 0.1, check_expected, sound_only=False),
    Hook("signature", 1.0, check_signature, sound_only=False),
    Hook("target", 1.5, check_target),
    Hook("statistics", 2.0, check_statistics),
    Hook("base", 300.0, check_base),
)


@dataclass(frozen=True)
class Policy:
    """The hooks that run, and the severities of findings that refuse an adapter.

    A finding of severity `refuse` refuses unless none is listed, when it counts as warn; one of
    severity `warn` refuses where that is listed.

    Attributes:
        signed: whether nothing passes unsigned; a public key has to be given then.
    """

    hooks: tuple[str, ...] = tuple(hook.name for hook in HOOKS)
    refuse: tuple[str, ...] = ("refuse",)
    signed: bool = False

    def applied(self, finding: Finding) -> Finding:
        if finding.severity == "warn" and "warn" in self.refuse:
            return replace(finding, severity="refuse")
        if finding.severity == "refuse" and not self.refuse:
            return replace(finding, severity="warn")
        return finding


# What a new adapter is held to. Integrity and signature compare with a provenance, which is only
# being written.
QUICK = Policy(hooks=("format", "expected", "target", "statistics", "base"))


@dataclass(frozen=True)
class VerificationReport:
    """Every finding about an adapter, and the milliseconds of each hook, which no file holds."""

    findings: list[Finding]
    milliseconds: dict[str, float]

    @property
    def verdict(self) -> Verdict:
        return verdict(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Verdict and findings as JSON. The same adapter has the same report on every machine."""
        return {"verdict": self.verdict, "findings": [f.to_dict() for f in self.findings]}

    def require_accepted(self, name: str) -> None:
        """Raise AdapterRefused with the first reason, if there is one."""
        refusal = next((f for f in self.findings if f.severity == "refuse"), None)
        if refusal is not None:
            reason = f"{refusal.hook}/{refusal.code}: {refusal.message}"
            raise AdapterRefused(f"{name} is refused, {reason}")


@dataclass(frozen=True)
class Reported:
    """An adapter with its report, and the milliseconds of each hook, which are in no file."""

    files: AdapterFiles
    report: dict[str, Any]
    milliseconds: dict[str, float]


def read_policy(path: Path, names: tuple[str, ...] = Policy.hooks) -> Policy:
    """A policy file: JSON with lists of names, `hooks` and `refuse`, and `signed`, all optional.

    Args:
        names: of the hooks that there are.
    Raises InputFileError: it cannot be read, holds something else, checks nothing, or asks for
    signatures and lets nothing refuse.
    """
    try:
        content = parse_object(path.read_bytes(), path.name)
    except OSError as error:
        raise InputFileError(f"the policy {path} cannot be read: {error.strerror}") from error
    except BadFile as error:
        raise InputFileError(f"the policy cannot be used: {error}") from error
    allowed = {"hooks": names, "refuse": ("warn", "refuse")}
    signed = content.pop("signed", False)
    if not isinstance(signed, bool):
        raise InputFileError(f"{path}: signed must be true or false")
    for key, value in content.items():
        if key not in allowed:
            raise InputFileError(f"{path}: a policy has hooks, refuse and signed, not {key}")
        if not isinstance(value, list) or any(name not in allowed[key] for name in value):
            raise InputFileError(f"{path}: {key} must list some of {', '.join(allowed[key])}")
    lists: dict[str, Any] = {key: tuple(value) for key, value in content.items()}
    policy = Policy(**lists, signed=signed)
    if not policy.hooks:
        raise InputFileError(f"{path}: hooks is empty: nothing would be checked")
    if signed and not policy.refuse:
        raise InputFileError(f"{path}: signed refuses unsigned adapters, so refuse cannot be empty")
    return policy


def require_known_hooks(names: Iterable[str], available: Iterable[str]) -> None:
    """Raise UnknownName for a name that is no hook's."""
    available = tuple(available)
    for name in names:
        if name not in available:
            raise UnknownName(f"unknown hook '{name}'; known: {', '.join(available)}")


def require_key(policy: Policy, public_key: object | None) -> None:
    """Raise UsageError unless policy and public key go together."""
    if policy.signed and public_key is None:
        raise UsageError("the policy requires signatures; give the signer's key with --public-key")
    if public_key is not None and "signature" not in policy.hooks:
        raise UsageError("--public-key needs the hook signature, which the policy leaves out")


def verify_path(
    path: Path,
    context: Context,
    policy: Policy | None = None,
    provenance: Path | None = None,
    hooks: Sequence[Hook] = HOOKS,
) -> VerificationReport:
    """The report on what lies at `path`; arguments and errors as of `run_hooks`.

    Raises MissingPath too.
    """
    policy = policy or Policy()
    try:
        artifact = read_artifact(path, provenance)
    except BadFile as error:
        return VerificationReport([policy.applied(_refusal(_FORMAT, error))], {})
    return run_hooks(artifact, context, policy, hooks)


def run_hooks(
    artifact: Artifact, context: Context, policy: Policy, hooks: Sequence[Hook] = HOOKS
) -> VerificationReport:
    """Run the policy's hooks in the order of their cost, those that read raw bytes first.

    An adapter with a damaged format is not shown to hooks that read its tensors; the reason is
    among the findings, whether or not the policy has the format hook.

    What keeps a hook from its work is a finding, so that the others' are not lost; it is raised
    where no hook could do its work.

    Args:
        hooks: those that there are.
    """
    findings: list[Finding] = []
    if _FORMAT.name not in policy.hooks:
        findings = [f for f in _checked(_FORMAT, artifact, context) if f.severity == "refuse"]
    damaged = bool(findings)
    selected = [hook for hook in hooks if hook.name in policy.hooks]
    selected.sort(key=lambda hook: (hook.sound_only, hook.cost))
    milliseconds: dict[str, float] = {}
    failures: list[LorasmithError] = []
    for done, hook in enumerate(selected):
        context.progress(done / len(selected))
        if damaged and hook.sound_only:
            continue
        start = time.perf_counter()
        try:
            new = _checked(hook, artifact, _part(context, done, len(selected)))
        except LorasmithError as error:
            failures.append(error)
            new = [Finding(hook.name, "not-checked", "warn", f"it was not checked: {error}")]
        milliseconds[hook.name] = round(1e3 * (time.perf_counter() - start), 3)
        damaged = damaged or (hook is _FORMAT and any(f.severity == "refuse" for f in new))
        findings += new
    if failures and len(failures) == len(milliseconds):
        raise failures[0]
    context.progress(1.0)
    return VerificationReport([policy.applied(f) for f in findings], milliseconds)


class QuickCheck:
    """The check of `library.peft.provenance.finish`: what `QUICK` says of a new adapter.

    Calling it with config and weights, and with the provenance that is not encoded yet, gives the
    report; it raises AdapterRefused if a hook refuses the adapter.

    Args:
        base: its base model; None for the one that its config names, if that is at hand.
    Attributes:
        milliseconds: of each hook, once it was called; in no file.
    """

    def __init__(self, base: BaseReference | None = None) -> None:
        self._base = base
        self.milliseconds: dict[str, float] = {}

    def __call__(self, files: Mapping[str, bytes], provenance: dict[str, Any]) -> dict[str, Any]:
        report = run_hooks(Artifact(files, stated=provenance), Context(base=self._base), QUICK)
        report.require_accepted(provenance["id"])
        self.milliseconds = report.milliseconds
        return report.to_dict()


def reported(adapter: AdapterFiles, base: BaseReference | None = None) -> Reported:
    """An adapter that was just made, with the report of a QuickCheck in its provenance."""
    check = QuickCheck(base)
    content = {**adapter.provenance, "report": check(adapter.files, adapter.provenance)}
    files = {**adapter.files, PROVENANCE_FILE: encode_provenance(content)}
    checked = replace(adapter, files=files, provenance=content)
    return Reported(checked, content["report"], check.milliseconds)


def require_sound(path: Path, name: str) -> None:
    """Raise AdapterRefused if the format hook refuses the files at `path`, which are not ours.

    Names that a wrapper left are no reason: importing removes what it put there.
    """
    report = verify_path(path, Context(), Policy(hooks=(_FORMAT.name,)))
    others = [finding for finding in report.findings if finding.code != WRAPPED_NAMES]
    replace(report, findings=others).require_accepted(name)


def server_timing(milliseconds: Mapping[str, float]) -> str:
    """The value of HTTP's Server-Timing header."""
    return ", ".join(f"{name};dur={value:.3f}" for name, value in milliseconds.items())


def _part(context: Context, done: int, parts: int) -> Context:
    """The context of one of several hooks, whose progress is a part of the total."""
    return replace(context, progress=lambda share: context.progress((done + share) / parts))


def _checked(hook: Hook, artifact: Artifact, context: Context) -> list[Finding]:
    try:
        return hook.check(artifact, context)
    except BadFile as error:
        return [_refusal(hook, error)]


def _refusal(hook: Hook, error: BadFile) -> Finding:
    return Finding(hook.name, error.reason, "refuse", str(error), error.evidence)
