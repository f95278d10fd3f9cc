"""Decoding of many prompts at once: greedily, held to transformers' generate, one row at a time;
by sampling, held to the softmax that it draws from."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from library.adapter import Adapter
from library.base.decode import answer_text, decode, greedy
from library.base.models import BaseModel, load_base, resolve_base
from library.base.multi_adapter import MultiAdapter, adapted
from library.base.sampling import Sampling
from library.errors import UsageError
from library.layout import layout_of

NEW = 12
LENGTHS = (3, 11, 6, 3, 8, 1, 20)
ROWS = [0, 2, 1, 1, 0, 2, 0]


@pytest.fixture(scope="module")
def base(endless_base: Path) -> BaseModel:
    return load_base(resolve_base(str(endless_base)))


@pytest.fixture(scope="module")
def adapter(base: BaseModel) -> Adapter:
    return tiny.adapter(layout_of(base.model.config, rank=3), 3)


def prompts(base: BaseModel) -> list[list[int]]:
    return tiny.prompts(LENGTHS, len(base.tokenizer))


def alone(base: BaseModel, prompt: list[int], adapter: Adapter | None, row: int) -> list[int]:
    """What transformers generates for one prompt under one adapter, end of sequence dropped."""
    ids = torch.tensor([prompt])
    settings: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}

    def run(model: Any) -> list[int]:
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        return out[0, len(prompt) :].tolist()

    if adapter is None:
        tokens = run(base.model)
    else:
        with adapted(base.model, adapter, torch.tensor([row])) as model:
            tokens = run(model)
    ends = base.model.generation_config.eos_token_id
    return tokens[:-1] if tokens[-1] in (ends if isinstance(ends, list) else [ends]) else tokens


def text(base: BaseModel, tokens: list[int]) -> str:
    return base.tokenizer.decode(tokens, skip_special_tokens=True).strip()


@pytest.fixture
def early_ends(base: BaseModel, adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make tokens that the rows produce early ends of sequence, and return the rows' lengths."""
    free = [alone(base, p, adapter, r) for p, r in zip(prompts(base), ROWS, strict=True)]
    ends = [free[0][2], free[1][5], free[3][0], base.tokenizer.eos_token_id]
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", ends)
    ended = [alone(base, p, adapter, r) for p, r in zip(prompts(base), ROWS, strict=True)]
    return [len(tokens) for tokens in ended]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_rows_that_end_early_leave_and_the_others_go_on_unchanged(
    base: BaseModel, adapter: Adapter, early_ends: list[int], batch_size: int
) -> None:
    assert len(set(early_ends)) >= 3  # rows leave at different steps, one at once
    assert min(early_ends) == 0 and max(early_ends) == NEW
    expected = [
        text(base, alone(base, prompt, adapter, row))
        for prompt, row in zip(prompts(base), ROWS, strict=True)
    ]
    answers = greedy(base, prompts(base), adapter, ROWS, max_new_tokens=NEW, batch_size=batch_size)
    assert answers == expected


def test_without_an_adapter_the_base_answers(base: BaseModel, adapter: Adapter) -> None:
    expected = [text(base, alone(base, prompt, None, 0)) for prompt in prompts(base)]
    bare = greedy(base, prompts(base), max_new_tokens=NEW)
    assert bare == expected
    first = greedy(base, prompts(base), adapter, max_new_tokens=NEW)  # rows default to adapter 0
    assert first == [text(base, alone(base, p, adapter, 0)) for p in prompts(base)]
    assert first != bare
    assert greedy(base, prompts(base), max_new_tokens=NEW) == bare  # no hooks left


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_learned_positions_and_sliding_windows(base: BaseModel, family: str) -> None:
    size, end = len(base.tokenizer), base.tokenizer.eos_token_id
    changes: dict[str, Any] = {"vocab_size": size, "eos_token_id": end, "pad_token_id": end}
    window = {"sliding_window": 4} if family == "mistral" else {}
    model = tiny.model(tiny.config(family, **changes, **window))
    other = replace(base, model=model)
    adapter = tiny.adapter(layout_of(model.config, rank=3), 3)
    expected = [
        text(other, alone(other, prompt, adapter, row))
        for prompt, row in zip(prompts(base), ROWS, strict=True)
    ]
    assert greedy(other, prompts(base), adapter, ROWS, max_new_tokens=NEW) == expected


def test_hooks_are_removed_when_decoding_fails(base: BaseModel, adapter: Adapter) -> None:
    with pytest.raises(IndexError):
        greedy(base, prompts(base)[:1], adapter, [3])
    assert not any(module._forward_hooks for module in base.model.modules())


def test_nothing_to_answer(base: BaseModel) -> None:
    assert greedy(base, []) == []
    assert decode(base, [], sampling=sampling(1.0)) == []


