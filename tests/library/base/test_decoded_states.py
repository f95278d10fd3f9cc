"""Answers with their states: the tokens of greedy decoding, and the distributions behind them."""

from pathlib import Path

import pytest
import tiny
import torch

from library.adapter import Adapter
from library.base.batches import TokenRow, grouped
from library.base.decode import decode
from library.base.decoded_states import decode_states
from library.base.loss import answer_logits, output_logits
from library.base.models import BaseModel, load_base, resolve_base
from library.base.multi_adapter import adapted
from library.layout import layout_of

LENGTHS = (3, 11, 6, 3, 8, 1, 20)


@pytest.fixture(scope="module")
def base(endless_base: Path) -> BaseModel:
    return load_base(resolve_base(str(endless_base)))


@pytest.fixture(scope="module")
def adapter(base: BaseModel) -> Adapter:
    return tiny.adapter(layout_of(base.model.config, rank=3), 1)


def test_tokens_and_distributions_are_those_of_the_adapter(
    base: BaseModel, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tiny.prompts(LENGTHS, len(base.tokenizer))
    plain = decode(base, prompts, adapter)
    # Make answers end at different steps, so that rows leave the batch.
    ends = [tokens[i % 3] for i, tokens in enumerate(plain)]
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", ends)
    answers = decode_states(base, prompts, adapter)
    assert [answer.tokens for answer in answers] == decode(base, prompts, adapter)
    assert len({len(answer.tokens) for answer in answers}) > 1
    for prompt, answer in zip(prompts, answers, strict=True):
        assert not answer.states.is_inference()
        found = output_logits(base.model, answer.states)
        assert found.argmax(-1).tolist() == answer.tokens
        (batch,) = grouped([TokenRow(0, prompt, answer.tokens)], 0, 1)
        with adapted(base.model, adapter, batch.rows) as model, torch.no_grad():
            expected = answer_logits(model, batch.ids, batch.answer)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_nothing_is_left_on_the_model(base: BaseModel, adapter: Adapter) -> None:
    decoder = base.model.get_decoder()
    before = len(decoder._forward_hooks)
    with pytest.raises(IndexError):
        decode_states(base, [[10**9]], adapter)  # no such token
    assert len(decoder._forward_hooks) == before
    (answer,) = decode_states(base, [[5, 6]], adapter)
    assert answer.states.shape == (len(answer.tokens), base.model.config.hidden_size)
    assert decode_states(base, [], adapter) == []
