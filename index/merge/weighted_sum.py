"""The weighted sum of adapters, exact in ΔW: concatenate the factors, recompress.

[B1, …, BK]·[A1; …; AK] is the sum of the products. Adding the factors themselves, as is often done,
brings in cross terms Bi·Aj and depends on how each ΔW happens to be factored.
"""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from library.adapter import Adapter, rank_mask
from library.errors import UsageError
from library.layout import Layout


def weighted_sum(
    adapters: Sequence[Adapter], weights: Sequence[float], rank: int | None = None
) -> Adapter:
    """Σ w·ΔW, row by row where the adapters hold several.

    Args:
        adapters: of one layout up to rank; their ranks, and those of their modules, may differ.
        weights: one finite number for each.
        rank: None keeps the sum exact, at the sum of the ranks. Otherwise every module gets this
            rank: below the sum of the ranks it is the best approximation (see
            library.factored), else zero-padded.
    Returns:
        Factors in float32, or in float64 if any adapter has them.
    Raises:
        UsageError: no adapters, not one finite weight for each, or a rank below 1.
        LayoutMismatch: other modules or shapes.
    """
    require_mergeable(adapters, weights)
    if rank is not None and rank < 1:
        raise UsageError(f"rank must be at least 1, not {rank}")
    device = adapters[0].factors()[0].device
    numbers = torch.tensor(list(weights), dtype=torch.float64, device=device)
    # (adapters,) to (adapters, 1, sites)
    by_module = numbers[:, None, None].expand(-1, 1, len(adapters[0].layout.sites))
    joined = sum_by_module(adapters, by_module)
    return joined if rank is None else joined.recompressed(rank)


def sum_by_module(
    adapters: Sequence[Adapter], weights: Float[Tensor, "adapters #n sites"]
) -> Adapter:
    """The same with a weight for each module, in the layout's order; differentiable in them.

    The adapters are of one layout up to rank; the result has the sum of the ranks.
    """
    wide = any(factor.dtype == torch.float64 for item in adapters for factor in item.factors())
    parts = [item.to(dtype=torch.float64 if wide else torch.float32) for item in adapters]
    layout = reduce(Layout.joined, (part.layout for part in parts))
    a, b = {}, {}
    for i, group in enumerate(layout.groups):
        key = group.key
        scale = weights[..., group.indices, None, None]  # (adapters, n or 1, sites, 1, 1)
        scaled = [p.B[key] * w.to(p.B[key].dtype) for p, w in zip(parts, scale, strict=True)]
        joined_a = torch.cat([part.A[key] for part in parts], dim=-2)  # (n, sites, Σ r, in)
        joined_b = torch.cat(scaled, dim=-1)  # (n, sites, out, Σ r)
        masks = [rank_mask(part.layout.groups[i], joined_a.device) for part in parts]
        real = torch.cat(masks, dim=-1) > 0  # (sites, Σ r)
        a[key], b[key] = _without_padding(joined_a, joined_b, real, group.rank)
    return Adapter(layout, a, b)


def require_mergeable(adapters: Sequence[Adapter], weights: Sequence[float]) -> None:
    """Raise UsageError or LayoutMismatch unless these can be summed with these weights."""
    if not adapters:
        raise UsageError("there is no adapter to merge")
    if len(weights) != len(adapters):
        raise UsageError(f"{len(adapters)} adapters need as many weights, not {len(weights)}")
    if not all(math.isfinite(weight) for weight in weights):
        raise UsageError("a weight must be a finite number")
    shapes = adapters[0].layout.with_rank(1)
    for number, other in enumerate(adapters[1:], start=2):
        shapes.require_same(other.layout.with_rank(1), "adapter 1", f"adapter {number}")


def _without_padding(
    a: Float[Tensor, "n sites c i"],
    b: Float[Tensor, "n sites o c"],
    real: Bool[Tensor, "sites c"],
    rank: int,
) -> tuple[Float[Tensor, "n sites r i"], Float[Tensor, "n sites o r"]]:
    """Each site's own ranks moved to the front, of which there are at most `rank`."""
    if bool(real.all()):
        return a, b
    order = real.logical_not().int().argsort(dim=-1, stable=True)[:, :rank]  # (sites, r)
    sites = torch.arange(len(order), device=a.device)[:, None]
    # Indexed by (sites, 1) and (sites, r): A (n, sites, r, i), and B by way of (n, sites, r, o)
    return a[:, sites, order], b.mT[:, sites, order].mT
