"""Pairs beside descriptions: in no order, as many as there are, each condition by itself."""

from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from embedded import WIDTH, WORDS, descriptions, pairs, pairs_at, row
from hypothesis import given
from hypothesis import strategies as st

from generator.layers.config import TextToLoRAConfig
from generator.layers.pair_encoder import PairEncoder
from generator.layers.word_reader import WordReader
from generator.models.base import Condition, reads_examples
from generator.models.text_to_lora import TextToLoRA
from index.encoders.descriptions import Embeddings
from index.encoders.pairs import EmbeddedPairs
from library.adapter import Adapter
from library.errors import UsageError
from library.factored import squared_delta_distance
from library.layout import Layout, Site

LAYOUT = Layout(
    "two", 2, (Site("m.layers.0.attn.q", 10, 10, 3), Site("m.layers.1.mlp.up", 10, 24, 2))
)
PARTS: dict[str, Any] = {"latent": 16, "head_in": 20, "queries": 2, "words_dim": WORDS}


def made(examples: int = 8, reader_dim: int = 5) -> TextToLoRA:
    torch.manual_seed(0)
    config = TextToLoRAConfig(WIDTH, **PARTS, reader_dim=reader_dim, examples=examples)
    return TextToLoRA(config, LAYOUT).double().eval()


def random(examples: int = 8, reader_dim: int = 5) -> TextToLoRA:
    module = made(examples, reader_dim)
    tiny.randomise(module)
    return module


def close(one: Adapter, other: Adapter) -> bool:
    return all(
        torch.allclose(a, b, rtol=1e-11, atol=1e-11)
        for a, b in zip(one.factors(), other.factors(), strict=True)
    )


@given(st.permutations(range(5)), st.booleans(), st.integers(0, 9))
def test_the_order_of_pairs_says_nothing(order: list[int], described: bool, seed: int) -> None:
    module, given_pairs = random(), pairs([5], seed)
    text = descriptions([4], seed) if described else None
    first = module(Condition(text=text, examples=given_pairs))
    assert close(module(Condition(text=text, examples=pairs_at(given_pairs, 0, order))), first)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(0, 9))
def test_a_batch_is_its_conditions_one_by_one(counts: list[int], seed: int) -> None:
    """Whatever the numbers of pairs, and whatever stands in places of no pair."""
    module = random()
    text, given_pairs = descriptions([2 + c for c in counts], seed), pairs(counts, seed, places=5)
    together = module(Condition(text=text, examples=given_pairs))
    for i, count in enumerate(counts):
        some = pairs_at(given_pairs, i, [*range(count)]) if count else None
        alone = module(Condition(text=row(text, i), examples=some))
        assert close(together[[i]], alone)


def test_a_description_without_tokens_is_none() -> None:
    module, text, few = random(), descriptions([3, 2]), pairs([2, 4])
    assert module.pairs is not None
    with torch.no_grad():
        module.pairs.no_description.normal_()
    hidden = Embeddings(
        text.pooled, text.tokens, text.words, text.mask & torch.tensor([[True], [False]])
    )
    mixed = module(Condition(text=hidden, examples=few))
    first, second = (pairs_at(few, i, [*range(c)]) for i, c in enumerate((2, 4)))
    assert close(mixed[[0]], module(Condition(text=row(text, 0), examples=first)))
    assert close(mixed[[1]], module(Condition(examples=second)))
    assert not close(mixed[[1]], module(Condition(text=row(text, 1), examples=second)))


def test_inputs_outputs_and_their_words_all_count() -> None:
    module, few = random(), pairs([3])
    first = module(Condition(examples=few))
    for name in ("inputs", "outputs", "tokens", "words"):
        others = replace(few, **{name: getattr(few, name).flip(-1)})
        assert not close(module(Condition(examples=others)), first), name


