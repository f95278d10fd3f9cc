"""The value reader: both factors come of the words that a rank picks, and no words say nothing."""

from dataclasses import replace

import pytest
import tiny
import torch
from embedded import WIDTH, WORDS, descriptions

from generator.layers.value_reader import ValueReader
from index.encoders.descriptions import Embeddings
from library.errors import UsageError
from library.layout import Layout, Site

LAYOUT = Layout(
    "mixed",
    3,
    (
        Site("m.layers.0.attn.q_proj", 10, 10, 3),
        Site("m.layers.0.attn.v_proj", 10, 4, 3),
        Site("m.layers.1.attn.v_proj", 10, 4, 2),
    ),
)


@pytest.fixture
def reader() -> ValueReader:
    made = ValueReader(WIDTH, WORDS, 6, LAYOUT).double()
    tiny.randomise(made)
    return made


def test_nothing_is_added_before_training_and_by_v_proj_alone() -> None:
    added = ValueReader(WIDTH, WORDS, 6, LAYOUT).double()(descriptions([4, 2]))
    assert set(added) == {g.key for g in LAYOUT.groups if g.module_type == "v_proj"}
    for group in LAYOUT.groups:
        if group.key in added:
            a, b = added[group.key]
            assert a.shape == (2, len(group.sites), group.rank, group.in_features)
            assert b.shape == (2, len(group.sites), group.out_features, group.rank)
            assert not a.any() and not b.any()


def test_one_word_gives_every_rank_the_same_and_another_word_another(reader: ValueReader) -> None:
    for a, b in reader(descriptions([1])).values():
        torch.testing.assert_close(a, a[:, :, :1].expand_as(a))
        torch.testing.assert_close(b, b[..., :1].expand_as(b))
    with torch.no_grad():
        for queries in reader.queries.values():
            queries.mul_(20)  # so sure that each has one favourite
    for a, _ in reader(descriptions([9])).values():
        assert not torch.allclose(a, a[:, :, :1].expand_as(a))


def test_padding_and_the_order_of_words_say_nothing(reader: ValueReader) -> None:
    read = descriptions([5])
    order = [3, 0, 4, 2, 1]
    shuffled = Embeddings(
        read.pooled, read.tokens[:, order], read.words[:, order], read.mask[:, order]
    )
    for key, pair in reader(shuffled).items():
        torch.testing.assert_close(pair, reader(read)[key])


def test_no_words_add_nothing_and_leave_gradients_finite(reader: ValueReader) -> None:
    read = descriptions([4, 3])
    mask = read.mask.clone()
    mask[1] = False
    added = reader(replace(read, mask=mask))
    assert all(not factor[1].any() for pair in added.values() for factor in pair)
    sum(factor.sum() for pair in added.values() for factor in pair).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in reader.parameters())


def test_a_layout_without_values_is_refused() -> None:
    with pytest.raises(UsageError, match="v_proj"):
        ValueReader(WIDTH, WORDS, 6, LAYOUT.with_ranks({"m.layers.0.attn.q_proj": 2}))
