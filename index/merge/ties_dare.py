"""Merges that look at the entries of ΔW: TIES and DARE, one module at a time.

They form ΔW, as their rules are about its entries; on the factors, as they are often used, the same
adapter factored otherwise would give another merge. The price is one dense matrix for each adapter
and a dense SVD, module by module.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter, from_sites, of_all_modules
from library.canonical import json_digest
from library.factored import dense_to_rank
from library.layout import Site

# Factors in float32 leave errors of this size, relative to the largest entry. Differences below it
# decide nothing, so that other factors of the same ΔW give the same merge.
ENTRY_NOISE = 1e-6

Rule = Callable[[Float[Tensor, "adapters o i"], Site], Float[Tensor, "o i"]]


def merge_entries(adapters: Sequence[Adapter], rule: Rule, rank: int) -> Adapter:
    """Apply a rule to the ΔW of each module, in float64, and factor what comes out at `rank`."""
    adapters = of_all_modules(adapters)
    pairs = {}
    for site in adapters[0].layout.sites:
        factors = [adapter.site(site) for adapter in adapters]
        # A (1, r, i) and B (1, o, r) of each adapter to (adapters, o, i)
        deltas = torch.stack([b[0].double() @ a[0].double() for a, b in factors])
        pairs[site.name] = dense_to_rank(rule(deltas, site), min(rank, *deltas.shape[1:]))
    return from_sites(adapters[0].layout, pairs).with_rank(rank)


def ties(weights: Sequence[float], density: float) -> Rule:
    """TIES (Yadav et al. 2023, arXiv 2306.01708, algorithm 1).

    Of each ΔW the share `density` of its largest entries is kept; for each entry the sign with the
    larger sum is elected; what agrees with it is weighted and averaged over how many agree.
    """

    def rule(deltas: Float[Tensor, "adapters o i"], site: Site) -> Float[Tensor, "o i"]:
        # 1. Trim: the largest entries of each ΔW.
        trimmed = torch.stack([_largest(delta, density) for delta in deltas])
        # 2. Elect: for each entry the sign with the larger sum; a tie is positive.
        total = trimmed.sum(0)
        elected = torch.where(total >= -ENTRY_NOISE * trimmed.abs().sum(0), 1.0, -1.0)
        # 3. Merge what agrees with it.
        agrees = trimmed.sign() == elected
        scale = torch.tensor(list(weights), dtype=deltas.dtype)[:, None, None]  # (adapters, 1, 1)
        return (trimmed * scale * agrees).sum(0) / agrees.sum(0).clamp_min(1)

    return rule


def dare(weights: Sequence[float], density: float, seed: int) -> Rule:
    """DARE (Yu et al. 2024, arXiv 2311.03099): drop entries at random, rescale, sum.

    The mask of the i-th adapter and a module is a function of (seed, i, the module's name).
    """

    def rule(deltas: Float[Tensor, "adapters o i"], site: Site) -> Float[Tensor, "o i"]:
        total = torch.zeros_like(deltas[0])
        for number, (delta, weight) in enumerate(zip(deltas, weights, strict=True)):
            mask_seed = int(json_digest(["dare", seed, number, site.name])[:15], 16)
            generator = torch.Generator().manual_seed(mask_seed)
            mask = torch.rand(delta.shape, generator=generator, dtype=torch.float64) < density
            total += weight * delta * mask / density
        return total

    return rule


def _largest(delta: Float[Tensor, "o i"], density: float) -> Float[Tensor, "o i"]:
    """The share of entries that are largest in magnitude; others, and what is noise, are zero.

    Entries as large as the least that is kept are kept as well.
    """
    sizes = delta.abs()
    count = max(1, int(density * sizes.numel()))
    least = sizes.flatten().kthvalue(sizes.numel() - count + 1).values  # of (o·i,)
    return delta * ((sizes >= least * (1 - ENTRY_NOISE)) & (sizes > ENTRY_NOISE * sizes.max()))
