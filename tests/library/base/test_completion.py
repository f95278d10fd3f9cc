"""Completions token by token: held to decoding, to the model's own log-softmax, and to choices."""

import copy
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from library.adapter import Adapter
from library.base.completion import Choices, Decoding, Token, text_of, window
from library.base.decode import decode, eos_ids
from library.base.growing_text import GrowingText
from library.base.joint_completion import complete
from library.base.models import BaseModel, load_base, resolve_base
from library.base.multi_adapter import adapted
from library.base.prompts import chat_ids, prompt_ids
from library.base.sampling import Sampling, nucleus
from library.errors import UsageError
from library.layout import layout_of

NEW = 12
CHOICES = ["yes", "no", "not at all", "yes sir", ""]


@pytest.fixture(scope="module")
def loaded(tiny_base: Path) -> BaseModel:
    return load_base(resolve_base(str(tiny_base)))


@pytest.fixture(scope="module")
def adapter(loaded: BaseModel) -> Adapter:
    return tiny.adapter(layout_of(loaded.model.config, rank=3))


@pytest.fixture(scope="module")
def prompts(loaded: BaseModel) -> list[list[int]]:
    return tiny.prompts((3, 11, 6, 1, 20, 8), len(loaded.tokenizer))


def completed(
    base: BaseModel, prompt: list[int], adapter: Adapter | None, decoding: Decoding
) -> list[Token]:
    found: list[Token] = []

    def follow(token: Token) -> bool:
        found.append(token)
        return True

    complete(base, prompt, adapter, decoding, follow)
    return found


def ids(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens]


def sampling(temperature: float, seed: int = 0) -> Sampling:
    return Sampling(temperature, torch.Generator().manual_seed(seed))


def own_logprobs(base: BaseModel, ids: list[int], adapter: Adapter | None) -> torch.Tensor:
    """The model's log-softmax after every token, in one pass."""
    given = torch.tensor([ids])
    if adapter is None:
        logits = base.model(input_ids=given).logits
    else:
        with adapted(base.model, adapter, torch.tensor([0])) as model:
            logits = model(input_ids=given).logits
    return logits[0].double().log_softmax(-1)


@pytest.mark.parametrize("alone", [True, False])
def test_greedy_is_decoding_and_logprobs_are_the_models_own(
    loaded: BaseModel, adapter: Adapter, prompts: list[list[int]], alone: bool
) -> None:
    under = None if alone else adapter
    expected = decode(loaded, prompts, under, max_new_tokens=NEW)
    ended = 0
    for prompt, answer in zip(prompts, expected, strict=True):
        tokens = completed(loaded, prompt, under, Decoding(NEW, top=3))
        assert ids(tokens) == answer
        ended += answer[-1] in eos_ids(loaded)
        own = own_logprobs(loaded, prompt + answer, under)[len(prompt) - 1 : -1]
        for token, row in zip(tokens, own, strict=True):
            assert token.logprob == pytest.approx(row[token.id].item(), abs=1e-5)
            values, best = row.topk(3)
            assert [i for i, _ in token.top] == best.tolist()
            assert [v for _, v in token.top] == pytest.approx(values.tolist(), abs=1e-5)
    assert 0 < ended < len(prompts)
    assert not any(module._forward_hooks for module in loaded.model.modules())


def test_draws_follow_the_seed_and_cold_or_narrow_ones_are_greedy(
    loaded: BaseModel, prompts: list[list[int]]
) -> None:
    def drawn(prompt: list[int], **options: Any) -> list[int]:
        return ids(completed(loaded, prompt, None, Decoding(NEW, **options)))

    greedy = [drawn(prompt) for prompt in prompts]
    cold = [drawn(prompt, sampling=sampling(1e-6)) for prompt in prompts]
    coldest = [drawn(prompt, sampling=sampling(5e-324), top_p=0.9) for prompt in prompts]
    narrow = [drawn(prompt, sampling=sampling(1.0), top_p=1e-9) for prompt in prompts]
    first, again, other = (
        [drawn(prompt, sampling=sampling(1.0, seed)) for prompt in prompts] for seed in (1, 1, 2)
    )
    assert greedy == cold == coldest == narrow
    assert first == again != other
    warm = completed(loaded, prompts[0], None, Decoding(NEW, sampling(3.0), top_p=0.9))
    own = own_logprobs(loaded, prompts[0] + ids(warm), None)[len(prompts[0]) - 1 : -1]
    for token, row in zip(warm, own, strict=True):  # not those of what it was drawn from
        assert token.logprob == pytest.approx(row[token.id].item(), abs=1e-5)
    assert first == [
        decode(loaded, [prompt], sampling=sampling(1.0, 1), max_new_tokens=NEW)[0]
        for prompt in prompts
    ]


