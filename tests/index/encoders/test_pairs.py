"""Embedded pairs: every text once, each by itself, its beginning alone."""

from collections.abc import Sequence

import pytest
import torch
from embedded import WIDTH, WORDS, descriptions, row
from hypothesis import given
from hypothesis import strategies as st

from index.encoders.descriptions import DescriptionEncoder, Embeddings
from index.encoders.pairs import OUTPUT_TOKENS, READ_CHARACTERS, PairBank, embed_pairs
from library.tasks.files import Example

texts = st.text("ab ", max_size=3)
conditions = st.lists(st.lists(st.tuples(texts, texts), max_size=4), min_size=1, max_size=4)


def of(pairs: Sequence[tuple[str, str]]) -> list[Example]:
    return [Example.pair(*pair) for pair in pairs]


class Spelled:
    """An encoder in which a text's vector and number of tokens are functions of it alone."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, asked: Sequence[str]) -> list[Embeddings]:
        self.calls.append(list(asked))
        return [self.of(text) for text in asked]

    def of(self, text: str) -> Embeddings:
        return row(descriptions([len(text) + 2], seed=sum(map(ord, text)) + 7 * len(text)), 0)


@given(conditions.filter(any))
def test_each_place_holds_its_pair_and_the_others_are_masked(
    asked: list[list[tuple[str, str]]],
) -> None:
    embed = Spelled()
    found = PairBank(embed)([of(pairs) for pairs in asked])
    n, p = len(asked), max(map(len, asked))
    assert (len(found), found.count) == (n, p) and found.inputs.shape == (n, p, WIDTH)
    assert found.words.shape[-1] == WORDS
    for i, pairs in enumerate(asked):
        assert not found.mask[i, len(pairs) :].any()
        for j, (before, after) in enumerate(pairs):
            output = embed.of(after)
            assert torch.equal(found.inputs[i, j], embed.of(before).pooled[0])
            assert torch.equal(found.outputs[i, j], output.pooled[0])
            assert torch.equal(found.tokens[i, j][found.mask[i, j]], output.tokens[0])
            assert torch.equal(found.words[i, j][found.mask[i, j]], output.words[0])
    (call,) = embed.calls
    assert sorted(call) == sorted({text for pairs in asked for pair in pairs for text in pair})


def test_a_text_is_embedded_once_and_kept_in_the_type_that_was_asked_for() -> None:
    embed = Spelled()
    bank = PairBank(embed, torch.float16)
    first = bank([of([("a", "b"), ("c", "b")])])
    assert bank([of([("a", "b"), ("c", "b")])]).mask.equal(first.mask)
    bank([of([("a", "d")])])
    assert embed.calls == [["a", "c", "b"], ["d"]]
    assert first.inputs.dtype == first.tokens.dtype == torch.float16
    assert first.to(dtype=torch.float32).words.dtype == torch.float32


def test_beginnings_alone_are_read() -> None:
    embed, long = Spelled(), "x" * READ_CHARACTERS
    found = PairBank(embed)([of([(long + "1", long + "2")])])
    assert embed.calls == [[long]]
    assert found.tokens.shape == (1, 1, OUTPUT_TOKENS, WIDTH) and found.mask.all()


def test_pairs_are_embedded_alone(encoder: DescriptionEncoder) -> None:
    pairs = of([("The soup was cold.", "negative"), ("A joy.", "positive " * 300)])
    both, one = embed_pairs(encoder, [pairs]), embed_pairs(encoder, [pairs[:1]])
    assert torch.equal(both.inputs[:, :1], one.inputs) and both.inputs.dtype == torch.float64
    assert torch.equal(both.tokens[:, 0][both.mask[:, 0]], one.tokens[0][one.mask[0]])
    assert torch.equal(one.outputs[0], encoder.encode(["negative"]).pooled)
    assert (len(both), both.count) == (1, 2)


@pytest.mark.parametrize("index", [0, 1])
def test_fast_and_served_pairs_are_the_same_up_to_rounding(
    encoder: DescriptionEncoder, index: int
) -> None:
    pairs = of([("Where is it?", "yes"), ("A longer question than the other one?", "no, it is")])
    served, fast = (embed_pairs(encoder, [pairs]), PairBank(encoder.encode_batch)([pairs]))
    for one, other in zip(vars(served).values(), vars(fast).values(), strict=True):
        torch.testing.assert_close(one[0, index], other[0, index], atol=1e-9, rtol=1e-9)
