"""The expected hook: what provenance expects of the answers, told and never believed blindly."""

import json
from typing import Any

import pytest
from folders import sound
from hypothesis import given
from hypothesis import strategies as st

from library.peft.provenance import PROVENANCE_FILE
from verification.artifact import Artifact, Context
from verification.checks.expected import check_expected
from verification.hook import Finding
from verification.run import HOOKS, QUICK, Policy, run_hooks

SOUND = sound()


TESTED = {"refine": {"held_out": {"right": 1, "of": 5}}}


def said(expected: Any, details: Any = TESTED) -> list[Finding]:
    content = {"expected": expected, "details": details}
    files = {PROVENANCE_FILE: json.dumps(content).encode()}
    return check_expected(Artifact(files), Context())


def stated(score: Any, low: Any = 0, high: Any = 100) -> dict[str, Any]:
    return {"score": score, "low": low, "high": high, "calibration": "30 tasks"}


@given(st.floats(0, 100))
def test_it_warns_below_a_third_alone(score: float) -> None:
    (found,) = said(stated(score, 0, 90))
    low = score < 100 / 3
    assert (found.code, found.severity) == (
        ("expected-low", "warn") if low else ("expected", "info")
    )
    assert found.message.startswith("0 to 90 of 100 answers") and "30 tasks" in found.message
    assert found.evidence == {"score": score, "low": 0, "high": 90}


@given(st.floats(0, 100))
def test_untested_it_warns_where_others_of_its_kind_fail(low: float) -> None:
    (found,) = said(stated(90, low, 100), details={"refine": {"held_out": None}})
    assert found.severity == ("warn" if low < 100 / 3 else "info")
    assert found.code == ("expected-untested" if low < 100 / 3 else "expected")


@pytest.mark.parametrize("none", [None, [], "90", 90])
def test_where_nothing_is_expected_nothing_is_said(none: Any) -> None:
    assert said(none) == []
    assert check_expected(Artifact({}), Context()) == []


def test_of_an_answer_to_a_request_silence_is_told() -> None:
    def found(**more: Any) -> list[str]:
        usage = {"mode": "bare", "template": "{input}"}
        content = {"expected": None, "usage": usage, "description": "Say A.", **more}
        artifact = Artifact({PROVENANCE_FILE: json.dumps(content).encode()})
        return [f.code for f in check_expected(artifact, Context()) if f.severity == "warn"]

    assert found() == ["expected-unknown"]
    assert found(details=None) == found(details={"refine": {"held_out": None}}) == found()
    assert found(details=TESTED) == [] and found(details=TESTED, parents=["ad_0"]) == found()
    assert found(expected=stated(50, 40)) == found(description=None) == []  # a merge has none
    assert found(description=None, examples="0" * 64) == found()


@pytest.mark.parametrize("bad", ["90", None, float("nan"), float("inf"), -1, 101, 10**400, [50]])
def test_what_is_no_number_of_a_hundred_is_told(bad: Any) -> None:
    for expected in (stated(bad), stated(50, low=bad), stated(50, high=bad), {}):
        (found,) = said(expected)
        assert (found.code, found.severity) == ("expected-unreadable", "warn")


def test_it_is_among_the_quick_hooks_and_a_new_adapter_s() -> None:
    assert "expected" in [hook.name for hook in HOOKS] and "expected" in QUICK.hooks
    new = Artifact({k: v for k, v in SOUND.items() if k != PROVENANCE_FILE},
                   stated={"expected": stated(10)})  # fmt: skip
    (found,) = run_hooks(new, Context(), Policy(("expected",))).findings
    assert found.code == "expected-low"
    assert run_hooks(Artifact(SOUND), Context(), Policy(("expected",))).findings == []