def sampling(temperature: float, seed: int = 0) -> Sampling:
    return Sampling(temperature, torch.Generator().manual_seed(seed))


def small(base: BaseModel) -> BaseModel:
    """The same tokenizer beside a model of 61 words, whose draws can be counted."""
    return replace(base, model=tiny.model(tiny.config("llama", pad_token_id=2)))


def test_sampling_without_temperature_is_greedy_decoding(
    base: BaseModel, adapter: Adapter, early_ends: list[int]
) -> None:
    likeliest = decode(base, prompts(base), adapter, ROWS, max_new_tokens=NEW)
    cold = decode(base, prompts(base), adapter, ROWS, sampling=sampling(1e-6), max_new_tokens=NEW)
    assert cold == likeliest
    # The end of sequence is the last token of those that reached it, and no part of the text.
    ends = base.model.generation_config.eos_token_id
    assert [len(tokens) - (tokens[-1] in ends) for tokens in cold] == early_ends
    assert not any(token in ends for tokens in cold for token in tokens[:-1])
    texts = greedy(base, prompts(base), adapter, ROWS, max_new_tokens=NEW)
    assert [answer_text(base, tokens) for tokens in cold] == texts


def test_a_seed_decides_the_answers(base: BaseModel, adapter: Adapter) -> None:
    def drawn(seed: int, batch_size: int = 32) -> list[list[int]]:
        return decode(
            base, prompts(base), adapter, ROWS, sampling=sampling(1.0, seed), max_new_tokens=NEW,
            batch_size=batch_size,
        )  # fmt: skip

    assert drawn(0) == drawn(0) == drawn(0, batch_size=3)
    assert all(one != other for one, other in zip(drawn(0), drawn(1), strict=True))
    generator = torch.Generator().manual_seed(0)
    both = [decode(base, prompts(base), sampling=Sampling(1.0, generator)) for _ in range(2)]
    assert both[0] != both[1]  # a generator that goes on gives other answers


def test_a_row_does_not_depend_on_the_others(base: BaseModel, adapter: Adapter) -> None:
    other = small(base)
    adapters = tiny.adapter(layout_of(other.model.config, rank=3), 3)
    asked = [tiny.tokens(1, n, seed=i)[0].tolist() for i, n in enumerate(LENGTHS)]
    changed = [tiny.tokens(1, n + 2, seed=9 + i)[0].tolist() for i, n in enumerate(LENGTHS)]
    first = decode(other, asked, adapters, ROWS, sampling=sampling(1.0), max_new_tokens=NEW)
    assert len({len(tokens) for tokens in first}) > 1  # some end before the others
    for row in range(len(asked)):
        mixed = [*changed[:row], asked[row], *changed[row + 1 :]]
        rows = [ROWS[i] if i == row else 1 for i in range(len(ROWS))]
        found = decode(other, mixed, adapters, rows, sampling=sampling(1.0), max_new_tokens=NEW)
        assert found[row] == first[row]
        assert found != first


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_first_tokens_are_as_frequent_as_their_softmax_says(
    base: BaseModel, temperature: float
) -> None:
    """Each frequency lies within 4.5 standard deviations of a binomial's, for both adapters."""
    other, n = small(base), 4000
    adapters = tiny.adapter(layout_of(other.model.config, rank=3), 2).scaled(0.5)
    prompt = tiny.tokens(1, 4)
    rows = [i % 2 for i in range(2 * n)]
    found = decode(
        other, prompt.tolist() * 2 * n, adapters, rows, sampling=sampling(temperature),
        max_new_tokens=1, batch_size=2 * n,
    )  # fmt: skip
    expected = []
    for row in (0, 1):
        with torch.no_grad(), adapted(other.model, adapters, torch.tensor([row])) as model:
            logits = model(input_ids=prompt).logits[0, -1]
        p = (logits / temperature).softmax(-1)
        counts = torch.bincount(torch.tensor(found)[row::2, 0], minlength=61)
        assert ((counts / n - p).abs() <= 4.5 * (p * (1 - p) / n).sqrt() + 1 / n).all()
        expected.append(p)
    assert (expected[0] - expected[1]).abs().sum() > 0.2  # the two could be told apart


def test_hooks_that_are_there_serve_and_are_left_without_adapters(
    base: BaseModel, adapter: Adapter
) -> None:
    expected = decode(base, prompts(base), adapter, ROWS, max_new_tokens=NEW)
    alone = decode(base, prompts(base), max_new_tokens=NEW)
    with closing(MultiAdapter(base.model, adapter.layout)) as hooks:
        found = decode(base, prompts(base), adapter, ROWS, max_new_tokens=NEW, hooks=hooks)
        assert found == expected
        assert decode(base, prompts(base), max_new_tokens=NEW) == alone


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_above_zero(temperature: float) -> None:
    with pytest.raises(UsageError, match="temperature"):
        sampling(temperature)
