"""The weighted sum of adapters, exact in ΔW: concatenate the factors, recompress.

[B1, …, BK]·[A1; …; AK] is the sum of the products. Adding the factors themselves, as is often done,
brings in cross terms Bi·Aj and depends on how each ΔW happens to be factored.
"""

import math
from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from library.adapter import Adapter, of_all_modules
from library.errors import UsageError
from library.layout import Group, Layout


def weighted_sum(
    adapters: Sequence[Adapter], weights: Sequence[float], rank: int | None = None
) -> Adapter:
    """Σ w·ΔW, row by row where the adapters hold several.

    Args:
        adapters: of one base; modules and ranks may differ.
        weights: one finite number for each.
        rank: None keeps the sum exact, at the sum of the ranks. Otherwise every module gets this
            rank: below the sum of the ranks it is the best approximation (see
            library.factored), else zero-padded.
    Returns:
        Factors in float32, or in float64 if any adapter has them.
    Raises:
        UsageError: no adapters, not one finite weight for each, or a rank below 1.
        LayoutMismatch: modules of other shapes.
    """
    require_mergeable(adapters, weights)
    if rank is not None and rank < 1:
        raise UsageError(f"rank must be at least 1, not {rank}")
    device = adapters[0].factors()[0].device
    numbers = torch.tensor(list(weights), dtype=torch.float64, device=device)
    # (adapters,) to (adapters, 1, 1)
    joined = sum_by_module(adapters, numbers[:, None, None])
    return joined if rank is None else joined.recompressed(rank)


def sum_by_module(
    adapters: Sequence[Adapter], weights: Float[Tensor, "adapters #n #sites"]
) -> Adapter:
    """The same with a weight for each module, differentiable in them.

    The modules are those of all adapters in the order of `Layout.joined`; each gets the sum of the
    ranks of those that have it.
    """
    wide = any(factor.dtype == torch.float64 for item in adapters for factor in item.factors())
    own = [item.layout.ranks for item in adapters]
    layout = reduce(Layout.joined, (item.layout for item in adapters))
    dtype = torch.float64 if wide else torch.float32
    parts = [item.to(dtype=dtype) for item in of_all_modules(adapters)]
    weights = weights.expand(-1, -1, len(layout.sites))
    a, b = {}, {}
    for group in layout.groups:
        key = group.key
        scale = weights[..., group.indices, None, None]  # (adapters, n or 1, sites, 1, 1)
        scaled = [p.B[key] * w.to(p.B[key].dtype) for p, w in zip(parts, scale, strict=True)]
        joined_a = torch.cat([part.A[key] for part in parts], dim=-2)  # (n, sites, Σ r, in)
        joined_b = torch.cat(scaled, dim=-1)  # (n, sites, out, Σ r)
        columns = [part.A[key].shape[-2] for part in parts]
        masks = [_mask(group, ranks, r) for ranks, r in zip(own, columns, strict=True)]
        real = torch.cat(masks, dim=-1).to(joined_a.device)  # (sites, Σ r)
        a[key], b[key] = _without_padding(joined_a, joined_b, real, group.rank)
    return Adapter(layout, a, b)


def _mask(group: Group, ranks: Mapping[str, int], columns: int) -> Bool[Tensor, "sites columns"]:
    """Which columns are an adapter's own ranks, of which it has none where it lacks the module."""
    own = torch.tensor([ranks.get(site.name, 0) for site in group.sites])
    return torch.arange(columns) < own[:, None]  # (sites, columns)


def require_mergeable(adapters: Sequence[Adapter], weights: Sequence[float]) -> None:
    """Raise UsageError or LayoutMismatch unless these can be summed with these weights."""
    if not adapters:
        raise UsageError("there is no adapter to merge")
    if len(weights) != len(adapters):
        raise UsageError(f"{len(adapters)} adapters need as many weights, not {len(weights)}")
    if not all(math.isfinite(weight) for weight in weights):
        raise UsageError("a weight must be a finite number")
    reduce(Layout.covering, (adapter.layout for adapter in adapters))


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
