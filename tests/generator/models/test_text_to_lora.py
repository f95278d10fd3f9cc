"""Text-to-LoRA: zero at the start, trainable everywhere, row by row, told apart by descriptions."""

from dataclasses import replace
from typing import Any, get_args

import pytest
import tiny
import torch
from embedded import WIDTH, WORDS, descriptions, row
from torch import Tensor

from generator.layers.config import Size, TextToLoRAConfig
from generator.layers.word_reader import GAIN, WordReader
from generator.models.base import Condition
from generator.models.text_to_lora import TextToLoRA
from index.encoders.descriptions import Embeddings
from library.adapter import Adapter
from library.errors import UsageError
from library.factored import squared_delta_distance
from library.layout import Layout, Site, layout_of

SIZES: tuple[Size, ...] = get_args(Size)
VARIANTS = (
    {"queries": 0},
    {"queries": 2},
    {"queries": 2, "words_dim": WORDS},
    {"queries": 0, "words_dim": WORDS, "reader_dim": 5},
    {"queries": 0, "words_dim": WORDS, "copy_dim": 5},
)

# Square, wider than high, higher than wide; two shapes of one type; ranks differ within a group.
LAYOUT = Layout(
    "mixed",
    5,
    (
        Site("m.layers.0.attn.q", 10, 10, 3),
        Site("m.layers.0.attn.v", 10, 6, 2),
        Site("m.layers.0.attn.o_proj", 12, WORDS, 2),
        Site("m.layers.0.mlp.up", 10, 24, 4),
        Site("m.layers.2.attn.q", 10, 10, 1),
        Site("m.layers.2.attn.v", 10, 14, 2),
        Site("m.layers.4.attn.q", 10, 10, 2),
    ),
)


def made(size: Size, queries: int = 2, layout: Layout = LAYOUT, **more: Any) -> TextToLoRA:
    torch.manual_seed(0)
    config = TextToLoRAConfig(WIDTH, size, latent=16, head_in=20, queries=queries, **more)
    return TextToLoRA(config, layout).double().eval()


def random_size(size: Size, queries: int = 2, **more: Any) -> TextToLoRA:
    module = made(size, queries, **more)
    tiny.randomise(module)
    return module


def condition(lengths: list[int], seed: int = 0) -> Condition:
    return Condition(text=descriptions(lengths, seed))


@pytest.mark.parametrize("more", VARIANTS)
@pytest.mark.parametrize("size", SIZES)
def test_the_start_changes_nothing_and_a_is_ready_to_learn(
    size: Size, more: dict[str, int]
) -> None:
    with torch.no_grad():
        adapter = made(size, **more)(condition([3, 5]))
    assert adapter.layout == LAYOUT
    for site in LAYOUT.sites:
        a, b = adapter.site(site)
        assert not (b @ a).any()
        # A starts as PEFT starts it, uniform in ±1/sqrt(in): B's first gradient is not zero.
        assert 0 < a.abs().max() <= site.in_features**-0.5
        assert a.std() == pytest.approx((3 * site.in_features) ** -0.5, rel=0.5)


@pytest.mark.parametrize("more", VARIANTS)
@pytest.mark.parametrize("size", SIZES)
def test_training_from_the_zero_start_reaches_every_parameter(
    size: Size, more: dict[str, int]
) -> None:
    module, embedded = made(size, **more), descriptions([3, 5])
    target = tiny.adapter(LAYOUT, 2, dtype=torch.float64)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        adapter = module(Condition(text=embedded))
        distance = [
            squared_delta_distance(adapter.A[k], adapter.B[k], target.A[k], target.B[k]).sum()
            for k in adapter.A
        ]
        loss = torch.stack(distance).sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("size", SIZES)
def test_ranks_beyond_a_sites_own_are_zero(size: Size) -> None:
    adapter = random_size(size)(condition([4]))
    for group in LAYOUT.groups:
        for position, site in enumerate(group.sites):
            a, b = adapter.A[group.key][0, position], adapter.B[group.key][0, position]
            assert not a[site.rank :].any() and not b[:, site.rank :].any()
            assert a[: site.rank].all() and b[:, : site.rank].all()


