"""Selection: each module is taken whole from one adapter, after K-LoRA.

K-LoRA (Ouyang et al. 2025, arXiv 2502.18461) compares, module by module, the sums of the K largest
entries of |ΔW|, balanced by the adapters' overall size, with K the product of the ranks. Its ramp
over diffusion steps has no counterpart here; weights take its place in the comparison.
"""

import math
from collections.abc import Sequence

import torch

from library.adapter import Adapter, from_sites, of_all_modules
from library.errors import UsageError
from library.factored import present_rank


def klora(adapters: Sequence[Adapter], weights: Sequence[float]) -> Adapter:
    """Each module of whichever adapter has the largest weighted score there, unscaled.

    Raises UsageError for a weight below zero.
    """
    if min(weights) < 0:
        raise UsageError("klora chooses by weight, so no weight may be negative")
    adapters = of_all_modules(adapters)
    columns, ranks = [], _ranks(adapters)
    for adapter, weight in zip(adapters, weights, strict=True):
        sums, total = _scores(adapter, ranks)
        columns.append(weight * sums / max(total, torch.finfo(torch.float64).tiny))
    winners = torch.stack(columns).argmax(0).tolist()  # (adapters, sites); the first of equals
    layout = adapters[0].layout
    pairs = {}
    for site, number in zip(layout.sites, winners, strict=True):
        a, b = adapters[number].site(site)
        pairs[site.name] = (a[0].float(), b[0].float())
    return from_sites(layout, pairs)


def _ranks(adapters: Sequence[Adapter]) -> list[list[int]]:
    """For each module the ranks of the adapters' ΔW."""
    return [
        [max(1, present_rank(a[0], b[0])) for a, b in (adapter.site(site) for adapter in adapters)]
        for site in adapters[0].layout.sites
    ]


def _scores(adapter: Adapter, ranks: Sequence[Sequence[int]]) -> tuple[torch.Tensor, float]:
    """For each module the sum of its K largest entries; and the sum of all entries of all."""
    sums, total = [], 0.0
    for site, site_ranks in zip(adapter.layout.sites, ranks, strict=True):
        a, b = adapter.site(site)
        sizes = (b[0].double() @ a[0].double()).abs().flatten()  # (out·in)
        count = min(math.prod(site_ranks), len(sizes))
        sums.append(sizes.topk(count).values.sum())
        total += float(sizes.sum())
    return torch.stack(sums), total
