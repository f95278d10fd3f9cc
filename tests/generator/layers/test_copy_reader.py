"""The copy reader: what is picked is said as it stands, and no words say nothing."""

from dataclasses import replace

import pytest
import tiny
import torch
from embedded import WIDTH, WORDS, descriptions

from generator.layers.copy_reader import CopyReader
from index.encoders.descriptions import Embeddings
from library.errors import UsageError
from library.layout import Layout, Site

LAYOUT = Layout(
    "mixed",
    3,
    (
        Site("m.layers.0.attn.q_proj", 10, 10, 3),
        Site("m.layers.0.attn.o_proj", 12, WORDS, 3),
        Site("m.layers.1.attn.o_proj", 12, WORDS, 2),
        Site("m.layers.1.mlp.down_proj", 20, WORDS, 3),
    ),
)


@pytest.fixture
def reader() -> CopyReader:
    made = CopyReader(WIDTH, WORDS, 6, LAYOUT).double()
    tiny.randomise(made)
    return made


def test_nothing_is_said_before_training() -> None:
    added = CopyReader(WIDTH, WORDS, 6, LAYOUT).double()(descriptions([4, 2]))
    assert set(added) == {g.key for g in LAYOUT.groups if g.module_type != "q_proj"}
    for group in LAYOUT.groups:
        if group.key in added:
            a, b = added[group.key]
            assert a.shape == (2, len(group.sites), group.rank, group.in_features)
            assert b.shape == (2, len(group.sites), group.out_features, group.rank)
            assert not a.any() and not b.any()


def test_columns_are_the_word_itself(reader: CopyReader) -> None:
    read = descriptions([1])
    word = read.words[0, 0]
    for _, b in reader(read).values():
        columns = b[0].movedim(1, -1).flatten(0, 1)  # (sites·r, w)
        cosines = torch.cosine_similarity(columns, word[None].expand_as(columns), dim=-1)
        torch.testing.assert_close(cosines.abs(), torch.ones_like(cosines))


def test_ranks_and_sites_pick_for_themselves(reader: CopyReader) -> None:
    with torch.no_grad():
        for queries in reader.queries.values():
            queries.mul_(20)  # so sure that each has one favourite
    for _, b in reader(descriptions([9])).values():
        columns = torch.nn.functional.normalize(b[0].movedim(1, -1).flatten(0, 1), dim=-1)
        alike = (columns @ columns.T).abs() - torch.eye(len(columns), dtype=columns.dtype)
        assert alike.min() < 0.5


def test_padding_and_the_order_of_words_say_nothing(reader: CopyReader) -> None:
    read = descriptions([5])
    order = [3, 0, 4, 2, 1]
    shuffled = Embeddings(
        read.pooled, read.tokens[:, order], read.words[:, order], read.mask[:, order]
    )
    padded = Embeddings(
        read.pooled,
        torch.cat([read.tokens, torch.ones_like(read.tokens)], dim=1),
        torch.cat([read.words, torch.ones_like(read.words)], dim=1),
        torch.cat([read.mask, torch.zeros_like(read.mask)], dim=1),
    )
    expected = reader(read)
    for other in (shuffled, padded):
        for key, pair in reader(other).items():
            torch.testing.assert_close(pair, expected[key])


def test_no_words_add_nothing_and_leave_gradients_finite(reader: CopyReader) -> None:
    read = descriptions([4, 3])
    mask = read.mask.clone()
    mask[1] = False
    added = reader(replace(read, mask=mask))
    assert all(not factor[1].any() for pair in added.values() for factor in pair)
    sum(factor.sum() for pair in added.values() for factor in pair).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in reader.parameters())
    none = Embeddings(read.pooled, read.tokens[:, :0], read.words[:, :0], read.mask[:, :0])
    assert all(not factor.any() for pair in reader(none).values() for factor in pair)


def test_words_that_no_module_writes_are_refused() -> None:
    with pytest.raises(UsageError, match="o_proj, down_proj"):
        CopyReader(WIDTH, WORDS + 1, 6, LAYOUT)
