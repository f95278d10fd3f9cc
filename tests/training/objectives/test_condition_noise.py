"""Noise on conditions: of the size asked for, none by default, never all words left out."""

import pytest
import torch
from embedded import descriptions

from generator.models.base import Condition
from index.encoders.descriptions import Embeddings, join, no_description
from library.errors import UsageError
from training.objectives.condition_noise import ConditionNoise


def noisy(noise: ConditionNoise, text: Embeddings) -> Embeddings:
    torch.manual_seed(1)
    made = noise(Condition(text=text)).text
    assert made is not None
    return made


def test_without_noise_a_condition_is_itself_and_no_number_is_drawn() -> None:
    state, condition = torch.get_rng_state(), Condition(text=descriptions([3, 5]))
    assert ConditionNoise()(condition) is condition
    assert ConditionNoise(0.5, 0.5)(Condition()) == Condition()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_the_noise_is_a_share_of_each_vectors_length(scale: float) -> None:
    text = descriptions([40] * 60)
    text = Embeddings(text.pooled, 7 * text.tokens, 0.2 * text.words, text.mask)
    made = noisy(ConditionNoise(scale), text)
    for before, after in ((text.tokens, made.tokens), (text.words, made.words)):
        ratio = (after - before).square().sum(-1) / before.square().sum(-1)
        assert ratio.mean() == pytest.approx(scale**2, rel=0.05)
    torch.testing.assert_close(made.pooled.norm(dim=-1), torch.ones(60, dtype=torch.float64))
    cosine = (made.pooled * text.pooled).sum(-1)
    assert cosine.mean() == pytest.approx((1 + scale**2) ** -0.5, abs=0.05)
    assert torch.equal(made.mask, text.mask)


def test_words_are_left_out_by_chance_and_never_all() -> None:
    text = descriptions([1] * 30 + [2] * 30 + [50] * 40)
    made = noisy(ConditionNoise(word_dropout=0.4), text)
    assert made.tokens is text.tokens and made.words is text.words and made.pooled is text.pooled
    assert not (made.mask & ~text.mask).any() and made.mask.any(dim=1).all()
    assert made.mask[60:].float().mean() == pytest.approx(0.6, abs=0.03)
    assert torch.equal(made.mask[:30], text.mask[:30])  # one token stays
    assert made.mask[30:60].sum(dim=1).unique().tolist() == [1, 2]


def test_what_is_no_description_stays_none() -> None:
    text = descriptions([4])
    made = noisy(ConditionNoise(0.5, 0.5), join([text, no_description(text)]))
    assert not made.pooled[1].any() and not made.mask[1].any()
    assert made.pooled.isfinite().all() and made.mask[0].any()


@pytest.mark.parametrize("wrong", [{"scale": -1.0}, {"word_dropout": 1.0}, {"word_dropout": -0.1}])
def test_no_other_noise(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="condition_noise"):
        ConditionNoise(**wrong)
