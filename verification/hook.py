"""A hook, the findings that it gives, and the verdict on all of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from verification.artifact import Artifact, Context

Severity = Literal["info", "warn", "refuse"]
Verdict = Literal["accept", "warn", "refuse"]
_VERDICTS: dict[Severity, Verdict] = {"info": "accept", "warn": "warn", "refuse": "refuse"}


@dataclass(frozen=True)
class Finding:
    """One statement of a hook about an adapter.

    Attributes:
        hook: the hook's name.
        code: the reason, from a fixed set of the hook's own.
        severity: what follows from it.
        message: one sentence.
        evidence: the numbers behind it, as JSON.
    """

    hook: str
    code: str
    severity: Severity
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON, which has no NaN and no infinity: they are null in the evidence."""
        return _finite(asdict(self))


@dataclass(frozen=True)
class Hook:
    """One kind of check.

    Attributes:
        name: what findings and policies call it.
        cost: milliseconds for a rank-8 adapter of 60 modules, about (of `base`:
            the first time, as it builds the base without weights); cheap hooks run first.
        check: gives the findings, each with a code from docs/verification.md; may raise BadFile,
            which is one finding that refuses.
        sound_only: whether it needs an adapter that the format hook has not refused.
    """

    name: str
    cost: float
    check: Callable[[Artifact, Context], list[Finding]]
    sound_only: bool = True


def verdict(findings: Sequence[Finding]) -> Verdict:
    """The verdict of the gravest finding; accept if there is none."""
    gravity = list(_VERDICTS)
    return _VERDICTS[gravity[max((gravity.index(f.severity) for f in findings), default=0)]]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
