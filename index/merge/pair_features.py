"""The relation of two adapters, module by module, in numbers free of how ΔW is factored.

Everything is read off ΔW through the small cores of one joint QR, so a change of gauge, the order
of the ranks or the basis of a repeated singular value changes nothing.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from library.layout import Group

FEATURES = 12
_TINY = 1e-12  # where a ΔW is zero, its logarithms stop here


class _Relation(NamedTuple):
    """Two adapters' ΔW and ΔW', compared module by module; each `[n, sites]`."""

    norm1: Tensor  # ‖ΔW‖
    norm2: Tensor  # ‖ΔW'‖
    inner: Tensor  # ⟨ΔW, ΔW'⟩
    rows: Tensor  # ‖ΔW·ΔW'ᵀ‖: how far both read the same inputs
    columns: Tensor  # ‖ΔWᵀ·ΔW'‖: how far both write the same outputs
    peak1: Tensor  # largest singular value of ΔW
    peak2: Tensor


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
    # 1. Group by group, then in the layout's order.
    by_group = [_relation(first, second, group) for group in layout.groups]
    order = torch.tensor([i for group in layout.groups for i in group.indices]).argsort()
    m = _Relation(*(torch.cat(parts, dim=-1)[:, order] for parts in zip(*by_group, strict=True)))
    # 2. Of the adapters as wholes.
    product = (m.norm1 * m.norm2).clamp_min(_TINY)
    total1, total2 = m.norm1.norm(dim=-1), m.norm2.norm(dim=-1)  # (n,)
    cosine = m.inner.sum(-1) / (total1 * total2).clamp_min(_TINY)
    # 3. Of the modules themselves, the same for every pair.
    like = torch.ones_like(m.norm1)
    shape = torch.tensor([s.out_features / (s.in_features * s.kernel) for s in layout.sites])
    depth = torch.tensor([s.depth / max(1, layout.depth - 1) for s in layout.sites])
    return torch.stack(  # (n, sites) each to (n, sites, features)
        [
            _log_ratio(m.norm1, m.norm2),
            m.inner / product,
            m.rows / product,
            m.columns / product,
            m.peak1 / m.norm1.clamp_min(_TINY),
            m.peak2 / m.norm2.clamp_min(_TINY),
            _log_ratio(m.norm1, m.norm1.mean(-1, keepdim=True)),
            _log_ratio(m.norm2, m.norm2.mean(-1, keepdim=True)),
            like * depth.to(like),
            like * shape.to(like).log(),
            like * _log_ratio(total1, total2)[:, None],
            like * cosine[:, None],
        ],
        dim=-1,
    )


def _relation(first: Adapter, second: Adapter, group: Group) -> _Relation:
    """Both ΔW in the coordinates of one joint QR: small matrices with the same inner products."""
    a1, b1 = first.A[group.key].double(), first.B[group.key].double()
    a2, b2 = second.A[group.key].double(), second.B[group.key].double()
    r_b = torch.linalg.qr(torch.cat([b1, b2], dim=-1), mode="r").R  # (n, sites, k, r+s)
    r_a = torch.linalg.qr(torch.cat([a1, a2], dim=-2).mT, mode="r").R  # (n, sites, m, r+s)
    split = a1.shape[-2]
    core1 = r_b[..., :split] @ r_a[..., :split].mT  # (n, sites, k, m)
    core2 = r_b[..., split:] @ r_a[..., split:].mT  # (n, sites, k, m)
    norm = torch.linalg.matrix_norm
    return _Relation(
        norm(core1),
        norm(core2),
        (core1 * core2).sum((-2, -1)),
        norm(core1 @ core2.mT),
        norm(core1.mT @ core2),
        norm(core1, ord=2),
        norm(core2, ord=2),
    )


def _log_ratio(a: Tensor, b: Tensor) -> Tensor:
    """log(a/b), within ±5."""
    return (a.clamp_min(_TINY).log() - b.clamp_min(_TINY).log()).clamp(-5.0, 5.0)
