"""Greedy decoding of many prompts at once, held to transformers' generate, one row at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from library.adapter import Adapter
from library.base.decode import greedy
from library.base.models import BaseModel, load_base, resolve_base
from library.base.multi_adapter import adapted
from library.layout import layout_of

NEW = 12
LENGTHS = (3, 11, 6, 3, 8, 1, 20)
ROWS = [0, 2, 1, 1, 0, 2, 0]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> BaseModel:
    return load_base(resolve_base(str(tiny_base)))


@pytest.fixture(scope="module")
def adapter(base: BaseModel) -> Adapter:
    return tiny.adapter(layout_of(base.model.config, rank=3), 3)


def prompts(base: BaseModel) -> list[list[int]]:
    size = len(base.tokenizer)
    made = [tiny.tokens(1, n, vocabulary=size, seed=i) for i, n in enumerate(LENGTHS)]
    return [row[0].tolist() for row in made]


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
