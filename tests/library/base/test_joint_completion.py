"""Answers that are decoded together: each is the one that it is alone, and harms no other."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from library.adapter import Adapter
from library.base.completion import Choices, Decoding, Token
from library.base.joint_completion import (
    MOST_ROWS,
    MOST_TOKENS,
    CompletionBatch,
    CompletionRow,
    _line,
    complete,
)
from library.base.models import BaseModel, load_base, resolve_base
from library.base.multi_adapter import adapted
from library.base.sampling import Sampling
from library.base.turns import turn
from library.errors import LayoutMismatch
from library.layout import layout_of

NEW = 10
CHOICES = ["yes", "no", "not at all"]


@dataclass(frozen=True)
class Asked:
    """A request: tokens of its prompt, which adapter, how it is decoded."""

    length: int
    adapter: int
    how: int
    seed: int


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> BaseModel:
    return load_base(resolve_base(str(tiny_base)))


@pytest.fixture(scope="module")
def exact(tiny_base: Path) -> BaseModel:
    """In float64, in which no two tokens come as close as rounding."""
    return load_base(resolve_base(str(tiny_base)), dtype=torch.float64)


@pytest.fixture(scope="module")
def endless(endless_base: Path) -> BaseModel:
    return load_base(resolve_base(str(endless_base)))


@pytest.fixture(scope="module")
def adapters(base: BaseModel) -> list[Adapter | None]:
    """None, two of one layout, one of other modules and mixed ranks."""
    usual = layout_of(base.model.config, rank=3)
    other = layout_of(base.model.config, ["v_proj", "down_proj"])
    other = tiny.with_ranks(other, [5, 2])
    made = [tiny.adapter(layout, seed=i) for i, layout in enumerate((usual, usual, other))]
    return [None, *made]


def decoding(base: BaseModel, asked: Asked) -> Decoding:
    drawn = Sampling(1.3, torch.Generator().manual_seed(asked.seed))
    return [
        Decoding(NEW, top=2),
        Decoding(1 + asked.seed % NEW, drawn),
        Decoding(NEW, drawn, top_p=0.8, top=1),
        Decoding(1, drawn, choices=Choices.of(base, CHOICES)),
    ][asked.how]


def row_of(base: BaseModel, adapters: Sequence[Adapter | None], asked: Asked) -> CompletionRow:
    (prompt,) = tiny.prompts([asked.length], len(base.tokenizer))
    prompt = [(token + asked.seed) % 4000 + 3 for token in prompt]
    return CompletionRow(base, prompt, adapters[asked.adapter], decoding(base, asked))


def answered(base: BaseModel, adapters: Sequence[Adapter | None], asked: Asked) -> list[Token]:
    """What it is alone."""
    found: list[Token] = []
    row, like = row_of(base, adapters, asked), decoding(base, asked)
    complete(base, row.ids, row.adapter, like, lambda token: not found.append(token))
    return found


def close(found: Sequence[Token], expected: Sequence[Token], within: float) -> bool:
    """The same tokens; log-probabilities up to rounding."""
    assert [token.id for token in found] == [token.id for token in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=within)
        assert [i for i, _ in one.top] == [i for i, _ in other.top]
        assert [p for _, p in one.top] == pytest.approx([p for _, p in other.top], abs=within)
    return True


@torch.inference_mode()
def run(batch: CompletionBatch, rows: Sequence[CompletionRow] = ()) -> None:
    """Let rows join, and decode until all are over."""
    for row in rows:
        batch.join(row)
    while batch.going():
        batch.decode(until=lambda: False)


REQUESTS = st.builds(
    Asked, st.integers(1, 20), st.integers(0, 3), st.integers(0, 3), st.integers(0, 99)
)


@settings(max_examples=25)
@given(st.lists(st.tuples(REQUESTS, st.integers(0, NEW)), min_size=2, max_size=7))
def test_an_answer_does_not_depend_on_the_others_nor_on_when_they_join(
    exact: BaseModel, adapters: list[Adapter | None], asked: list[tuple[Asked, int]]
) -> None:
    """Rows join at their step, the first at once; all that one batch has room for."""
    batch, rows = CompletionBatch(exact), [row_of(exact, adapters, one) for one, _ in asked]
    times = [0, *(time for _, time in asked[1:])]
    with torch.inference_mode():
        for step in range(NEW + 1):
            for row, time in zip(rows, times, strict=True):
                if time == step:
                    assert batch.takes(row)
                    batch.join(row)
            if batch.going():
                batch.decode(until=lambda: True)  # one step
    run(batch)
    for row, (one, _) in zip(rows, asked, strict=True):
        assert close([*row], answered(exact, adapters, one), 1e-9)


@contextmanager
def forwards(base: BaseModel) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the token ids of every forward pass inside the block."""
    shapes: list[tuple[int, ...]] = []

    def note(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        shapes.append(tuple(given["input_ids"].shape))

    handle = base.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield shapes
    finally:
        handle.remove()


def at_once(base: BaseModel, asks: Sequence[Callable[[], Any]]) -> list[Any]:
    """What is asked by a thread each while something else has the base's turn, and then answered.

    An error is returned.
    """
    with ThreadPoolExecutor(len(asks)) as pool:
        with turn(base.model):
            waiting = [pool.submit(ask) for ask in asks]
            _until(lambda: len(_line(base.model)._waiting) == len(asks))
        return [each.exception() or each.result() for each in waiting]


def _until(true: Callable[[], bool]) -> None:
    done = threading.Event()
    for _ in range(1000):
        if true():
            return
        done.wait(0.01)
    raise AssertionError("it has not come to be true")


def test_threads_are_answered_together_as_if_alone(
    base: BaseModel, adapters: list[Adapter | None]
) -> None:
    asked = [Asked(3 + 2 * i, i % 4, i % 3, i) for i in range(7)]
    with forwards(base) as alone:
        expected = [answered(base, adapters, one) for one in asked]
    with forwards(base) as together:
        found = at_once(base, [lambda one=one: answered(base, adapters, one) for one in asked])
    for one, other in zip(found, expected, strict=True):
        assert close(one, other, 1e-4)
    assert all(rows == 1 for rows, _ in alone)
    prompts = sorted(length for rows, length in together if length > 1)
    assert prompts == sorted(one.length for one in asked)  # each is read alone, and once
    assert max(rows for rows, _ in together) > 4 and len(together) < 0.7 * len(alone)
    assert not any(module._forward_hooks for module in base.model.modules())


def test_what_goes_wrong_with_one_harms_no_other(
    base: BaseModel, adapters: list[Adapter | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    well = [Asked(5 + i, i, 0, i) for i in range(4)]
    expected = [answered(base, adapters, one) for one in well]
    deep = tiny.adapter(layout_of(tiny.config("llama", num_hidden_layers=3)))

    def fails(_: Token) -> bool:
        raise OverflowError("in following")

    asks: list[Callable[[], Any]] = [
        *(lambda one=one: answered(base, adapters, one) for one in well),
        lambda: complete(base, [5, 6], None, Decoding(NEW), fails),
        lambda: complete(base, [5, 6], deep, Decoding(NEW), lambda _: True),
        lambda: complete(base, [10**6], None, Decoding(NEW), lambda _: True),  # no such token
    ]
    found = at_once(base, asks)
    assert all(close(one, other, 1e-4) for one, other in zip(found, expected, strict=False))
    kinds = [type(error) for error in found[4:]]
    assert kinds == [OverflowError, LayoutMismatch, IndexError]


def test_a_row_whose_choice_fails_in_the_midst_goes_alone(endless: BaseModel) -> None:
    rows = [CompletionRow(endless, [5, 6 + i], None, Decoding(NEW)) for i in range(3)]
    batch, take = CompletionBatch(endless), rows[1].take

    def fails(logits: torch.Tensor) -> None:
        if len(rows[1].ids) == 4:
            raise OverflowError("in choosing")
        take(logits)

    rows[1].take = fails  # type: ignore[method-assign]
    run(batch, rows)
    assert len([*rows[0]]) == len([*rows[2]]) == NEW
    with pytest.raises(OverflowError, match="in choosing"):
        list(rows[1])


def test_a_model_that_fails_ends_its_batch_and_the_next_is_answered(
    endless: BaseModel, adapters: list[Adapter | None]
) -> None:
    asked = [Asked(4 + i, i, 0, i) for i in range(3)]
    expected = [answered(endless, adapters, one) for one in asked]

    def no_memory(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        if len(given["input_ids"]) > 1:
            raise RuntimeError("out of memory")

    handle = endless.model.register_forward_pre_hook(no_memory, with_kwargs=True)
    found = at_once(endless, [lambda one=one: answered(endless, adapters, one) for one in asked])
    assert all(isinstance(error, RuntimeError) for error in found)
    handle.remove()
    found = at_once(endless, [lambda one=one: answered(endless, adapters, one) for one in asked])
    assert all(close(one, other, 1e-4) for one, other in zip(found, expected, strict=True))


def test_who_leaves_frees_a_row_of_the_batch(endless: BaseModel) -> None:
    taken = threading.Event()

    def leaves(_: Token) -> bool:
        taken.wait(10)
        return False

    found: list[Token] = []

    def follow(token: Token) -> bool:
        found.append(token)
        if len(found) == 20:
            taken.set()
        return True

    with forwards(endless) as shapes:
        asks = [
            lambda: complete(endless, [5, 6], None, Decoding(200), leaves),
            lambda: complete(endless, [7, 8], None, Decoding(200), follow),
        ]
        at_once(endless, asks)
    rows = [rows for rows, _ in shapes]
    assert len(found) == 200 and rows.count(2) >= 15  # until the first one leaves
    assert rows.count(2) < 150 and rows[-1] == 1


def test_hooks_of_its_own_act_on_an_answer_alone_and_hold_up_nobody(
    endless: BaseModel, adapters: list[Adapter | None]
) -> None:
    hooks = partial(adapted, adapter=adapters[1], rows=torch.tensor([0]))  # no other row fits

    def under(acting: Any, most: int = NEW) -> list[int]:
        found: list[int] = []

        def follow(token: Token) -> bool:
            found.append(token.id)
            return len(found) < most  # the last time it leaves

        complete(endless, [5, 6, 7], acting, Decoding(200), follow)
        return found

    expected = [under(adapters[1]), under(adapters[1], 3), under(None), under(adapters[2])]
    asks = [
        lambda: under(hooks),
        lambda: under(hooks, 3),
        lambda: under(None),
        lambda: under(adapters[2]),
    ]
    with forwards(endless) as shapes:
        assert at_once(endless, asks * 2) == expected * 2
    assert len(shapes) < 8 * 2 * NEW  # who left was not answered to the end
    with turn(endless.model):
        assert not any(module._forward_hooks for module in endless.model.modules())
    for pair in ((hooks, None), (None, hooks)):
        batch = CompletionBatch(endless)
        first, second = (CompletionRow(endless, [5], acting, Decoding(NEW)) for acting in pair)
        with torch.inference_mode():
            batch.join(first)
        assert not batch.takes(second)


def test_a_batch_is_bounded_by_rows_and_by_tokens_with_their_padding(endless: BaseModel) -> None:
    def row(length: int, new: int) -> CompletionRow:
        return CompletionRow(endless, [5] * length, None, Decoding(new))

    batch = CompletionBatch(endless)
    assert batch.takes(row(1, 2 * MOST_TOKENS))  # by itself
    with torch.inference_mode():
        for _ in range(MOST_ROWS):
            assert batch.takes(row(2, 5))
            batch.join(row(2, 5))
        assert not batch.takes(row(2, 5))
        batch = CompletionBatch(endless)
        batch.join(row(2, 5))
        assert batch.takes(row(2, MOST_TOKENS // 2 - 2))
        assert not batch.takes(row(2, MOST_TOKENS // 2 - 1))


def test_more_than_fit_are_answered_too(endless: BaseModel) -> None:
    asked = [Asked(2 + i % 5, 0, 0, i) for i in range(MOST_ROWS + 4)]
    expected = [answered(endless, [None], one) for one in asked]
    with forwards(endless) as shapes:
        found = at_once(endless, [lambda one=one: answered(endless, [None], one) for one in asked])
    assert all(close(one, other, 1e-4) for one, other in zip(found, expected, strict=True))
    assert max(rows for rows, _ in shapes) == MOST_ROWS


def test_who_waits_for_the_turn_gets_it_before_later_requests_join(endless: BaseModel) -> None:
    order: list[str] = []
    begun, waits = threading.Event(), turn(endless.model)

    def first(_: Token) -> bool:
        begun.set()
        return True

    def verify() -> None:
        with waits:
            order.append("turn")

    def later(_: Token) -> bool:
        order.append("later")
        return False

    long = threading.Thread(target=lambda: complete(endless, [5, 6], None, Decoding(250), first))
    long.start()
    begun.wait(10)
    verifying = threading.Thread(target=verify)
    verifying.start()
    _until(lambda: waits.awaited or bool(order))
    complete(endless, [7], None, Decoding(1), later)
    long.join()
    verifying.join()
    assert order == ["turn", "later"]


def test_who_has_the_turn_cannot_wait_for_it(base: BaseModel) -> None:
    with turn(base.model), pytest.raises(ValueError, match="has the model's turn"):
        complete(base, [5], None, Decoding(1), lambda _: True)


def test_models_that_keep_other_states_answer_one_after_another(base: BaseModel) -> None:
    ids = {"vocab_size": len(base.tokenizer), "eos_token_id": base.tokenizer.eos_token_id}
    layers = {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}
    other = replace(base, model=tiny.model(tiny.config("lfm2", **ids, **layers)))
    prompts = tiny.prompts([5, 9, 3], len(base.tokenizer))

    def tokens(prompt: list[int]) -> list[int]:
        found: list[int] = []
        complete(other, prompt, None, Decoding(NEW), lambda token: not found.append(token.id))
        return found

    with forwards(other) as shapes:
        found = at_once(other, [lambda prompt=prompt: tokens(prompt) for prompt in prompts])
    assert {rows for rows, _ in shapes} == {1}
    for prompt, answer in zip(prompts, found, strict=True):
        taken = other.model.generate(
            torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, pad_token_id=0
        )
        assert answer == taken[0, len(prompt) :].tolist()
