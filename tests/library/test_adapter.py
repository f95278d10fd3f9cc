"""The adapter type: one representation whatever the leading axis, ranks and shapes."""

import pytest
import tiny
import torch

from library.adapter import Adapter, rank_mask, stack, summed, zeros
from library.errors import LayoutMismatch, UsageError
from library.layout import Layout, layout_of


@pytest.fixture
def layout() -> Layout:
    """Square and non-square modules with ranks 4, 2, 3 in turn."""
    targets = ["q_proj", "v_proj", "down_proj"]
    return tiny.with_ranks(layout_of(tiny.config("llama"), targets), [4, 2, 3, 1])


def test_factors_of_another_shape_are_refused(layout: Layout) -> None:
    made = tiny.adapter(layout, 2)
    key = layout.groups[0].key
    for broken in (made.A[key][:1], made.A[key][:, :1], made.A[key][..., :-1]):
        with pytest.raises(LayoutMismatch, match=key):
            Adapter(layout, {**made.A, key: broken}, made.B)
    with pytest.raises(LayoutMismatch, match=key):
        Adapter(layout, made.A, {**made.B, key: made.B[key].mT})


def test_a_site_has_its_own_rank_and_the_rest_is_masked(layout: Layout) -> None:
    made = tiny.adapter(layout, 2)
    for group in layout.groups:
        mask = rank_mask(group)
        assert mask.sum(dim=1).tolist() == [site.rank for site in group.sites]
        assert torch.equal(made.A[group.key] * mask[:, :, None], made.A[group.key])
        for position, site in enumerate(group.sites):
            a, b = made.site(site)
            assert a.shape == (2, site.rank, site.in_features)
            assert b.shape == (2, site.out_features, site.rank)
            whole = made.B[group.key][:, position] @ made.A[group.key][:, position]
            torch.testing.assert_close(b @ a, whole)


def test_stacking_and_selecting_are_inverse(layout: Layout) -> None:
    parts = [tiny.adapter(layout, n, seed=n) for n in (1, 3, 2)]
    together = stack(parts)
    assert len(together) == 6
    for rows, part in (([0], parts[0]), (slice(1, 4), parts[1]), (torch.tensor([4, 5]), parts[2])):
        chosen = together[rows]
        for key in chosen.A:
            assert torch.equal(chosen.A[key], part.A[key])
            assert torch.equal(chosen.B[key], part.B[key])
    with pytest.raises(LayoutMismatch):
        stack([parts[0], tiny.adapter(layout.with_rank(2))])


def test_strength_scales_delta_and_leaves_the_original(layout: Layout) -> None:
    made = tiny.adapter(layout)
    before = tiny.deltas(made)
    for name, delta in tiny.deltas(made.scaled(-2.5)).items():
        torch.testing.assert_close(delta, -2.5 * before[name])
    assert all(torch.equal(delta, before[name]) for name, delta in tiny.deltas(made).items())


def test_another_rank_keeps_the_best_of_delta(layout: Layout) -> None:
    made = tiny.adapter(layout, dtype=torch.float64)
    before = tiny.deltas(made)
    wide, narrow = made.with_rank(7), made.with_rank(2)
    assert {site.rank for site in wide.layout.sites} == {7}
    for site in layout.sites:
        torch.testing.assert_close(tiny.deltas(wide)[site.name], before[site.name])
        lost = torch.linalg.matrix_norm(tiny.deltas(narrow)[site.name] - before[site.name])
        singular = torch.linalg.svdvals(before[site.name])
        torch.testing.assert_close(lost, singular[2:].norm(), atol=1e-12, rtol=1e-9)
    with pytest.raises(UsageError, match="rank 0"):
        made.with_rank(0)


def test_zero_adapters_are_known_as_such(layout: Layout) -> None:
    made = zeros(layout, 3, dtype=torch.float64)
    assert len(made) == 3
    assert made.is_zero()
    assert {tensor.dtype for tensor in made.A.values()} == {torch.float64}
    some = tiny.adapter(layout)
    assert not some.is_zero()
    assert some.scaled(0.0).is_zero()
    assert Adapter(layout, zeros(layout).A, some.B).is_zero()


def test_a_module_of_another_layout_is_not_found(layout: Layout) -> None:
    with pytest.raises(LayoutMismatch, match=r"h\.0\.attn\.c_attn"):
        tiny.adapter(layout).site(layout_of(tiny.config("gpt2")).sites[0])


def test_conversion_changes_all_factors(layout: Layout) -> None:
    made = tiny.adapter(layout).to(dtype=torch.bfloat16)
    assert {t.dtype for t in [*made.A.values(), *made.B.values()]} == {torch.bfloat16}
    assert {t.dtype for t in made.to(device="cpu").A.values()} == {torch.bfloat16}


def test_summed_adapters_add_up_module_by_module(layout: Layout) -> None:
    """One adapter is added to each of several, which lack a module and have one of their own."""
    single = tiny.adapter(layout_of(tiny.config("llama"), ["k_proj", "q_proj"], rank=2), seed=9)
    several = tiny.adapter(layout, 3)
    total = summed(single, several)
    assert len(total) == 3
    ranks = {name: single.layout.ranks.get(name, 0) for name in layout.ranks}
    assert total.layout.ranks == {
        **single.layout.ranks, **{name: ranks[name] + own for name, own in layout.ranks.items()}
    }  # fmt: skip
    for row in range(3):
        deltas = tiny.deltas(total[[row]])
        first, second = tiny.deltas(single), tiny.deltas(several[[row]])
        for name, delta in deltas.items():
            parts = [part[name] for part in (first, second) if name in part]
            torch.testing.assert_close(delta, torch.stack(parts).sum(dim=0))
