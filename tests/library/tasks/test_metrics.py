"""Scores: ROUGE-L as the rouge-score package has it, exact match, JSON, and intervals."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from library.tasks.metrics import (
    bootstrap_ci95,
    exact_match,
    is_structured,
    json_fields,
    rouge_l,
    valid_json,
)

WORDS = st.lists(
    st.sampled_from(["the", "Cat", "sat", "cat.", "on", "42", "running", "runs"]), min_size=1
).map(" ".join)

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
OBJECTS = st.dictionaries(st.text("abc", max_size=2), SCALARS, max_size=4)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_rouge_l_is_the_packages_best_over_references(
    prediction: str, references: list[str]
) -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    best = max(scorer.score(ref, prediction)["rougeL"].fmeasure for ref in references)
    assert rouge_l(prediction, references) == best
    assert rouge_l("", references) == 0.0


def test_references_without_a_word_are_compared_raw_and_trimmed() -> None:
    for score in (rouge_l, exact_match):
        assert score(" ?! ", ["?!"]) == 1.0
        assert score("?", ["?!"]) == 0.0
        assert score("", ["?!"]) == 0.0
        assert score("!", ["word", "!"]) == 1.0
        assert score("", [""]) == 1.0
    assert exact_match("да!", ["Да"]) == 1.0
    assert rouge_l("да", ["да"]) == 0.0  # rouge-score keeps a-z and digits only


def test_exact_match_drops_case_punctuation_and_surplus_spaces() -> None:
    assert exact_match("  The  cat, SAT! ", ["the cat sat"]) == 1.0
    assert exact_match("cat", ["dog", "Cat."]) == 1.0
    assert exact_match("the cat", ["thecat"]) == 0.0
    assert exact_match("", ["cat"]) == 0.0
    assert exact_match("Да.", ["да"]) == 1.0


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | OBJECTS))
def test_what_json_writes_is_valid_and_has_its_own_fields(value: Any) -> None:
    for text in (json.dumps(value), f"  {json.dumps(value, indent=1)} \n"):
        assert valid_json(text) == json_fields(text, [json.dumps(value)]) == 1.0
        assert is_structured(text) == isinstance(value, dict | list)
    assert valid_json(f"{json.dumps(value)},") == 0.0


@given(OBJECTS, OBJECTS, st.randoms())
def test_fields_are_the_keys_whatever_their_order_and_values(a: Any, b: Any, rng: Any) -> None:
    keys = rng.sample([*a], len(a))
    same = json.dumps(dict.fromkeys(keys, "another"))
    assert json_fields(same, [json.dumps(a)]) == json_fields(same, ["{}", json.dumps(a)]) == 1.0
    assert json_fields(json.dumps(b), [json.dumps(a)]) == float(a.keys() == b.keys())
    rows, others = json.dumps([a, b]), json.dumps([b, a])
    assert json_fields(others, [rows]) == float(a.keys() == b.keys())
    assert json_fields(json.dumps([a]), [rows]) == json_fields(json.dumps(a), [rows]) == 0.0


@pytest.mark.parametrize(
    "text",
    ["", "urgent", '{"a": 1', "{'a': 1}", '{"a": NaN}', "Infinity", '{"a": 1} ok', "[" * 9999],
)
def test_what_is_no_json(text: str) -> None:
    assert valid_json(text) == json_fields(text, ['{"a": 1}', "[]"]) == 0.0
    assert not is_structured(text)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_interval_is_repeatable_and_lies_within_the_values(values: list[float]) -> None:
    low, high = bootstrap_ci95(values)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    assert [low, high] == bootstrap_ci95(values)


def test_the_interval_is_the_published_one() -> None:
    """As 2,000 draws from seed 0 gave it: other draws would change every report."""
    found = bootstrap_ci95([i * i / 900 for i in range(31)])
    assert found == pytest.approx([0.22846415770609318, 0.4471478494623654], abs=1e-9)


def test_the_interval_contains_the_mean_and_narrows_with_more_tasks() -> None:
    few = [0.1 * (i % 10) for i in range(10)]
    low, high = bootstrap_ci95(few)
    assert low < sum(few) / len(few) < high
    # Standard error of the mean, times two sides of 1.96.
    deviation = (sum((v - 0.45) ** 2 for v in few) / len(few)) ** 0.5
    assert high - low == pytest.approx(2 * 1.96 * deviation / len(few) ** 0.5, rel=0.15)
    wide = bootstrap_ci95(few * 16)
    assert wide[1] - wide[0] == pytest.approx((high - low) / 4, rel=0.15)
