"""Thresholds of the calibration scripts: the area under a curve, and quantiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quality.thresholds import area_under_curve, quantile

scores = st.lists(st.integers(-9, 9).map(float), min_size=1)


@given(scores, scores)
def test_area_under_curve(right: list[float], wrong: list[float]) -> None:
    area = area_under_curve(right, wrong)
    assert 0 <= area <= 1
    assert area + area_under_curve(wrong, right) == pytest.approx(1)
    assert area == area_under_curve([2 * x + 1 for x in right], [2 * x + 1 for x in wrong])
    assert area_under_curve([99.0], wrong) == 1 and area_under_curve(right, right) == 0.5


@given(st.lists(st.floats(-9, 9), min_size=1), st.floats(0, 1))
def test_quantile(values: list[float], share: float) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