@pytest.mark.parametrize("reader_dim", [0, 5])
def test_training_on_both_alone_and_together_reaches_every_parameter(reader_dim: int) -> None:
    module, target = made(reader_dim=reader_dim), tiny.adapter(LAYOUT, 3, dtype=torch.float64)
    text, few = descriptions([3, 5, 2]), pairs([2, 0, 4])
    mask = text.mask & torch.tensor([[False], [True], [True]])
    text = Embeddings(text.pooled, text.tokens, text.words, mask)
    with torch.no_grad():
        start = module(Condition(text=text, examples=few))
    assert not any((b @ a).any() for a, b in map(start.site, LAYOUT.sites))
    optimizer, losses = torch.optim.Adam(module.parameters(), lr=1e-2), []
    for _ in range(8):
        found = module(Condition(text=text, examples=few))
        loss = torch.stack(
            [
                squared_delta_distance(found.A[k], found.B[k], target.A[k], target.B[k]).sum()
                for k in found.A
            ]
        ).sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name
    assert losses[-1] < losses[0]


def test_words_are_said_that_only_an_example_holds_and_no_training_task_had() -> None:
    """The reader's linear path to B is open to the outputs of pairs without a description."""
    layout = Layout("one", 1, (Site("m.layers.0.attn.v", 6, 9, 2),))
    torch.manual_seed(0)
    vocabulary, truth = torch.randn(60, WORDS), torch.randn(WORDS, 9)

    def batch(words: range) -> tuple[EmbeddedPairs, torch.Tensor]:
        """Two pairs of each word: other inputs, the same output of one token."""
        n = len(words)
        inputs, outputs = torch.randn(2, n, 2, WIDTH)
        said = vocabulary[list(words)][:, None, None].expand(n, 2, 1, WORDS)
        tokens, mask = torch.zeros(n, 2, 1, WIDTH), torch.ones(n, 2, 1, dtype=torch.bool)
        normed = torch.nn.functional.layer_norm(said[:, 0, 0], (WORDS,))
        return EmbeddedPairs(inputs, outputs, tokens, said, mask), normed @ truth

    encoder = PairEncoder(TextToLoRAConfig(WIDTH, **PARTS, dropout=0.0, examples=2))
    reader = WordReader(WIDTH, WORDS, 16, layout)
    optimizer = torch.optim.Adam([*encoder.parameters(), *reader.parameters()], lr=1e-2)
    (seen, wanted), (unseen, hidden) = batch(range(40)), batch(range(40, 60))
    for _ in range(500):
        loss = (reader(encoder(None, seen))["v_6x9"][:, 0, :, 0] - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    error = (reader(encoder(None, unseen))["v_6x9"][:, 0, :, 0] - hidden).square().mean()
    assert error < 0.1 * hidden.square().mean()


def test_with_descriptions_alone_nothing_changes() -> None:
    """The weights of a generator without pairs, in one that reads them: the same bits."""
    plain, reading = random(examples=0), random()
    missing = reading.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert {key.split(".")[0] for key in missing.missing_keys} == {"pairs"}
    text = descriptions([3, 6])
    for one, other in zip(
        plain(Condition(text=text)).factors(), reading(Condition(text=text)).factors(), strict=True
    ):
        assert torch.equal(one, other)


def test_what_it_needs_depends_on_its_architecture() -> None:
    plain, reading = made(0), made(3)
    assert plain.needs == {"description"} and not plain.optional and plain.max_examples == 0
    assert not reading.needs and reading.optional == {"description", "examples"}
    assert reading.max_examples == 3
    assert [reads_examples(x) for x in (plain, reading, TextToLoRA)] == [False, True, True]


def test_what_cannot_be_read_is_refused() -> None:
    incomplete: list[dict[str, Any]] = [{"queries": 2}, {"words_dim": WORDS, "reader_dim": 5}]
    for parts in incomplete:
        with pytest.raises(UsageError, match="examples need queries and words_dim"):
            TextToLoRAConfig(WIDTH, examples=8, **parts)
    with pytest.raises(UsageError, match="needs descriptions or examples"):
        made()(Condition())
    encoder = PairEncoder(TextToLoRAConfig(WIDTH, **PARTS, examples=8)).double()
    with pytest.raises(UsageError, match="neither a description nor an example"):
        encoder(None, pairs([2, 0]))
