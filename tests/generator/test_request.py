"""Requests with examples: what is trained on, and what is refused in one sentence."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.refine.limits import MAX_BUDGET, MAX_EXAMPLES, MAX_STEPS, require_trainable
from generator.request import Query, Request
from generator.resources import Resources
from library.base.models import BaseReference
from library.errors import UsageError
from library.tasks.files import Example

TASK = "Say yes."
pairs = st.dictionaries(st.text(max_size=4), st.text("abc", min_size=1), min_size=1, max_size=6)


def rows(*texts: tuple[str, str]) -> tuple[Example, ...]:
    return tuple(Example.pair(*text) for text in texts)


ROWS = rows(("a", "yes"), ("b", "no"))


@given(pairs, st.sampled_from([None, 0, 1, MAX_STEPS]), st.sampled_from([None, TASK]))
def test_examples_are_trained_on_unless_there_are_no_steps(
    few: dict[str, str], steps: int | None, description: str | None
) -> None:
    examples = rows(*few.items())
    request = Request(description, examples=examples, refine=steps)
    assert request.refines is (steps != 0) and request.examples_digest
    assert Request(TASK).refines is False and Request(TASK, refine=0).refines is False
    require_trainable(examples * 2, steps or None)  # the same row twice is no contradiction


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"refine": 5}, "refine needs examples"),
        ({"refine": -1, "examples": ROWS}, "a number of steps, or 0, not -1"),
        ({"refine": MAX_STEPS + 1, "examples": ROWS}, f"from 1 to {MAX_STEPS}"),
        ({"examples": rows(("a", "yes"), ("a", "no"))}, "answer one input differently: 'a'"),
        ({"examples": rows(("a", " \n"))}, "an empty answer"),
        ({"examples": ROWS[:1] * (MAX_EXAMPLES + 1)}, f"at most {MAX_EXAMPLES} examples, not 201"),
        ({"budget": 0.99}, f"from 1 to {MAX_BUDGET:g} seconds"),
        ({"budget": MAX_BUDGET + 1}, "budget must be"),
        ({"budget": float("nan")}, "budget must be"),
        ({"budget": float("-inf")}, "budget must be"),
        ({"description": None}, "a description is needed, or examples"),
        ({"description": " ", "examples": ROWS}, "the description is empty"),
    ],
)
def test_what_cannot_be_made_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        Request(**{"description": TASK, **wrong})
    assert "\n" not in str(caught.value)


def test_what_is_not_trained_on_may_contradict_itself() -> None:
    contradicting = rows(("a", "yes"), ("a", "no"), ("b", ""))
    assert Request(TASK, examples=contradicting, refine=0).refines is False
    for budget in (1.0, MAX_BUDGET):
        assert Request(TASK, examples=ROWS * 100, budget=budget).refines


def test_without_a_description_nothing_is_near(base: BaseReference) -> None:
    query = Query(Request(None, examples=ROWS), base, Resources())
    assert query.neighbours == [] and query.similarity is None
    for needed in (lambda: query.description, query.embeddings, query.require_neighbours):
        with pytest.raises(UsageError, match="a description is needed"):
            needed()
