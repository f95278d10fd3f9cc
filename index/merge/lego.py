"""LoRA-LEGO: rank-one units of all adapters, clustered; a merge's rank is the number of clusters.

After Zhao et al. 2024 (arXiv 2409.16167). A unit is a row of A with its column of B. Theirs are
those of the files; here they are the singular directions of ΔW (library.factored.canonical), so
that other factors of the same adapter give the same merge (unless singular values are equal, when
the directions are not determined). A unit and its negative are the same matrix and one point.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from library.adapter import Adapter, from_sites, of_all_modules
from library.errors import UsageError
from library.factored import NOTHING, canonical

MAX_ROUNDS = 50


def lego(adapters: Sequence[Adapter], weights: Sequence[float], rank: int) -> Adapter:
    """Merge into `rank` units a module (n = 1 each).

    Only the ratios of the weights matter: they weigh the units of a cluster. Then the two scales of
    the paper: a centroid gets the mean length of its units, which averaging shortens, and the
    output √(mean rank / rank), by the units and clusters that there are.
    Raises UsageError for a weight that is not above zero.
    """
    if min(weights) <= 0:
        raise UsageError("lego averages by weight, so every weight must be above zero")
    adapters = of_all_modules(adapters)
    pairs = {}
    for site in adapters[0].layout.sites:
        units, shares = _units([adapter.site(site) for adapter in adapters], weights)
        ranks, clusters = len(units) / len(adapters), min(rank, max(1, len(units)))
        centres = _merged(units, shares, clusters) * (ranks / clusters) ** 0.25  # on both halves
        # (clusters, in·kernel + out) to A (clusters, in·kernel) and Bᵀ (clusters, out)
        a, b = centres.split([site.in_features * site.kernel, site.out_features], dim=1)
        pairs[site.name] = (a.float(), b.T.float())
    return from_sites(adapters[0].layout, pairs).with_rank(rank)


def _units(
    factors: Sequence[tuple[Tensor, Tensor]], weights: Sequence[float]
) -> tuple[Float[Tensor, "units d"], Float[Tensor, " units"]]:
    """Balanced rank-one units of all adapters in one module, and the weight of each."""
    units, shares = [], []
    for (a, b), weight in zip(factors, weights, strict=True):
        top_a, top_b = canonical(a[0], b[0])
        units.append(torch.cat([top_a, top_b.mT], dim=1))  # (r, in + out)
        shares.append(torch.full((len(top_a),), weight, dtype=torch.float64))
    joined, share = torch.cat(units), torch.cat(shares)
    sizes = joined.norm(dim=1)
    real = sizes > NOTHING**0.5 * sizes.max()  # a unit's length is the root of a singular value
    return joined[real], share[real]


def _merged(
    units: Float[Tensor, "units d"], shares: Float[Tensor, " units"], count: int
) -> Float[Tensor, "clusters d"]:
    """One unit for each of at most `count` clusters: the mean direction at the mean length."""
    member = _clusters(units, shares, count)
    merged = []
    for cluster in member.unique().tolist():
        members, share = units[member == cluster], shares[member == cluster]
        lengths = members.norm(dim=1)
        direction = _centre(members, share, members[lengths.argmax()])
        length = (share * lengths).sum() / share.sum()
        merged.append(direction * length / direction.norm().clamp_min(1e-300))
    return torch.stack(merged) if merged else units.new_zeros(1, units.shape[1])


def _clusters(
    units: Float[Tensor, "units d"], shares: Float[Tensor, " units"], count: int
) -> Int[Tensor, " units"]:
    """k-means from a fixed start: the longest unit, then always the one farthest from all.

    Nothing is drawn at random, so that the same adapters give the same merge.
    """
    if not len(units):
        return torch.zeros(0, dtype=torch.long)
    centres = units[units.norm(dim=1).argmax()][None]  # (1, d)
    while len(centres) < count:
        farthest = _distances(units, centres).amin(1).argmax()
        centres = torch.cat([centres, units[farthest][None]])  # (clusters, d)
    member = _distances(units, centres).argmin(1)
    for _ in range(MAX_ROUNDS):
        masks = [member == cluster for cluster in range(count)]
        centres = torch.stack(
            [
                _centre(units[mask], shares[mask], centre) if mask.any() else centre
                for mask, centre in zip(masks, centres, strict=True)
            ]
        )
        moved = _distances(units, centres).argmin(1)
        if torch.equal(moved, member):
            break
        member = moved
    return member


def _distances(
    units: Float[Tensor, "units d"], centres: Float[Tensor, "clusters d"]
) -> Float[Tensor, "units clusters"]:
    """Squared distance to the nearer of a centre and its negative."""
    inner = units @ centres.mT  # (units, clusters)
    return units.square().sum(1)[:, None] + centres.square().sum(1) - 2 * inner.abs()


def _centre(
    units: Float[Tensor, "units d"], shares: Float[Tensor, " units"], like: Float[Tensor, " d"]
) -> Float[Tensor, " d"]:
    """Weighted mean, each unit turned to the side of `like`; what is orthogonal to it stays."""
    least = NOTHING * units.norm(dim=1) * like.norm()
    side = torch.where(units @ like < -least, -1.0, 1.0)
    return ((shares * side)[:, None] * units).sum(0) / shares.sum()