@given(
    st.lists(st.floats(-8, 8), min_size=1, max_size=9),
    st.floats(0.1, 3),
    st.floats(0.01, 1),
)
def test_a_nucleus_is_the_smallest_that_has_its_share(
    row: list[float], temperature: float, share: float
) -> None:
    logits = torch.tensor([row], dtype=torch.float64)
    chances = (logits / temperature).softmax(-1)[0]
    kept = nucleus(logits, temperature, share)[0].isfinite()
    assert kept.any() and chances[kept].sum() >= min(share, 1) - 1e-9
    assert chances[kept].sum() - chances[kept].min() < share
    assert (~kept).sum() == 0 or chances[~kept].max() <= chances[kept].min()


def choose(loaded: BaseModel, prompt: list[int], own: Any) -> list[int]:
    """The definition: at every step the likeliest token of those that lead to a choice."""
    rows = [
        [*loaded.tokenizer(c, add_special_tokens=False)["input_ids"], loaded.tokenizer.eos_token_id]
        for c in CHOICES
    ]
    taken: list[int] = []
    while len(rows) > 1 or taken != rows[0]:
        last = own(prompt + taken)
        following = sorted({row[len(taken)] for row in rows})
        taken.append(max(following, key=lambda token: last[token].item()))
        rows = [row for row in rows if row[: len(taken)] == taken]
    return taken


def test_a_guided_answer_is_the_choice_that_is_likeliest_token_by_token(
    loaded: BaseModel, adapter: Adapter, prompts: list[list[int]]
) -> None:
    decoding = Decoding(1, choices=Choices.of(loaded, CHOICES))  # which max_new_tokens cuts not
    found = set()
    for prompt in prompts:
        tokens = completed(loaded, prompt, adapter, decoding)
        expected = choose(loaded, prompt, lambda ids: own_logprobs(loaded, ids, adapter)[-1])
        assert ids(tokens) == expected
        found.add(text_of(loaded, expected))
        own = own_logprobs(loaded, prompt, adapter)[-1]  # not those of the choices alone
        assert tokens[0].logprob == pytest.approx(own[tokens[0].id].item(), abs=1e-5)
    assert found <= {*CHOICES} and len(found) > 1


def test_guided_draws_are_choices_too(loaded: BaseModel, prompts: list[list[int]]) -> None:
    choices = Choices.of(loaded, CHOICES)
    found = set()
    for seed in range(40):
        decoding = Decoding(1, sampling(1.0, seed), top_p=0.9, choices=choices)
        tokens = completed(loaded, prompts[0], None, decoding)
        assert tokens[-1].id == loaded.tokenizer.eos_token_id
        found.add(text_of(loaded, ids(tokens)))
    assert found <= {*CHOICES} and len(found) > 1


def test_a_choice_that_tokens_cannot_spell_is_refused(loaded: BaseModel) -> None:
    with pytest.raises(UsageError, match="cannot spell"):
        Choices.of(loaded, ["yes", loaded.tokenizer.eos_token])


def test_messages_that_the_template_does_not_take_are_refused(loaded: BaseModel) -> None:
    tokenizer, turns = copy.deepcopy(loaded.tokenizer), [{"role": "user", "content": "Why?"}]
    assert chat_ids(tokenizer, turns) == prompt_ids(tokenizer, "Why?")
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UsageError, match="roles must alternate"):
        chat_ids(tokenizer, turns)
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="no chat template"):
        chat_ids(tokenizer, turns)


def test_who_follows_may_end_it(loaded: BaseModel, prompts: list[list[int]]) -> None:
    found: list[int] = []

    def follow(token: Token) -> bool:
        found.append(token.id)
        return len(found) < 2

    complete(loaded, prompts[1], None, Decoding(NEW), follow)
    assert found == ids(completed(loaded, prompts[1], None, Decoding(2)))
    assert window(loaded) == 256


@given(st.lists(st.integers(3, 4000), max_size=12), st.lists(st.integers(0, 99), max_size=3))
def test_pieces_are_the_text_up_to_the_first_stop(
    loaded: BaseModel, tokens: list[int], places: list[int]
) -> None:
    whole = text_of(loaded, tokens)
    stops = [whole[i % len(whole) :][:3] for i in places] if whole else ["x"]
    text, pieces = GrowingText(loaded, stops), []
    for token in tokens:
        pieces.append(text.push(token))
        if text.stopped:
            break
    pieces.append(text.finish())
    expected = whole
    for said in (text_of(loaded, tokens[:count]) for count in range(len(tokens) + 1)):
        if found := [said.index(stop) for stop in stops if stop in said]:
            expected = said[: min(found)]  # which comes to be whole first
            assert text.stopped
            break
    assert "".join(pieces) == expected
    assert text.length == len(expected)


def test_text_comes_as_soon_as_it_is_certain(loaded: BaseModel) -> None:
    def pieces(said: str, *stops: str) -> list[str]:
        text = GrowingText(loaded, stops)
        found = loaded.tokenizer(said, add_special_tokens=False)["input_ids"]
        return [*(text.push(token) for token in found), text.finish()]

    assert pieces("a b") == ["a", " b", ""]
    euro = pieces("x€")  # three bytes, three tokens
    assert euro == ["x", *[""] * (len(euro) - 3), "€", ""] and len(euro) > 3
    assert pieces("a b", " bc") == ["a", "", " b"]
    assert pieces("a b", "b") == ["a", " ", ""]
