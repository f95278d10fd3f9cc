"""What rows of a report say about each other, and the page that shows it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.comparison import by_kind, calibration_curve, pairs, recovery
from training.evaluation.page import page
from training.evaluation.report import summaries

SCORES = st.dictionaries(
    st.sampled_from(["base", "oracle", "a", "b"]),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
    min_size=2,
)


def rows(scores: dict[str, list[float]], mode: str = "bare") -> list[dict[str, Any]]:
    return [
        {"task": f"t{i}", "split": "held-out", "kind": "new" if i % 2 else "known", "mode": mode,
         "method": method, "rouge_l": value, "exact_match": 0.0}
        for method, values in scores.items()
        for i, value in enumerate(values)
    ]  # fmt: skip


@given(SCORES)
def test_pairs_are_differences_of_means(scores: dict[str, list[float]]) -> None:
    found = pairs(rows(scores))
    assert len(found) == len(scores) * (len(scores) - 1) // 2
    for pair in found:
        expected = (sum(scores[pair["a"]]) - sum(scores[pair["b"]])) / 4
        assert pair["difference"] == pytest.approx(expected, abs=1e-12)
        low, high = pair["ci95"]
        assert low - 1e-12 <= pair["difference"] <= high + 1e-12
    assert pairs(rows(scores) + rows({"base": [0.0] * 4}, mode="prompted"))[: len(found)] == found


@given(SCORES)
def test_recovery_is_zero_at_the_base_and_one_at_the_oracle(scores: dict[str, list[float]]) -> None:
    base, oracle = scores.get("base"), scores.get("oracle")
    found = {r["method"]: r["recovery"] for r in recovery(rows(scores))}
    if base is None or oracle is None or sum(oracle) <= sum(base):
        assert not found
        return
    again = rows(scores) + rows({"like base": base, "like oracle": oracle})
    twins = {r["method"]: r["recovery"] for r in recovery(again)}
    assert twins.pop("like base") == pytest.approx(0)
    assert twins.pop("like oracle") == pytest.approx(1)
    assert twins == found


def test_kinds_split_the_held_out_tasks() -> None:
    found = {k["kind"]: k["rouge_l"] for k in by_kind(rows({"a": [0.1, 0.5, 0.3, 0.7]}))}
    assert found == {"known": pytest.approx(0.2), "new": pytest.approx(0.6)}


def test_calibration_ranks_tasks_whose_oracle_gains() -> None:
    scores = {"base": [0.0] * 4, "oracle": [1.0, 1.0, 1.0, 0.05], "a": [0.1, 0.2, 0.9, 0.0]}
    similarity = {"t0": 0.3, "t1": 0.5, "t2": 0.8, "t3": 0.9}
    (found,) = calibration_curve(rows(scores), similarity)
    assert found["spearman"] == pytest.approx(1)
    assert [p["task"] for p in found["points"]] == ["t0", "t1", "t2"]  # t3's oracle gains nothing


def test_a_page_shows_names_as_text() -> None:
    means = [{"method": "<b>", "mode": "bare", "split": "seen", "rouge_l": 0.5, "tasks": 1,
              "ci95": [0.4, 0.6], "exact_match": 0.0}]  # fmt: skip
    report = {"base": "x", "device": "cpu", "command": "a <script>", "means": means, "kinds": [],
              "rows": rows({"<b>": [0.5]}), "recovery": [], "pairs": [],
              "calibration": []}  # fmt: skip
    text = page(report)
    assert "<script>" not in text and "<b></b>" not in text and "&lt;b&gt;" in text
    assert text == page(report)


def test_a_page_has_a_table_for_every_summary() -> None:
    scores = {"base": [0.0] * 4, "oracle": [1.0] * 4, "a": [0.1, 0.2, 0.9, 0.28]}
    report = {"base": "x", "device": "cpu", "command": "c", "rows": rows(scores),
              **summaries(rows(scores), {f"t{i}": i / 4 for i in range(4)})}  # fmt: skip
    text = page(report)
    low, high = (f"{100 * x:.1f}" for x in report["means"][2]["ci95"])
    for line in (
        "<td>a</td><td>bare</td><td>held-out</td><td>4</td><td>37.0</td>"
        f"<td>{low} to {high}</td><td>0.0</td>{4 * '<td>–</td>'}</tr>",
        "<td>a</td><td>bare</td><td>held-out</td><td>37 %</td><td>4</td>",
        "<td>base - oracle</td><td>bare</td><td>held-out</td><td>-100.0</td>"
        "<td>-100.0 to -100.0</td><td>4</td>",
        "<td>a</td><td>bare</td><td>known</td><td>50.0</td>",
        "<tr><td>t2</td><td>0.0</td><td>100.0</td><td>90.0</td></tr>",
    ):
        assert line in text
    assert text.count("<svg") == 2
