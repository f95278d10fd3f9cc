"""The description encoder: what a description is, and vectors that do not depend on company."""

import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from index.encoders.descriptions import (
    DescriptionEncoder,
    Embeddings,
    InvalidDescription,
    join,
    normalise,
)
from library.errors import BaseModelError, MissingPath

SHORT = ["Answer the question.", "Translate the text into French, please!", "Sort 3, 1, 2."]


def long_text(characters: int) -> str:
    rng = random.Random(0)
    words = ["classify", "the", "sentiment", "of", "a", "review", "unbelievably", "Überraschung"]
    text = ""
    while len(text) < characters:
        text += " ".join(rng.choices(words, k=12)).capitalize() + ".\n"
    return normalise(text[:characters])


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50))
def test_a_description_is_kept_in_its_normal_form(text: str) -> None:
    expected = unicodedata.normalize("NFC", text).strip()
    if expected:
        assert normalise(text) == expected == normalise(f" \n{text}\t")
        assert normalise(normalise(text)) == normalise(text)
    else:
        with pytest.raises(InvalidDescription, match="empty"):
            normalise(text)


@pytest.mark.parametrize(
    "value", [None, 3, b"bytes", ["text"], "", " \n\u3000", "a\ud800", "\udfff", "a\0b"]
)
def test_what_is_no_description_is_refused(value: Any) -> None:
    with pytest.raises(InvalidDescription):
        normalise(value)


def test_length_is_counted_in_characters_of_the_normal_form() -> None:
    assert len(normalise("\U0001f600" * 8192)) == 8192
    assert len(normalise("e\u0301" * 8192 + "  ")) == 8192  # two code points become one
    with pytest.raises(InvalidDescription, match="8,193"):
        normalise("x" * 8193)


def test_company_does_not_change_a_vector(encoder: DescriptionEncoder) -> None:
    texts = [*SHORT, long_text(1500), "x"]
    together = encoder.encode(texts)
    assert len(together) == 5
    assert together.pooled.shape == (5, encoder.dimension)
    assert together.pooled.dtype == together.tokens.dtype == torch.float64
    torch.testing.assert_close(together.pooled.norm(dim=-1), torch.ones(5, dtype=torch.float64))
    for i, text in enumerate(texts):
        alone = encoder.encode([text])
        length = alone.tokens.shape[1]
        assert torch.equal(together.pooled[[i]], alone.pooled)
        assert torch.equal(together.tokens[[i], :length], alone.tokens)
        assert alone.mask.all() and together.mask[i].sum() == length
        assert not together.tokens[i, length:].any()


@given(
    st.sampled_from(["abcdefghij -", "abcxyz.-_", "aeiou\u00e9-,\u4e2d \u200b\u0301", "qwx'/1 2"]),
    st.integers(0, 10_000),
)
@example("supercalifragilistic-", -1)
def test_windows_join_to_the_text_and_fit_the_encoder(
    encoder: DescriptionEncoder, alphabet: str, seed: int
) -> None:
    rng = random.Random(seed)
    text = alphabet * 90 if seed < 0 else "".join(rng.choices(alphabet, k=1500))
    pieces = encoder.windows(normalise(text))
    assert "".join(pieces) == normalise(text)
    tokenizer, room = encoder._model.tokenizer, encoder._model.max_seq_length or 0
    assert all(len(tokenizer(piece)["input_ids"]) <= room for piece in pieces)


def test_windows_are_cut_between_words(encoder: DescriptionEncoder) -> None:
    text = long_text(6000)
    pieces = encoder.windows(text)
    assert len(pieces) > 3
    assert "".join(pieces) == text
    assert all(piece[-1].isspace() for piece in pieces[:-1])
    assert encoder.windows(SHORT[0]) == [SHORT[0]]


def test_the_last_sentence_of_a_long_description_counts(encoder: DescriptionEncoder) -> None:
    start = long_text(5900)
    a, b = f"{start} Answer with yes or no.", f"{start} Answer in French."
    first, second = encoder.encode([a]), encoder.encode([b])
    assert (first.pooled - second.pooled).norm() > 1e-3
    # Tokens of all windows are there to attend to, not those of the first alone.
    assert first.tokens.shape[1] > 3 * 256


def test_batches_for_training_agree_with_serving(encoder: DescriptionEncoder) -> None:
    texts = [*SHORT[::-1], "a much longer text than the others " * 9]
    serving = encoder.encode(texts)
    batch = join(encoder.encode_batch(texts, batch_size=2))
    torch.testing.assert_close(batch.pooled, serving.pooled, atol=1e-9, rtol=0)
    torch.testing.assert_close(batch.tokens, serving.tokens, atol=1e-9, rtol=0)
    assert torch.equal(batch.words, serving.words)
    assert torch.equal(batch.mask, serving.mask)


def test_words_tell_tokens_apart_wherever_they_stand(encoder: DescriptionEncoder) -> None:
    """The same token has the same word vector, and other tokens another; hidden states differ."""
    embedded = encoder.encode(["Say yes if yes is right, else say no."])
    ids = encoder._model.tokenizer("Say yes if yes is right, else say no.")["input_ids"]
    vectors = embedded.words[0]
    assert len(vectors) == len(ids)
    for i, one in enumerate(ids):
        for j, other in enumerate(ids):
            assert torch.equal(vectors[i], vectors[j]) == (one == other)
    first, second = (i for i, one in enumerate(ids) if one == ids[2])
    assert not torch.allclose(embedded.tokens[0, first], embedded.tokens[0, second], atol=1e-3)


def test_joining_pads_with_what_the_mask_hides() -> None:
    one, two = (
        Embeddings(
            torch.ones(1, 4),
            torch.ones(1, length, 4),
            torch.ones(1, length, 3),
            torch.ones(1, length, dtype=torch.bool),
        )
        for length in (2, 5)
    )
    joined = join([one, two])
    assert joined.tokens.shape == (2, 5, 4)
    assert torch.equal(joined.words.any(dim=-1), joined.mask)
    assert joined.mask.sum(dim=1).tolist() == [2, 5]
    assert torch.equal(joined.tokens.any(dim=-1), joined.mask)


def test_an_encoder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingPath):
        DescriptionEncoder("./nowhere")
    for name in (str(tmp_path), "owner/encoder-that-is-nowhere"):
        with pytest.raises(BaseModelError):
            DescriptionEncoder(name)
