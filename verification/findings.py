"""What a hook has to say about an adapter, and the verdict on all of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["info", "warn", "refuse"]
Verdict = Literal["accept", "warn", "refuse"]
_VERDICTS: dict[Severity, Verdict] = {"info": "accept", "warn": "warn", "refuse": "refuse"}


@dataclass(frozen=True)
class Finding:
    """One thing that a hook found.

    Attributes:
        hook: which one.
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


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def verdict(findings: Sequence[Finding]) -> Verdict:
    """What the gravest finding says; accept if there is none."""
    gravity = list(_VERDICTS)
    return _VERDICTS[gravity[max((gravity.index(f.severity) for f in findings), default=0)]]
