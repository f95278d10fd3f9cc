"""Scores against the number of examples, from each start."""

import pytest

from benchmarks.quality.refine_curve import curves, point


@pytest.mark.parametrize(
    "method, at",
    [
        ("base", ("base", 0)),
        ("multi-task", ("multi-task", 0)),
        ("in-context", ("in-context", 3)),
        ("in-context:5", ("in-context", 5)),
        ("refine:multi-task:16", ("multi-task", 16)),
        ("refine:fresh:2", ("fresh", 2)),
        ("multi-task:5", None),
        ("multi-task:inputs-64", None),
        ("text-to-lora:written-64", None),
        ("refine:multi-task:5:gibberish", None),
        ("text-to-lora:wrong-description", None),
        ("nearest", None),
    ],
)
def test_a_method_lies_at_its_start_and_number(method: str, at: tuple[str, int] | None) -> None:
    assert point(method) == at


def test_a_curve_is_in_the_order_of_its_numbers() -> None:
    scores = {"refine:fresh:16": 0.6, "refine:fresh:5": 0.5, "text-to-lora:gibberish": 0.1}
    means = [{"method": m, "mode": "bare", "rouge_l": score} for m, score in scores.items()]
    drawn = curves({"means": means})
    assert {name: [*line.items()] for name, line in drawn.items()} == {
        "fresh, bare": [(5, 50.0), (16, 60.0)]
    }
