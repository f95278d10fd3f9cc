"""Adapters as vectors: exact both ways, in the layout's order, in the training set's deviations."""

from dataclasses import replace

import pytest
import tiny
import torch

from generator.layers.flattened import (
    ZScore,
    flatten,
    per_value,
    tensor_sizes,
    unflatten,
    weight_statistics,
)
from library.adapter import Adapter, stack
from library.errors import LayoutMismatch, UsageError
from library.layout import Layout, Site, layout_of

# Shapes of one type, ranks within a group and the order of groups all differ.
MIXED = Layout(
    "mixed",
    3,
    (
        Site("m.layers.0.attn.q", 10, 10, 3),
        Site("m.layers.0.mlp.up", 10, 24, 4),
        Site("m.layers.1.attn.q", 10, 10, 1),
        Site("m.layers.2.attn.v", 10, 6, 2),
        Site("m.layers.2.conv", 2, 5, 2, kernel=9),
        Site("m.layers.2.attn.q", 10, 10, 2),
    ),
)
LAYOUTS = [MIXED, *(layout_of(tiny.config(f), rank=3) for f in ("llama", "gpt2", "phi3"))]
by_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.model_type)


def same(left: Adapter, right: Adapter) -> bool:
    pairs = zip(left.factors(), right.factors(), strict=True)
    return left.layout == right.layout and all(torch.equal(a, b) for a, b in pairs)


def family(layout: Layout, n: int = 6) -> Adapter:
    """Adapters about a common one, as those of a library with one start are."""
    common, own = tiny.adapter(layout, seed=1), tiny.adapter(layout, n, seed=2)
    return stack([unflatten(layout, flatten(common) + 0.1 * flatten(own[[i]])) for i in range(n)])


@by_layout
def test_vectors_come_back_exactly_and_hold_weights_only(layout: Layout) -> None:
    adapters = tiny.adapter(layout, 3)
    values = flatten(adapters)
    assert values.shape == (3, sum(tensor_sizes(layout)))
    assert values.ne(0).all()  # no padded rank among them
    assert same(unflatten(layout, values), adapters)
    assert torch.equal(flatten(unflatten(layout, values)), values)


@by_layout
def test_the_order_is_the_layout_s(layout: Layout) -> None:
    adapters = tiny.adapter(layout, 2)
    start = 0
    for site, sizes in zip(
        layout.sites, torch.tensor(tensor_sizes(layout)).view(-1, 2).tolist(), strict=True
    ):
        for factor, size in zip(adapters.site(site), sizes, strict=True):
            assert torch.equal(flatten(adapters)[:, start : start + size], factor.flatten(1))
            start += size
    assert start == flatten(adapters).shape[1]


def test_gradients_pass_through_both_ways() -> None:
    values = torch.randn(2, sum(tensor_sizes(MIXED)), dtype=torch.float64, requires_grad=True)
    flatten(unflatten(MIXED, values)).square().sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, 2 * values.detach())


def test_a_vector_of_another_layout_is_refused() -> None:
    with pytest.raises(UsageError, match=r"has \d+ weights, not 7"):
        unflatten(MIXED, torch.zeros(1, 7))


@by_layout
def test_statistics_are_a_mean_an_entry_and_a_deviation_a_tensor(layout: Layout) -> None:
    adapters = family(layout)
    mean, deviation = weight_statistics(adapters)
    values = flatten(adapters).double()
    torch.testing.assert_close(mean.double(), values.mean(0), atol=1e-7, rtol=1e-6)
    parts = (values - values.mean(0)).split(tensor_sizes(layout), dim=1)
    expected = torch.stack([part.square().mean().sqrt() for part in parts])
    torch.testing.assert_close(deviation.double(), expected, atol=1e-7, rtol=1e-6)
    spread = per_value(layout, deviation)
    for part, value in zip(spread.split(tensor_sizes(layout)), deviation, strict=True):
        assert (part == value).all()


@by_layout
def test_z_scores_go_back_to_the_weights(layout: Layout) -> None:
    adapters, scores = family(layout), ZScore(layout)
    scores.fit(adapters)
    values = flatten(adapters)
    z = scores(values)
    torch.testing.assert_close(scores.inverse(z), values, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(z.mean(0), torch.zeros(z.shape[1]), atol=1e-5, rtol=0)
    for part in z.split(tensor_sizes(layout), dim=1):
        assert part.square().mean().item() == pytest.approx(1, rel=1e-4)


def test_what_all_adapters_share_comes_back_to_the_bit() -> None:
    """As the A of a library whose recipe freezes it."""
    adapters = family(MIXED)
    frozen = replace(adapters, A={k: a[:1].expand_as(a) for k, a in adapters.A.items()})
    scores = ZScore(MIXED)
    scores.fit(frozen)
    z = scores(flatten(frozen))
    back = unflatten(MIXED, scores.inverse(z + 1))  # whatever a network makes of it
    for key, a in frozen.A.items():
        assert torch.equal(back.A[key], a)
        assert not torch.equal(back.B[key], frozen.B[key])
    assert z.isfinite().all()


@by_layout
def test_before_they_are_taken_statistics_are_those_of_untrained_adapters(layout: Layout) -> None:
    made = unflatten(layout, ZScore(layout).inverse(torch.randn(2, sum(tensor_sizes(layout)))))
    for site in layout.sites:
        a, b = made.site(site)
        assert not b.any()
        assert a.std() == pytest.approx((3 * site.in_features * site.kernel) ** -0.5, rel=0.5)


def test_statistics_that_say_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="two adapters at least"):
        ZScore(MIXED).fit(tiny.adapter(MIXED))
    with pytest.raises(UsageError, match="that differ"):
        ZScore(MIXED).fit(stack([tiny.adapter(MIXED)] * 3))
    with pytest.raises(LayoutMismatch, match="the training adapters"):
        ZScore(MIXED).fit(tiny.adapter(LAYOUTS[1], 2))
