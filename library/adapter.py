"""The one representation: an adapter, a library and a generator's output differ in one axis only.

For each group of a layout: A `[n, sites, rank, in]` and B `[n, sites, out, rank]`, with
ΔW = B·A (any scale is folded into B). One adapter is n = 1. Rows and columns beyond a site's own
rank are zero.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from library.errors import LayoutMismatch
from library.factored import inner_products, projected, reaches_projection, with_rank
from library.layout import Group, Layout, Site

# By a group's key: A is `[n, sites, rank, in]`, B is `[n, sites, out, rank]`.
Factors = dict[str, Float[Tensor, "_n _sites _rows _columns"]]


@dataclass(frozen=True)
class Adapter:
    """`n` adapters of one layout. Immutable by convention: operations return a new one."""

    layout: Layout
    A: Factors
    B: Factors

    def __post_init__(self) -> None:
        n = len(self)
        for group in self.layout.groups:
            a, b = self.A[group.key], self.B[group.key]
            shape_a = (n, len(group.sites), group.rank, group.in_features)
            shape_b = (n, len(group.sites), group.out_features, group.rank)
            if tuple(a.shape) != shape_a or tuple(b.shape) != shape_b:
                raise LayoutMismatch(
                    f"factors of {group.key} have shapes {tuple(a.shape)} and {tuple(b.shape)}; "
                    f"the layout says {shape_a} and {shape_b}"
                )

    def __len__(self) -> int:
        return self.A[self.layout.groups[0].key].shape[0]

    def __getitem__(self, rows: Sequence[int] | slice | Tensor) -> "Adapter":
        """A selection along the leading axis (list, slice or index tensor)."""
        return self._map(lambda tensor: tensor[rows])

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Adapter":
        return self._map(lambda tensor: tensor.to(device=device, dtype=dtype))

    def factors(self) -> list[Tensor]:
        """Every A, then every B, in the layout's order of groups."""
        keys = [group.key for group in self.layout.groups]
        return [*(self.A[key] for key in keys), *(self.B[key] for key in keys)]

    def detached(self) -> "Adapter":
        """The same numbers as leaves that gather gradients of their own."""
        return self._map(lambda tensor: tensor.detach().requires_grad_())

    def scaled(self, strength: float) -> "Adapter":
        """ΔW times `strength`, folded into B."""
        return replace(self, B={key: b * strength for key, b in self.B.items()})

    def with_rank(self, rank: int) -> "Adapter":
        """Every site at `rank`: truncated to the best approximation of ΔW, or zero-padded."""
        return self._at_rank(with_rank, rank)

    def recompressed(self, rank: int) -> "Adapter":
        """The same, by random projection where the present rank is large.

        Computed in float64, whatever the factors are stored in. Raises UsageError for a rank
        below 1.
        """
        large = reaches_projection(self.layout.rank, rank)
        return self._at_rank(projected if large else with_rank, rank)

    def expanded(self, layout: Layout) -> "Adapter":
        """The same ΔW in a layout with more modules or ranks, exactly: what is added is zero.

        Raises LayoutMismatch for a layout that lacks a module, or has less rank or another shape.
        """
        if layout == self.layout:
            return self
        if layout.covering(self.layout) != layout:
            layout.require_same(self.layout, "the wider layout", "the adapter")
        like = self.factors()[0]
        total = zeros(layout, len(self), dtype=like.dtype, device=like.device)
        _place(total, self, {})
        return total

    def inner_products(self, others: "Adapter") -> Float[Tensor, "n m sites"]:
        """⟨ΔW, ΔW'⟩ of every module in the layout's order, in float64.

        `others` are m adapters of the same modules in any order, at any ranks.
        """
        products = torch.zeros(len(self), len(others), len(self.layout.sites), dtype=torch.float64)
        for group in self.layout.groups:
            order = [others.layout.position(site.name)[1] for site in group.sites]
            a, b = others.A[group.key], others.B[group.key]
            if order != sorted(order):  # indexing would copy
                a, b = a[:, order], b[:, order]
            products[..., group.indices] = inner_products(
                self.A[group.key], self.B[group.key], a, b
            )
        return products

    def site(self, site: Site) -> tuple[Tensor, Tensor]:
        """The factors of the module of a site's name: A `[n, rank, in]`, B `[n, out, rank]`.

        The rank is the one that it has in this adapter. Raises LayoutMismatch.
        """
        group, index = self.layout.position(site.name)
        rank = group.sites[index].rank
        return self.A[group.key][:, index, :rank], self.B[group.key][:, index, :, :rank]

    def is_finite(self) -> bool:
        """True if every weight is a finite number."""
        return all(bool(factor.isfinite().all()) for factor in self.factors())

    def is_zero(self) -> bool:
        """True if ΔW is exactly zero everywhere because A or B is."""
        return all(
            not self.A[group.key].any() or not self.B[group.key].any()
            for group in self.layout.groups
        )

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Adapter":
        return Adapter(
            self.layout,
            {key: function(tensor) for key, tensor in self.A.items()},
            {key: function(tensor) for key, tensor in self.B.items()},
        )

    def _at_rank(
        self, method: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]], rank: int
    ) -> "Adapter":
        layout = self.layout.with_rank(rank)
        pairs = {key: method(self.A[key], self.B[key], rank) for key in self.A}
        return Adapter(
            layout,
            {key: pair[0] for key, pair in pairs.items()},
            {key: pair[1] for key, pair in pairs.items()},
        )


