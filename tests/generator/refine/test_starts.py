"""refine_starts: what is handed out depends on the start and its examples alone, and held-out
examples are never seen by who answers them."""

from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from generator.refine import refine as refinement
from generator.refine.costs import FEWEST_STEPS
from generator.refine.held_out import FEWEST, MOST, TWO_HALVES, held_out_scores, held_out_sets
from generator.refine.refine import Start, refine_starts
from generator.refine.training import example_rows
from library.adapter import Adapter, stack
from library.base.decode import greedy
from library.base.example_loss import mean_losses, scores_under
from library.base.models import BaseModel, BaseReference, load_base
from library.base.prompts import prompt_ids
from library.base.usage import BARE, Usage
from library.errors import UsageError
from library.layout import layout_of
from library.tasks.files import Example
from library.trainer.optimiser import shared_start


def examples(count: int, kind: str = "row") -> list[Example]:
    return [Example.pair(f"{kind} {i}", "yes" if i % 3 else "no") for i in range(count)]


@pytest.fixture(scope="module")
def loaded(base: BaseReference) -> BaseModel:
    return load_base(base)


@pytest.fixture(scope="module")
def start(loaded: BaseModel) -> Adapter:
    return shared_start(layout_of(loaded.model.config, rank=4), 0)


def assert_equal(one: Adapter, other: Adapter, atol: float = 1e-6) -> None:
    others = tiny.deltas(other)
    for name, delta in tiny.deltas(one).items():
        torch.testing.assert_close(delta, others[name], atol=atol, rtol=1e-3)


