"""Costs: steps and checks by a stored table, never by the clock."""

from hypothesis import given
from hypothesis import strategies as st

from generator.refine.costs import FEWEST_STEPS, holds_out, rate_for, steps_for
from generator.refine.held_out import held_out_sets
from generator.refine.training import RefineSettings
from library.base.batches import TokenRow

counts, budgets = st.integers(1, 200), st.floats(1, 3600)
devices = st.sampled_from(["cpu", "cuda", "other"])


def rows_of(count: int, length: int) -> list[TokenRow]:
    """Rows of so many prompt tokens that share no beginning."""
    return [TokenRow(0, [i, *[5] * (length - 1)], [6, 2]) for i in range(count)]


@given(counts, st.integers(1, 1000), budgets, devices)
def test_steps_stay_between_thirty_and_what_suits(
    count: int, length: int, budget: float, device: str
) -> None:
    rows = rows_of(count, length)
    steps, suited = steps_for(rows, device, budget), steps_for(rows, device, None)
    assert FEWEST_STEPS <= steps <= suited == max(30, min(4 * count, 120), count)
    assert steps == steps_for(rows, device, budget)
    assert steps_for(rows, device, 2 * budget) >= steps
    assert steps_for(rows_of(count, 2 * length), device, budget) <= steps
    assert steps_for(rows, "cpu", budget) <= steps_for(rows, "cuda", budget)


def test_steps_grow_with_the_examples_and_fall_with_their_length() -> None:
    assert [steps_for(rows_of(n, 9), "cpu", None) for n in (1, 8, 16, 64, 200)] == [
        30, 32, 64, 120, 200,
    ]  # fmt: skip
    assert [steps_for(rows_of(30, n), "cpu", 60.0) for n in (10, 20, 1000)] == [120, 68, 30]


@given(counts, st.integers(1, 1000), budgets, devices, st.integers(1, 2000))
def test_examples_are_held_out_where_their_training_fits_too(
    count: int, length: int, budget: float, device: str, steps: int
) -> None:
    rows, sets = rows_of(count, length), held_out_sets(count, 0)
    settings = RefineSettings(steps, lr=1e-3)
    assert holds_out(rows, sets, settings, device, None) is bool(sets)
    fits = holds_out(rows, sets, settings, device, budget)
    assert not fits or sets
    if fits:  # so do fewer steps, and a larger budget
        assert holds_out(rows, sets, RefineSettings(max(1, steps // 2), lr=1e-3), device, budget)
        assert holds_out(rows, sets, settings, device, 2 * budget)


def test_what_prompts_share_costs_once() -> None:
    apart, alike = rows_of(8, 200), [TokenRow(0, [5] * 199 + [i], [6, 2]) for i in range(8)]
    assert steps_for(apart, "cpu", 60.0) == FEWEST_STEPS < steps_for(alike, "cpu", 60.0) == 32


@given(count=st.integers(1, 200))
def test_an_instructed_start_is_trained_gently(count: int) -> None:
    rows = rows_of(count, 20)
    assert rate_for(rows, instructed=True) < rate_for(rows, instructed=False)
    more = rows_of(count + 1, 20)
    assert rate_for(more, instructed=True) >= rate_for(rows, instructed=True)
