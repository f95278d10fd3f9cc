"""How two adapters relate, module by module, in numbers that do not depend on their factors.

Everything is read off ΔW through the small cores of one joint QR, so a change of gauge, the order
of the ranks or the basis of a repeated singular value changes nothing.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from library.layout import Group, Layout

FEATURES = 12
_TINY = 1e-12  # where a ΔW is zero, its logarithms stop here


class _Module(NamedTuple):
    """What one group of modules says of two adapters; each `[n, sites]`."""

    ours: Tensor  # ‖ΔW‖ of the one
    theirs: Tensor  # and of the other
    inner: Tensor  # ⟨ΔW, ΔW'⟩
    rows: Tensor  # ‖ΔW·ΔW'ᵀ‖: how far both read the same inputs
    columns: Tensor  # ‖ΔWᵀ·ΔW'‖: how far both write the same outputs
    our_peak: Tensor  # largest singular value
    their_peak: Tensor


def pair_features(first: Adapter, second: Adapter) -> Float[Tensor, "n sites features"]:
    """Features of the first adapter of each pair beside the second, in float64.

    Args:
        first: n adapters, and
        second: n of the same layout up to rank.
    Returns:
        For each module, in the layout's order: the logarithm of the ratio of the norms; cosine;
        overlap of the inputs and of the outputs; how much of each lies in its first direction; each
        norm beside its adapter's mean; depth; shape; ratio of the norms and cosine of the whole.
    """
    layout = first.layout
    found = [_module(first, second, group) for group in layout.groups]
    order = _order(layout)
    m = _Module(*(torch.cat(parts, dim=-1)[:, order] for parts in zip(*found, strict=True)))
    product = (m.ours * m.theirs).clamp_min(_TINY)
    whole_ours, whole_theirs = m.ours.norm(dim=-1), m.theirs.norm(dim=-1)
    cosine = m.inner.sum(-1) / (whole_ours * whole_theirs).clamp_min(_TINY)
    like = torch.ones_like(m.ours)
    shape = torch.tensor([s.out_features / (s.in_features * s.kernel) for s in layout.sites])
    depth = torch.tensor([s.depth / max(1, layout.depth - 1) for s in layout.sites])
    return torch.stack(
        [
            _log_ratio(m.ours, m.theirs),
            m.inner / product,
            m.rows / product,
            m.columns / product,
            m.our_peak / m.ours.clamp_min(_TINY),
            m.their_peak / m.theirs.clamp_min(_TINY),
            _log_ratio(m.ours, m.ours.mean(-1, keepdim=True)),
            _log_ratio(m.theirs, m.theirs.mean(-1, keepdim=True)),
            like * depth.to(like),
            like * shape.to(like).log(),
            like * _log_ratio(whole_ours, whole_theirs)[:, None],
            like * cosine[:, None],
        ],
        dim=-1,
    )


def _module(first: Adapter, second: Adapter, group: Group) -> _Module:
    """Both ΔW in the coordinates of one joint QR: small matrices with the same inner products."""
    a1, b1 = first.A[group.key].double(), first.B[group.key].double()
    a2, b2 = second.A[group.key].double(), second.B[group.key].double()
    r_b = torch.linalg.qr(torch.cat([b1, b2], dim=-1), mode="r").R  # (n, sites, k, r+s)
    r_a = torch.linalg.qr(torch.cat([a1, a2], dim=-2).mT, mode="r").R  # (n, sites, m, r+s)
    split = a1.shape[-2]
    ours = r_b[..., :split] @ r_a[..., :split].mT  # (n, sites, k, m)
    theirs = r_b[..., split:] @ r_a[..., split:].mT
    norm = torch.linalg.matrix_norm
    return _Module(
        norm(ours),
        norm(theirs),
        (ours * theirs).sum((-2, -1)),
        norm(ours @ theirs.mT),
        norm(ours.mT @ theirs),
        norm(ours, ord=2),
        norm(theirs, ord=2),
    )


def _order(layout: Layout) -> list[int]:
    """Where each of the layout's sites stands when groups follow each other."""
    names = [site.name for group in layout.groups for site in group.sites]
    place = {name: i for i, name in enumerate(names)}
    return [place[site.name] for site in layout.sites]


def _log_ratio(a: Tensor, b: Tensor) -> Tensor:
    """log(a/b), within ±5."""
    return (a.clamp_min(_TINY).log() - b.clamp_min(_TINY).log()).clamp(-5.0, 5.0)
