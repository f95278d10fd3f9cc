"""The expected hook: warns of an adapter that is not expected to do its task.

The expectation stands in provenance; generator.expected says where it comes from. That an adapter
beats its rivals is no comfort to a user whose answers are wrong.
"""

from verification.artifact import Artifact, Context
from verification.hook import Finding

EXPECTED_HOOK = "expected"
LEAST = 100 / 3  # of 100 answers; below it a user would have to check every one


def check_expected(artifact: Artifact, context: Context) -> list[Finding]:
    """What provenance says of the answers to expect; nothing where it says nothing."""
    stated = (artifact.provenance or {}).get("expected")
    if not isinstance(stated, dict):
        return []
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
    return [Finding(EXPECTED_HOOK, "expected", "info", message, evidence)]