@pytest.mark.parametrize("more", VARIANTS)
@pytest.mark.parametrize("size", SIZES)
def test_a_batch_is_its_rows_one_by_one_and_padding_does_not_matter(
    size: Size, more: dict[str, int]
) -> None:
    module, embedded = random_size(size, **more), descriptions([3, 1, 7])
    together = module(Condition(text=embedded))
    for i in range(3):
        alone = module(Condition(text=row(embedded, i)))
        for key in together.A:
            torch.testing.assert_close(together.A[key][[i]], alone.A[key], atol=1e-12, rtol=1e-12)
            torch.testing.assert_close(together.B[key][[i]], alone.B[key], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_description_layer_and_module_are_told_apart(size: Size) -> None:
    def generated(module: TextToLoRA, text: Embeddings) -> Adapter:
        return module(Condition(text=text))

    module, embedded = random_size(size), descriptions([4, 4])
    adapter = generated(module, embedded)
    for site in LAYOUT.sites:
        a, b = adapter.site(site)
        assert not torch.allclose(b[0] @ a[0], b[1] @ a[1], rtol=1e-2)
    q = adapter.A["q_10x10"][0, :, 0]  # rank 0 of the same module in three layers
    assert not torch.allclose(q[0], q[1], rtol=1e-2)
    assert not torch.allclose(q[1], q[2], rtol=1e-2)
    assert not torch.allclose(q[0], adapter.A["v_10x6"][0, 0, 0], rtol=1e-2)
    # With queries the tokens count, not the pooled vector alone; without them they do not.
    other = replace(embedded, tokens=embedded.tokens.flip(0))
    pooled_only, lexical = random_size(size, queries=0), random_size(size, words_dim=WORDS)
    renamed = replace(embedded, words=embedded.words.flip(0))
    for key in adapter.A:
        assert torch.equal(generated(module, renamed).A[key], adapter.A[key])
        assert not torch.allclose(
            generated(lexical, renamed).A[key], generated(lexical, embedded).A[key], rtol=1e-2
        )
        assert not torch.allclose(generated(module, other).A[key], adapter.A[key], rtol=1e-2)
        assert torch.equal(
            generated(pooled_only, other).A[key], generated(pooled_only, embedded).A[key]
        )


def test_the_reader_adds_to_b_where_modules_speak_and_only_to_b() -> None:
    """A module's column is linear in the word read, through a map of its own."""
    layout = layout_of(tiny.config("llama"), ["q_proj", "v_proj", "down_proj"], rank=3)
    torch.manual_seed(0)
    reader = WordReader(WIDTH, WORDS, 5, layout).double()
    tiny.randomise(reader)
    embedded = descriptions([4, 6])
    added = reader(embedded)
    q, *speaking = layout.groups
    assert q.module_type == "q_proj"
    assert list(added) == [group.key for group in speaking]
    read = reader.read(embedded)  # (2, 3, 5)
    for group in speaking:
        for site in range(2):
            for rank in range(3):
                wanted = GAIN * read[:, rank] @ reader.maps[group.key][site].T
                torch.testing.assert_close(added[group.key][:, site, :, rank], wanted)
    # A layout that only routes gets its words all the same.
    assert list(WordReader(WIDTH, WORDS, 5, replace(layout, sites=q.sites)).maps) == [q.key]


def test_a_reader_learns_to_say_words_that_it_was_never_trained_on() -> None:
    """Copying is linear: from half of a vocabulary it carries over to the other half."""
    layout = Layout("one", 1, (Site("m.layers.0.attn.v", 6, 9, 2),))
    torch.manual_seed(0)
    vocabulary, truth = torch.randn(40, WORDS), torch.randn(WORDS, 9)

    def batch(words: range) -> tuple[Embeddings, Tensor]:
        n = len(words)
        vectors = vocabulary[list(words)][:, None]  # one word a description
        tokens, mask = torch.zeros(n, 1, WIDTH), torch.ones(n, 1, dtype=torch.bool)
        normed = torch.nn.functional.layer_norm(vectors[:, 0], (WORDS,))
        return Embeddings(torch.zeros(n, WIDTH), tokens, vectors, mask), normed @ truth

    reader = WordReader(WIDTH, WORDS, 16, layout)
    optimizer = torch.optim.Adam(reader.parameters(), lr=2e-2)
    (seen, wanted), (unseen, hidden) = batch(range(25)), batch(range(25, 40))
    for _ in range(400):
        loss = (reader(seen)["v_6x9"][:, 0, :, 0] - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    error = (reader(unseen)["v_6x9"][:, 0, :, 0] - hidden).square().mean()
    assert error < 0.02 * hidden.square().mean()


def test_sizes_differ_in_what_their_heads_cost() -> None:
    layout = layout_of(tiny.config("llama"), rank=8)
    heads = {size: made(size, 0, layout).heads for size in SIZES}
    sizes = [sum(p.numel() for p in heads[size].parameters()) for size in ("L", "M", "S")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1.5 * sizes[1] > 3 * sizes[2]


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(UsageError, match="multiple of 4"):
        TextToLoRAConfig(WIDTH, latent=18)
    with pytest.raises(UsageError, match="needs queries or a reader"):
        TextToLoRAConfig(WIDTH, words_dim=WORDS)
    with pytest.raises(UsageError, match="reader_dim needs words_dim"):
        TextToLoRAConfig(WIDTH, queries=2, reader_dim=5)
    with pytest.raises(UsageError, match="needs descriptions"):
        made("L")(Condition())


@pytest.mark.parametrize("size", SIZES)
def test_two_modules_of_one_type_in_a_layer_are_told_apart(size: Size) -> None:
    """As in an encoder-decoder or a CLIP: a learned vector names what layer and type do not."""
    twin = replace(LAYOUT.sites[0], name="m.layers.0.cross.q")
    layout = replace(LAYOUT, sites=(*LAYOUT.sites, twin))
    module = made(size, layout=layout)
    assert list(module.site_embeddings) == ["q_10x10"]
    assert not made(size).site_embeddings  # where they are named, nothing is added
    with torch.no_grad():
        adapter = module(condition([3]))
        for site in layout.sites:
            a, b = adapter.site(site)
            assert not (b @ a).any()
    tiny.randomise(module)
    adapter = module(condition([3]))
    (a, b), (other_a, other_b) = (adapter.site(site) for site in (layout.sites[0], twin))
    assert not torch.allclose(b @ a, other_b @ other_a, rtol=1e-2)
