"""Shares that are computed at each site from its input, held to dense arithmetic in float64."""

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from library.adapter import Adapter
from library.base.multi_adapter import MultiAdapter
from library.errors import LayoutMismatch
from library.layout import Layout, layout_of

LAYOUT = tiny.with_ranks(
    layout_of(tiny.config("llama"), ["q_proj", "v_proj", "down_proj"]), [3, 5, 2]
)
MODEL = tiny.model(tiny.config("llama"), dtype=torch.float64)
N = 3


def gates(seed: int = 0) -> dict[str, Tensor]:
    """A matrix (n, in) for each site, whose softmax gives the shares."""
    generator = torch.Generator().manual_seed(seed)
    return {
        site.name: torch.randn(N, site.in_features, generator=generator, dtype=torch.float64)
        for site in LAYOUT.sites
    }


def logits(adapter: Adapter, shares: object, ids: Tensor) -> Tensor:
    hooks = MultiAdapter(MODEL, LAYOUT)
    try:
        (hooks.set_mixture if isinstance(shares, Tensor) else hooks.set_shares)(adapter, shares)  # type: ignore[arg-type]
        return MODEL(ids).logits
    finally:
        hooks.close()


class Dense(nn.Module):
    """A linear layer with every ΔW formed, summed token by token."""

    def __init__(self, linear: nn.Module, deltas: list[Tensor], gate: Tensor) -> None:
        super().__init__()
        self.linear, self.deltas, self.gate = linear, deltas, gate

    def forward(self, x: Tensor) -> Tensor:
        shares, out = (x @ self.gate.mT).softmax(-1), self.linear(x)
        return out + sum(shares[..., [j]] * (x @ d.mT) for j, d in enumerate(self.deltas))


def dense_logits(
    adapter: Adapter, by_site: dict[str, Tensor], layout: Layout, ids: Tensor
) -> Tensor:
    model = tiny.model(tiny.config("llama"), dtype=torch.float64)
    deltas = [tiny.deltas(adapter, j) for j in range(N)]
    for site in layout.sites:
        parent, _, child = site.name.rpartition(".")
        linear = model.get_submodule(site.name)
        dense = Dense(linear, [d[site.name] for d in deltas], by_site[site.name])
        setattr(model.get_submodule(parent), child, dense)
    return model(ids).logits


def test_shares_of_each_token_and_site_are_those_of_dense_arithmetic() -> None:
    adapter, ids = tiny.adapter(LAYOUT, N, dtype=torch.float64), tiny.tokens(2, 7)
    by_site = {name: gate.requires_grad_() for name, gate in gates().items()}
    found = logits(adapter, lambda name, x: (x @ by_site[name].mT).softmax(-1), ids)
    expected = dense_logits(adapter, by_site, LAYOUT, ids)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    mine, theirs = (
        torch.autograd.grad(out.square().sum(), [*by_site.values()]) for out in (found, expected)
    )
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
        assert one.abs().max() > 1e-3


@given(st.integers(0, 99), st.booleans())
def test_shares_that_no_input_changes_are_a_mixture(seed: int, by_token: bool) -> None:
    adapter, ids = tiny.adapter(LAYOUT, N, dtype=torch.float64), tiny.tokens(2, 5)
    weights = torch.randn(2, N, generator=torch.Generator().manual_seed(seed)).double()
    length = 5 if by_token else 1
    constant = weights[:, None].expand(2, length, N)
    mixed, shared = (logits(adapter, s, ids) for s in (weights, lambda name, x: constant))
    torch.testing.assert_close(shared, mixed, rtol=0, atol=1e-12)


def test_no_shares_are_the_base_and_another_layout_is_a_mismatch() -> None:
    adapter, ids = tiny.adapter(LAYOUT, N, dtype=torch.float64), tiny.tokens(1, 5)
    assert torch.equal(logits(adapter, lambda name, x: None, ids), MODEL(ids).logits)
    with pytest.raises(LayoutMismatch):
        logits(tiny.adapter(LAYOUT.with_rank(2)), lambda name, x: None, ids)
