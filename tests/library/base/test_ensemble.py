"""Ensembles by mean logits, held to the plain formula: one row at a time, without a cache."""

from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from library.adapter import Adapter, stack
from library.base.decode import greedy, greedy_ensemble
from library.base.models import BaseModel, load_base, resolve_base
from library.base.multi_adapter import adapted
from library.layout import layout_of

NEW = 10
LENGTHS = (3, 9, 5, 3, 12, 1)
MEMBERS = [[0, 1, 2], [2], [1, 3], [3, 0, 1, 2], [0, 0], [1, 2, 3]]


@pytest.fixture(scope="module")
def base(endless_base: Path) -> BaseModel:
    return load_base(resolve_base(str(endless_base)))


@pytest.fixture(scope="module")
def adapter(base: BaseModel) -> Adapter:
    return tiny.adapter(layout_of(base.model.config, rank=3), 4)


def prompts(base: BaseModel) -> list[list[int]]:
    return tiny.prompts(LENGTHS, len(base.tokenizer))


@torch.inference_mode()
def logits(base: BaseModel, ids: list[int], adapter: Adapter, row: int) -> Tensor:
    with adapted(base.model, adapter, torch.tensor([row])) as model:
        return model(input_ids=torch.tensor([ids])).logits[0, -1].double()


def by_formula(
    base: BaseModel, prompt: list[int], adapter: Adapter, members: list[int], *, logs: bool
) -> list[int]:
    """Tokens by the mean of logits, or of log-probabilities; the end of sequence dropped."""
    ids = list(prompt)
    for _ in range(NEW):
        found = torch.stack([logits(base, ids, adapter, row) for row in members])
        token = int((found.log_softmax(-1) if logs else found).mean(dim=0).argmax())
        if token in ends(base):
            break
        ids.append(token)
    return ids[len(prompt) :]


def ends(base: BaseModel) -> list[int]:
    configured = base.model.generation_config.eos_token_id
    return [*configured] if isinstance(configured, list) else [configured]


def text(base: BaseModel, tokens: list[int]) -> str:
    return base.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def formulas(base: BaseModel, adapter: Adapter, *, logs: bool = False) -> list[list[int]]:
    pairs = zip(prompts(base), MEMBERS, strict=True)
    return [by_formula(base, prompt, adapter, group, logs=logs) for prompt, group in pairs]


def ensemble(
    base: BaseModel, adapter: Adapter, members: list[list[int]], batch_size: int = 32
) -> list[str]:
    return greedy_ensemble(
        base, prompts(base), adapter, members, max_new_tokens=NEW, batch_size=batch_size
    )


@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_mixed_ensembles_follow_the_formula_in_any_batch(
    base: BaseModel, adapter: Adapter, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = formulas(base, adapter)
    # Some end at once, some early, some never.
    early = [free[0][2], free[3][0], free[4][6], base.tokenizer.eos_token_id]
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", early)
    expected = formulas(base, adapter)
    lengths = {len(tokens) for tokens in expected}
    assert len(lengths) >= 3 and min(lengths) == 0 and max(lengths) == NEW
    assert formulas(base, adapter, logs=True) == expected  # of log-probabilities as well
    answers = ensemble(base, adapter, MEMBERS, batch_size)
    assert answers == [text(base, tokens) for tokens in expected]


def test_an_ensemble_answers_as_none_of_its_members(base: BaseModel, adapter: Adapter) -> None:
    together = ensemble(base, adapter, [[0, 1, 2, 3]] * len(LENGTHS))
    for row in range(4):
        alone = greedy(base, prompts(base), adapter, [row] * len(LENGTHS), max_new_tokens=NEW)
        assert together != alone


@pytest.mark.parametrize("copies", [1, 2, 3, 16])
def test_copies_of_an_adapter_answer_as_it_does(
    base: BaseModel, adapter: Adapter, copies: int
) -> None:
    rows = [0, 1, 2, 3, 1, 0]
    alone = greedy(base, prompts(base), adapter, rows, max_new_tokens=NEW)
    assert ensemble(base, adapter, [[row] * copies for row in rows]) == alone
    # And as adapters that are equal, not the same one.
    repeated = stack([adapter] * copies)
    equal = [[row + 4 * copy for copy in range(copies)] for row in rows]
    assert ensemble(base, repeated, equal) == alone


@settings(max_examples=10)
@given(st.data())
def test_the_order_of_members_and_of_prompts_does_not_matter(
    base: BaseModel, adapter: Adapter, data: st.DataObject
) -> None:
    expected = ensemble(base, adapter, MEMBERS)
    shuffled = [data.draw(st.permutations(group)) for group in MEMBERS]
    assert ensemble(base, adapter, shuffled) == expected
    order = data.draw(st.permutations(range(len(LENGTHS))))
    some = order[: data.draw(st.integers(1, len(order)))]
    rows = prompts(base)
    found = greedy_ensemble(
        base, [rows[i] for i in some], adapter, [MEMBERS[i] for i in some],
        max_new_tokens=NEW, batch_size=data.draw(st.integers(1, 12)),
    )  # fmt: skip
    assert found == [expected[i] for i in some]


def test_what_is_wrong_and_what_is_empty(base: BaseModel, adapter: Adapter) -> None:
    assert greedy_ensemble(base, [], adapter, []) == []
    with pytest.raises(ValueError, match="one adapter or more"):
        greedy_ensemble(base, prompts(base)[:2], adapter, [[0], []])
    with pytest.raises(IndexError):
        greedy_ensemble(base, prompts(base)[:1], adapter, [[0, 4]])
    assert not any(module._forward_hooks for module in base.model.modules())
