"""Hooks: what one is, the quick ones, the policy that picks among them, and running them.

The slow ones, which compare with something that has to be read first, are in slow_hooks.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from library.errors import InputFileError, LorasmithError, UnknownName, UsageError
from verification.artifact import Artifact, Context, read_artifact
from verification.checks.base import check_base
from verification.checks.format import check_format
from verification.checks.header import BadFile, parse_object
from verification.checks.integrity import check_integrity
from verification.checks.signature import check_signature
from verification.checks.statistics import check_statistics
from verification.checks.target import check_target
from verification.findings import Finding

NOT_CHECKED = "not-checked"
Check = Callable[[Artifact, Context], list[Finding]]


@dataclass(frozen=True)
class Hook:
    """One kind of check.

    Attributes:
        name: what findings and policies call it.
        cost: milliseconds for a rank-8 adapter of 60 modules, about (of `base`:
            the first time, as it builds the base without weights); cheap hooks run first.
        check: gives the findings, each with a code from docs/verification.md.
        sound_only: whether it needs an adapter that the format hook has not refused.
    """

    name: str
    cost: float
    check: Check
    sound_only: bool = True


HOOKS: tuple[Hook, ...] = (
    Hook("format", 0.7, check_format, sound_only=False),
    Hook("integrity", 0.3, check_integrity, sound_only=False),
    Hook("signature", 1.0, check_signature, sound_only=False),
    Hook("target", 1.5, check_target),
    Hook("statistics", 2.0, check_statistics),
    Hook("base", 300.0, check_base),
)


@dataclass(frozen=True)
class Policy:
    """Which hooks run, and findings of which severities refuse an adapter.

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
    known = {"hooks": names, "refuse": ("warn", "refuse")}
    signed = content.pop("signed", False)
    if not isinstance(signed, bool):
        raise InputFileError(f"{path}: signed is true or false")
    for key, value in content.items():
        if key not in known:
            raise InputFileError(f"{path}: a policy has hooks, refuse and signed, not {key}")
        if not isinstance(value, list) or any(name not in known[key] for name in value):
            raise InputFileError(f"{path}: {key} is a list of some of {', '.join(known[key])}")
    chosen: dict[str, Any] = {key: tuple(value) for key, value in content.items()}
    policy = Policy(**chosen, signed=signed)
    if not policy.hooks:
        raise InputFileError(f"{path}: hooks is empty, so that nothing would be checked")
    if signed and not policy.refuse:
        raise InputFileError(f"{path}: signed refuses what is not, so refuse cannot be empty")
    return policy


def require_known_hooks(names: Iterable[str], known: Iterable[str]) -> None:
    """Raise UnknownName for a name that is no hook's."""
    known = tuple(known)
    for name in names:
        if name not in known:
            raise UnknownName(f"unknown hook '{name}'; known: {', '.join(known)}")


def require_key(policy: Policy, public_key: object | None) -> None:
    """Raise UsageError unless policy and public key go together."""
    if policy.signed and public_key is None:
        raise UsageError("the policy asks for signatures: --public-key says whose")
    if public_key is not None and "signature" not in policy.hooks:
        raise UsageError("--public-key needs the hook signature, which the policy leaves out")


def verify_path(
    path: Path,
    context: Context,
    policy: Policy | None = None,
    provenance: Path | None = None,
    times: dict[str, float] | None = None,
    hooks: Sequence[Hook] = HOOKS,
) -> list[Finding]:
    """Every finding about what lies at `path`; arguments and errors as of `run`.

    Raises MissingPath too.
    """
    policy = policy or Policy()
    try:
        subject = read_artifact(path, provenance)
    except BadFile as error:
        return [policy.applied(file_refusal("format", error))]
    return run_hooks(subject, context, policy, times, hooks)


def run_hooks(
    subject: Artifact,
    context: Context,
    policy: Policy,
    times: dict[str, float] | None = None,
    hooks: Sequence[Hook] = HOOKS,
) -> list[Finding]:
    """The policy's hooks in the order of their cost, those that read raw bytes first.

    An adapter with a damaged format is not shown to hooks that read its tensors; the reason is
    among the findings, whether or not the policy has the format hook.

    Args:
        times: takes the milliseconds that each hook took; no finding holds any.
        hooks: those that there are. What keeps one of several from its work is a
            finding too, so that the others' are not lost; of a single one it is raised.
    """
    found: list[Finding] = []
    if "format" not in policy.hooks:
        found = [f for f in _checked(HOOKS[0], subject, context) if f.severity == "refuse"]
        found = [policy.applied(finding) for finding in found]
    damaged = bool(found)
    chosen = [hook for hook in hooks if hook.name in policy.hooks]
    chosen.sort(key=lambda hook: (hook.sound_only, hook.cost))
    for done, hook in enumerate(chosen):
        context.progress(done / len(chosen))
        if damaged and hook.sound_only:
            continue
        start = time.perf_counter()
        try:
            new = _checked(hook, subject, _part(context, done, len(chosen)))
        except LorasmithError as error:
            if len(chosen) == 1:
                raise
            new = [Finding(hook.name, NOT_CHECKED, "warn", f"it was not checked: {error}")]
        if times is not None:
            times[hook.name] = round(1e3 * (time.perf_counter() - start), 3)
        damaged = damaged or (hook.name == "format" and _refused(new))
        found += [policy.applied(finding) for finding in new]
    context.progress(1.0)
    return found


def _part(context: Context, done: int, parts: int) -> Context:
    """The same for one of several hooks, whose share counts for its part of the whole."""
    return replace(context, progress=lambda share: context.progress((done + share) / parts))


def _checked(hook: Hook, subject: Artifact, context: Context) -> list[Finding]:
    try:
        return hook.check(subject, context)
    except BadFile as error:
        return [file_refusal(hook.name, error)]


def _refused(findings: Sequence[Finding]) -> bool:
    return any(finding.severity == "refuse" for finding in findings)


def file_refusal(hook: str, error: BadFile) -> Finding:
    """The finding that a BadFile amounts to."""
    return Finding(hook, error.reason, "refuse", str(error), error.evidence)
