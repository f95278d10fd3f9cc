"""Thresholds of the calibration scripts: the area under a curve, and quantiles."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quality.thresholds import area_under_curve, average_precision, quantile

scores = st.lists(st.integers(-9, 9).map(float), min_size=1)


@given(scores, scores)
def test_area_under_curve(right: list[float], wrong: list[float]) -> None:
    area = area_under_curve(right, wrong)
    assert 0 <= area <= 1
    assert area + area_under_curve(wrong, right) == pytest.approx(1)
    assert area == area_under_curve([2 * x + 1 for x in right], [2 * x + 1 for x in wrong])
    assert area_under_curve([99.0], wrong) == 1 and area_under_curve(right, right) == 0.5


@given(scores, scores)
def test_the_area_is_the_share_of_pairs_in_order(right: list[float], wrong: list[float]) -> None:
    points = [(a > b) + 0.5 * (a == b) for a in right for b in wrong]
    assert area_under_curve(right, wrong) == pytest.approx(sum(points) / len(points))


@given(scores, scores)
def test_average_precision(right: list[float], wrong: list[float]) -> None:
    values = torch.tensor(right + wrong)
    is_right = torch.arange(len(values)) < len(right)
    by_hand = 0.0
    for value in right:  # everything that scores at least as high has come in by then
        reached = is_right[values >= value]
        by_hand += float(reached.float().mean()) / len(right)
    assert average_precision(values, is_right) == pytest.approx(by_hand)
    order = torch.randperm(len(values))
    assert average_precision(values[order], is_right[order]) == pytest.approx(by_hand)


@given(st.lists(st.floats(-9, 9), min_size=1), st.floats(0, 1))
def test_quantile(values: list[float], share: float) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