def summed(first: Adapter, second: Adapter) -> Adapter:
    """n adapters whose ΔW are the sums of those of two, exactly: the ranks lie side by side.

    The layout is `first.layout.joined(second.layout)`; the numbers are of the second's type and lie
    where it does.

    Args:
        first: n adapters, or one that is added to each of the second's.
        second: n adapters, or one.
    """
    parts, union = (first, second), first.layout.joined(second.layout)
    like = second.factors()[0]
    total, start = zeros(union, max(map(len, parts)), dtype=like.dtype, device=like.device), {}
    for part in parts:
        _place(total, part, start)
        start = part.layout.ranks
    return total


def _place(total: Adapter, part: Adapter, start: Mapping[str, int]) -> None:
    """Write an adapter's ranks into a wider one, in each module from a rank on (0 by default)."""
    for site in part.layout.sites:
        (group, index), first = total.layout.position(site.name), start.get(site.name, 0)
        a, b = part.site(site)
        own = slice(first, first + site.rank)
        total.A[group.key][:, index, own], total.B[group.key][:, index, :, own] = a, b


def zeros(layout: Layout, n: int = 1, **kwargs: Any) -> Adapter:
    """`n` adapters that change nothing; `kwargs` are those of torch.zeros."""
    a, b = {}, {}
    for group in layout.groups:
        lead = (n, len(group.sites))
        a[group.key] = torch.zeros(*lead, group.rank, group.in_features, **kwargs)
        b[group.key] = torch.zeros(*lead, group.out_features, group.rank, **kwargs)
    return Adapter(layout, a, b)


def stack(adapters: Sequence[Adapter]) -> Adapter:
    """Join adapters of one layout along the leading axis. Raises LayoutMismatch."""
    first = adapters[0]
    for other in adapters[1:]:
        first.layout.require_same(other.layout, "the first adapter", "another one")
    return Adapter(
        first.layout,
        {key: torch.cat([item.A[key] for item in adapters]) for key in first.A},
        {key: torch.cat([item.B[key] for item in adapters]) for key in first.B},
    )


def stack_padded(adapters: Sequence[Adapter]) -> Adapter:
    """Join adapters of one base: all modules that any has, all at the largest rank.

    Raises LayoutMismatch.
    """
    layout = reduce(Layout.covering, (adapter.layout for adapter in adapters))
    layout = layout.with_rank(layout.rank)
    return stack([adapter.expanded(layout) for adapter in adapters])


def of_all_modules(adapters: Sequence[Adapter]) -> list[Adapter]:
    """Each with the modules of all: at its own ranks, or zero of rank 1 where it lacks one.

    Raises LayoutMismatch for adapters of different bases.
    """
    union = reduce(Layout.covering, (adapter.layout for adapter in adapters))
    ones = dict.fromkeys(union.ranks, 1)
    return [each.expanded(union.with_ranks(ones | each.layout.ranks)) for each in adapters]


def from_sites(layout: Layout, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> Adapter:
    """One adapter of each site's factors, A `(rank, in)` and B `(out, rank)`, by the site's name.

    The ranks are the factors' own; the layout gives the order.
    """
    layout = layout.with_ranks({site.name: len(pairs[site.name][0]) for site in layout.sites})
    adapter = zeros(layout, dtype=pairs[layout.sites[0].name][0].dtype)
    for group in adapter.layout.groups:
        for index, site in enumerate(group.sites):
            a, b = pairs[site.name]
            adapter.A[group.key][0, index, : site.rank] = a
            adapter.B[group.key][0, index, :, : site.rank] = b
    return adapter


def rank_mask(group: Group, device: torch.device | None = None) -> Float[Tensor, "sites rank"]:
    """Ones for each site's own ranks, zeros for the group's padding: `[sites, rank]`."""
    ranks = torch.tensor([site.rank for site in group.sites], device=device)
    return (torch.arange(group.rank, device=device) < ranks[:, None]).float()  # (sites, rank)