@given(st.integers(1, 200), st.integers(0, 50))
def test_which_examples_are_held_out(count: int, seed: int) -> None:
    sets = held_out_sets(count, seed)
    assert sets == held_out_sets(count, seed)
    held = [i for members in sets for i in members]
    assert len({*held}) == len(held) and {*held} <= {*range(count)}  # disjoint
    if count < FEWEST:
        assert sets == []
    elif count <= TWO_HALVES:
        assert {*held} == {*range(count)} and len(sets) == 2
        assert abs(len(sets[0]) - len(sets[1])) <= 1
    else:
        assert len(sets) == 1 and len(held) == min(MOST, count // 4)
    assert all(members and count - len(members) >= 2 for members in sets)  # both can be trained on


def test_the_seed_says_which_are_held_out() -> None:
    assert len({tuple(held_out_sets(40, seed)) for seed in range(8)}) == 8


def test_what_is_handed_out_does_not_depend_on_held_out_examples(
    loaded: BaseModel, start: Adapter
) -> None:
    job = Start(start, examples(6), BARE)
    (measured,) = refine_starts(loaded, [job], steps=6)
    (unmeasured,) = refine_starts(loaded, [job], steps=6, budget=1.0)
    assert measured.held_out is not None and unmeasured.held_out is None
    assert measured.held_out.of == 6 == measured.used
    assert_equal(measured.adapter, unmeasured.adapter)


@pytest.mark.parametrize("steps", [None, 5])
def test_nor_on_other_starts(loaded: BaseModel, start: Adapter, steps: int | None) -> None:
    """Whatever their examples, their number and their length."""
    mine = Start(start, examples(4), Usage.of("prompted", "Say yes."))
    long = [replace(row, input=row.input + " and more" * 60) for row in examples(4, "long")]
    others = [Start(tiny.adapter(start.layout, seed=2).scaled(0.1), long, BARE)]
    others += [Start(start, examples(9), BARE)]
    budget = 60.0 if steps is None else None
    (alone,) = refine_starts(loaded, [mine], steps=steps, budget=budget)
    together = refine_starts(loaded, [others[0], mine, others[1]], steps=steps, budget=budget)
    assert together[1].settings == alone.settings and together[1].used == 4
    assert_equal(together[1].adapter, alone.adapter)
    found, expected = (r.held_out and vars(r.held_out) for r in (together[1], alone))
    assert found == (expected and pytest.approx(expected, abs=1e-3))
    if steps is None:
        assert together[2].settings.steps > alone.settings.steps == FEWEST_STEPS


def test_progress_counts_all_schedules_to_the_end(loaded: BaseModel, start: Adapter) -> None:
    seen: list[tuple[int, int]] = []
    jobs = [Start(start, examples(count), BARE) for count in (1, 4)]
    refine_starts(loaded, jobs, steps=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and {total for _, total in seen} == {3 * (1 + 3)}
    assert seen[-1] == (12, 12)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[list[Adapter]]:
    """The adapters that answer held-out rows, of each call."""
    seen: list[list[Adapter]] = []

    def watched(base: Any, first: Any, trained: list[Adapter], *rest: Any) -> Any:
        seen.append(list(trained))
        return held_out_scores(base, first, trained, *rest)

    monkeypatch.setattr(refinement, "held_out_scores", watched)
    return seen


@pytest.mark.parametrize("count", [4, 12])
def test_held_out_rows_are_not_seen(
    count: int, loaded: BaseModel, start: Adapter, parts: list[list[Adapter]]
) -> None:
    rows, sets = examples(count), held_out_sets(count, 0)
    planted = sets[0][0]
    other = {"yes": "no", "no": "yes"}[rows[planted].output]
    swapped = [replace(r, outputs=(other,)) if i == planted else r for i, r in enumerate(rows)]
    refined = [refine_starts(loaded, [Start(start, r, BARE)], steps=6)[0] for r in (rows, swapped)]
    before, after = parts
    assert len(before) == len(after) == len(sets)
    assert_equal(before[0], after[0])  # which leaves the planted row out
    with pytest.raises(AssertionError):  # all that see it differ
        assert_equal(refined[0].adapter, refined[1].adapter)
    for one, two in zip(before[1:], after[1:], strict=True):
        with pytest.raises(AssertionError):
            assert_equal(one, two)


def test_held_out_scores_are_those_of_each_adapter_alone(
    loaded: BaseModel, start: Adapter, parts: list[list[Adapter]]
) -> None:
    rows = [*examples(5), Example.pair("a longer one, with words", "yes it is")]
    (refined,) = refine_starts(loaded, [Start(start, rows, BARE)], steps=30)
    losses, before, right = [], [], 0
    for adapter, members in zip(parts[0], held_out_sets(6, 0), strict=True):
        for i in members:
            found, _ = mean_losses(loaded, [adapter, start], [rows[i]], 1024)
            losses.append(found[0])
            before.append(found[1])
            prompt = prompt_ids(loaded.tokenizer, rows[i].input)
            right += greedy(loaded, [prompt], adapter, [0]) == [rows[i].output]
    assert refined.held_out is not None
    assert (refined.held_out.right, refined.held_out.of) == (right, 6)
    assert refined.held_out.loss == pytest.approx(sum(losses) / 6, rel=1e-3)
    assert refined.held_out.start_loss == pytest.approx(sum(before) / 6, rel=1e-3)


def test_scores_of_rows_keep_their_order(loaded: BaseModel, start: Adapter) -> None:
    """Rows of all lengths, in more than one batch, each as it is scored alone."""
    texts = [("word " * (1 + 7 * i % 11), "yes" * (1 + i % 3)) for i in range(37)]
    rows = example_rows(loaded, [Example.pair(*pair) for pair in texts])
    adapters = stack([start, tiny.adapter(start.layout, seed=4)])
    asked = [replace(row, owner=i % 2) for i, row in enumerate(rows)]
    right, losses = scores_under(loaded, adapters, asked)
    for i, row in enumerate(asked):
        one = scores_under(loaded, adapters, [row])
        torch.testing.assert_close(losses[i : i + 1], one[1], atol=1e-4, rtol=1e-4)
        assert right[i] == one[0][0]


def test_what_was_not_measured_is_none(loaded: BaseModel, start: Adapter) -> None:
    (refined,) = refine_starts(loaded, [Start(start, examples(3), BARE)], steps=2)
    assert refined.held_out is None and refined.to_dict()["held_out"] is None
    assert refined.to_dict() == {
        "steps": 2, "lr": 1e-3, "rows": 3, "examples_used": 3, "held_out": None,
        "inputs": None,
    }  # fmt: skip
    assert held_out_scores(loaded, start, [], (), []) is None
    with pytest.raises(UsageError, match="no example has at most 1024 tokens"):
        refine_starts(loaded, [Start(start, [Example.pair("1 " * 2000, "3")], BARE)], steps=2)


def test_a_pair_that_comes_twice_is_not_held_out_from_itself(
    loaded: BaseModel, start: Adapter
) -> None:
    twice = [Example.pair("1 2", "3")] * 2
    (result,) = refine_starts(loaded, [Start(start, twice, BARE)], steps=2)
    assert result.used == 1 and result.held_out is None
