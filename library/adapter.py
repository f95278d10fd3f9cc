"""The one representation: an adapter, a library and a generator's output differ in one axis only.

For each group of a layout: A `[n, sites, rank, in]` and B `[n, sites, out, rank]`, with
ΔW = B·A (any scale is folded into B). One adapter is n = 1. Rows and columns beyond a site's own
rank are zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from library.errors import LayoutMismatch
from library.factored import with_rank
from library.layout import Group, Layout, Site

Factors = dict[str, Tensor]


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
            wanted_a = (n, len(group.sites), group.rank, group.in_features)
            wanted_b = (n, len(group.sites), group.out_features, group.rank)
            if tuple(a.shape) != wanted_a or tuple(b.shape) != wanted_b:
                raise LayoutMismatch(
                    f"factors of {group.key} have shapes {tuple(a.shape)} and {tuple(b.shape)}; "
                    f"the layout says {wanted_a} and {wanted_b}"
                )

    def __len__(self) -> int:
        return self.A[self.layout.groups[0].key].shape[0]

    def __getitem__(self, rows: Sequence[int] | slice | Tensor) -> "Adapter":
        """A selection along the leading axis (list, slice or index tensor)."""
        return self._map(lambda tensor, _: tensor[rows])

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Adapter":
        return self._map(lambda tensor, _: tensor.to(device=device, dtype=dtype))

    def factors(self) -> list[Tensor]:
        """Every A, then every B, in the layout's order of groups."""
        keys = [group.key for group in self.layout.groups]
        return [*(self.A[key] for key in keys), *(self.B[key] for key in keys)]

    def detached(self) -> "Adapter":
        """The same numbers as leaves that gather gradients of their own."""
        return self._map(lambda tensor, _: tensor.detach().requires_grad_())

    def scaled(self, strength: float) -> "Adapter":
        """ΔW times `strength`, folded into B."""
        return replace(self, B={key: b * strength for key, b in self.B.items()})

    def with_rank(self, rank: int) -> "Adapter":
        """Every site at `rank`: truncated to the best approximation of ΔW, or zero-padded."""
        layout = self.layout.with_rank(rank)
        pairs = {key: with_rank(self.A[key], self.B[key], rank) for key in self.A}
        return Adapter(
            layout,
            {key: pair[0] for key, pair in pairs.items()},
            {key: pair[1] for key, pair in pairs.items()},
        )

    def site(self, site: Site) -> tuple[Tensor, Tensor]:
        """The factors of one site at its own rank: A `[n, rank, in]`, B `[n, out, rank]`."""
        group, position = _locate(self.layout, site)
        a, b = self.A[group.key][:, position], self.B[group.key][:, position]
        return a[:, : site.rank], b[..., : site.rank]

    def is_zero(self) -> bool:
        """Whether ΔW is exactly zero everywhere because A or B is."""
        return all(
            not self.A[group.key].any() or not self.B[group.key].any()
            for group in self.layout.groups
        )

    def _map(self, function) -> "Adapter":
        return Adapter(
            self.layout,
            {key: function(tensor, key) for key, tensor in self.A.items()},
            {key: function(tensor, key) for key, tensor in self.B.items()},
        )


def zeros(layout: Layout, n: int = 1, **kwargs) -> Adapter:
    """`n` adapters that change nothing."""
    a = {
        g.key: torch.zeros(n, len(g.sites), g.rank, g.in_features, **kwargs) for g in layout.groups
    }
    b = {
        g.key: torch.zeros(n, len(g.sites), g.out_features, g.rank, **kwargs) for g in layout.groups
    }
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


def from_sites(layout: Layout, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> Adapter:
    """One adapter of each site's factors, A `(rank, in)` and B `(out, rank)`, by the site's name.

    The ranks are the factors' own; the layout gives the order.
    """
    sites = tuple(replace(site, rank=len(pairs[site.name][0])) for site in layout.sites)
    made = zeros(replace(layout, sites=sites), dtype=pairs[sites[0].name][0].dtype)
    for group in made.layout.groups:
        for position, site in enumerate(group.sites):
            a, b = pairs[site.name]
            made.A[group.key][0, position, : site.rank] = a
            made.B[group.key][0, position, :, : site.rank] = b
    return made


def rank_mask(group: Group, device: torch.device | None = None) -> Tensor:
    """`[sites, rank]` of ones and zeros: which ranks of the padded group belong to each site."""
    ranks = torch.tensor([site.rank for site in group.sites], device=device)
    return (torch.arange(group.rank, device=device) < ranks[:, None]).float()


def _locate(layout: Layout, site: Site) -> tuple[Group, int]:
    for group in layout.groups:
        if site in group.sites:
            return group, group.sites.index(site)
    raise LayoutMismatch(f"the layout has no module named {site.name}")
