"""Selection: each module is taken whole from one adapter, after K-LoRA.

K-LoRA (Ouyang et al. 2025, arXiv 2502.18461) compares, module by module, the sums of the K largest
entries of |ΔW|, balanced by the adapters' overall size, with K the product of the ranks. Its ramp
over diffusion steps has no counterpart here; weights take its place in the comparison.
"""

import math
from collections.abc import Sequence

import torch

from library.adapter import Adapter, from_sites
from library.errors import UsageError
from library.factored import present_rank


def klora(adapters: Sequence[Adapter], weights: Sequence[float]) -> Adapter:
    """Each module of whichever adapter has the largest weighted score there, unscaled.

    Raises UsageError for a weight below zero.
    """
    if min(weights) < 0:
        raise UsageError("klora chooses by weight, so no weight may be negative")
    columns, ranks = [], _ranks(adapters)
    for adapter, weight in zip(adapters, weights, strict=True):
        sums, whole = _scores(adapter, ranks)
        columns.append(weight * sums / max(whole, torch.finfo(torch.float64).tiny))
    chosen = torch.stack(columns).argmax(0).tolist()  # the first of equals
    layout = adapters[0].layout
    pairs = {}
    for place, number in enumerate(chosen):
        site = adapters[number].layout.sites[place]
        a, b = adapters[number].site(site)
        pairs[site.name] = (a[0].float(), b[0].float())
    return from_sites(layout, pairs)


def _ranks(adapters: Sequence[Adapter]) -> list[list[int]]:
    """For each module the ranks of the ΔW."""
    found = []
    for place in range(len(adapters[0].layout.sites)):
        factors = [adapter.site(adapter.layout.sites[place]) for adapter in adapters]
        found.append([max(1, present_rank(a[0], b[0])) for a, b in factors])
    return found


def _scores(adapter: Adapter, ranks: Sequence[Sequence[int]]) -> tuple[torch.Tensor, float]:
    """For each module the sum of its K largest entries; and the sum of all entries of all."""
    sums, whole = [], 0.0
    for place, site in enumerate(adapter.layout.sites):
        a, b = adapter.site(site)
        sizes = (b[0].double() @ a[0].double()).abs().flatten()
        most = math.prod(ranks[place])
        sums.append(sizes.topk(min(most, len(sizes))).values.sum())
        whole += float(sizes.sum())
    return torch.stack(sums), whole
