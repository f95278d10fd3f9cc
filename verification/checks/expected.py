"""The expected hook: warns of an adapter that is not expected to do its task.

The expectation stands in provenance; generator.expected says where it comes from. That an adapter
beats its rivals is no comfort to a user whose answers are wrong.
"""

from collections.abc import Mapping
from typing import Any

from verification.artifact import Artifact, Context
from verification.hook import Finding

EXPECTED_HOOK = "expected"
UNKNOWN = Finding(
    EXPECTED_HOOK,
    "expected-unknown",
    "warn",
    "nothing like it was measured, so it is not known how many answers will be right: try it on "
    "examples of the task",
)
LEAST = 100 / 3  # of 100 answers; below it a user would have to check every one


def check_expected(artifact: Artifact, context: Context) -> list[Finding]:
    """What provenance says of the answers to expect.

    Where it says nothing, an adapter that was made for a description or examples is warned of as
    well, unless examples were held out from its training: silence would be taken for a promise. So
    is one of which nothing was tested, where adapters of its kind often fail.
    """
    provenance = artifact.provenance or {}
    stated = provenance.get("expected")
    if not isinstance(stated, dict):
        asked = provenance.get("usage") and (
            provenance.get("description") or provenance.get("examples")
        )
        return [UNKNOWN] if asked and not _held_out(provenance) else []
    members = map(stated.get, ("score", "low", "high"))
    numbers = [n for n in members if isinstance(n, int | float) and 0 <= n <= 100]
    if len(numbers) < 3:
        message = "what provenance expects of the answers is not three numbers from 0 to 100"
        return [Finding(EXPECTED_HOOK, "expected-unreadable", "warn", message)]
    score, low, high = numbers
    message = (
        f"{low:.0f} to {high:.0f} of 100 answers are expected to be exactly right "
        f"({score:.0f} at best guess; {stated.get('calibration')!s:.200})"
    )
    evidence = {"score": score, "low": low, "high": high}
    if score < LEAST:
        return [Finding(EXPECTED_HOOK, "expected-low", "warn", message, evidence)]
    if low < LEAST and not _held_out(provenance):
        untested = f"{message}, as of others of its kind: of its own answers none was tested, as "
        untested += "four examples or more would allow"
        return [Finding(EXPECTED_HOOK, "expected-untested", "warn", untested, evidence)]
    return [Finding(EXPECTED_HOOK, "expected", "info", message, evidence)]


def _held_out(provenance: Mapping[str, Any]) -> bool:
    """Whether provenance has scores on examples that were left out of all training.

    Parents may have learned from the same examples.
    """
    refine = (provenance.get("details") or {}).get("refine")
    scored = isinstance(refine, dict) and bool(refine.get("held_out"))
    return scored and not provenance.get("parents")
