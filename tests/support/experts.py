"""Random experts for conditions: adapters from one A, with variances and similarities."""

import tiny
import torch

from generator.models.base import Experts
from library.adapter import Adapter
from library.layout import Layout


def random_experts(layout: Layout, n: int, k: int = 4, *, seed: int = 0) -> Experts:
    """k experts for each of n conditions, nearest first, in float64."""
    generator = torch.Generator().manual_seed(seed)
    cosines = torch.rand(n, k, generator=generator, dtype=torch.float64)
    return Experts(
        [near_one_start(layout, k, seed=seed + i) for i in range(n)],
        [squared(tiny.adapter(layout, k, seed=seed + 100 + i).to(dtype=torch.float64))
         for i in range(n)],
        cosines.sort(dim=1, descending=True).values,
    )  # fmt: skip


def near_one_start(layout: Layout, n: int, *, seed: int = 0) -> Adapter:
    """Adapters whose A have moved a little from one start, in float64."""
    start = tiny.adapter(layout, 1, seed=999, dtype=torch.float64)
    moved = tiny.adapter(layout, n, seed=seed, dtype=torch.float64)
    a = {key: start.A[key] + 0.3 * value for key, value in moved.A.items()}
    return Adapter(layout, a, moved.B)


def squared(adapter: Adapter) -> Adapter:
    """Entries that can be variances."""
    a, b = ({k: f.square() for k, f in factors.items()} for factors in (adapter.A, adapter.B))
    return Adapter(adapter.layout, a, b)


def rows_of(experts: Experts, rows: list[int]) -> Experts:
    """The experts of some conditions."""
    means, variances = ([x[i] for i in rows] for x in (experts.means, experts.variances))
    return Experts(means, variances, experts.similarities[rows])
