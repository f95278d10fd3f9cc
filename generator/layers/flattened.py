"""Adapters as vectors, in standard deviations: what generators of flat weights are trained on.

The order is the layout's own: A and B of its first module row by row, then of the next. Ranks
beyond a module's own have no place in it, so a vector holds nothing but weights.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from library.adapter import Adapter
from library.errors import UsageError
from library.layout import Layout

ROW = 128  # values of the mean that share a scale where a checkpoint stores int8


def tensor_sizes(layout: Layout) -> list[int]:
    """Numbers in A and in B of each module, in the layout's order: A, B, A, B and so on."""
    sizes = []
    for site in layout.sites:
        sizes += [site.rank * site.in_features * site.kernel, site.out_features * site.rank]
    return sizes


def flatten(adapter: Adapter) -> Float[Tensor, "n values"]:
    """n adapters as vectors; `unflatten` is its exact inverse."""
    factors = [factor for site in adapter.layout.sites for factor in adapter.site(site)]
    return torch.cat([factor.flatten(1) for factor in factors], dim=1)


def unflatten(layout: Layout, values: Float[Tensor, "n values"]) -> Adapter:
    """Vectors as adapters of a layout. Raises UsageError for a length that is not the layout's."""
    n, sizes = len(values), tensor_sizes(layout)
    if values.shape[1] != sum(sizes):
        raise UsageError(f"the layout has {sum(sizes)} weights, not {values.shape[1]}")
    parts = values.split(sizes, dim=1)  # A of module i is part 2·i, its B the one after
    a, b = {}, {}
    for group in layout.groups:
        sites_a, sites_b = [], []
        for index, site in zip(group.indices, group.sites, strict=True):
            extra = group.rank - site.rank
            site_a = parts[2 * index].reshape(n, site.rank, group.in_features)
            site_b = parts[2 * index + 1].reshape(n, group.out_features, site.rank)
            sites_a.append(pad(site_a, (0, 0, 0, extra)))
            sites_b.append(pad(site_b, (0, extra)))
        a[group.key], b[group.key] = torch.stack(sites_a, dim=1), torch.stack(sites_b, dim=1)
    return Adapter(layout, a, b)


def weight_statistics(
    adapters: Adapter,
) -> tuple[Float[Tensor, " values"], Float[Tensor, " tensors"]]:
    """Mean of every entry over the adapters, and the deviation from it of every tensor.

    A tensor (A or B of one module) has one standard deviation, over its entries and the adapters;
    a tensor that is the same in all of them (a frozen A) has zero. Computed in float64, module by
    module; returned in float32.
    """
    means, deviations = [], []
    for site in adapters.layout.sites:
        for factor in adapters.site(site):
            values = factor.flatten(1).double()  # (n, entries)
            mean = values.mean(dim=0)
            means.append(mean.float())
            same = bool((factor == factor[:1]).all())  # whose mean is off by rounding
            variance = (values - mean).square().mean()
            deviations.append(torch.zeros_like(variance) if same else variance.sqrt())
    return torch.cat(means), torch.stack(deviations).float()


def per_value(layout: Layout, tensors: Float[Tensor, " tensors"]) -> Float[Tensor, " values"]:
    """A number of each tensor, repeated for each of its entries."""
    return tensors.repeat_interleave(_sizes(tensor_sizes(layout), tensors.device))


class ZScore(nn.Module):
    """Vectors of adapters to z-scores and back, by statistics of the training set.

    The mean is that of every entry, so what all adapters share (an A that all started from) is
    stored and has not to be generated; the deviation is one a tensor, so within a tensor entries
    keep their relative size. Until `fit`, the statistics are those of untrained adapters: A as PEFT
    draws it, uniform in ±1/sqrt(in), and B zero; whatever is put in, ΔW is then exactly zero.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.values = sum(tensor_sizes(layout))
        self.mean: Tensor
        self.deviation: Tensor
        self.sizes: Tensor
        starts = [1 / math.sqrt(3 * site.in_features * site.kernel) for site in layout.sites]
        deviation = torch.tensor([value for start in starts for value in (start, 0.0)])
        self.register_buffer("mean", torch.zeros(-(-self.values // ROW), ROW))
        self.register_buffer("deviation", deviation)  # (tensors,)
        sizes = _sizes(tensor_sizes(layout), deviation.device)
        self.register_buffer("sizes", sizes, persistent=False)

    def fit(self, adapters: Adapter) -> None:
        """Take the statistics of the training set. Raises UsageError if its adapters are all one.

        Raises LayoutMismatch.
        """
        self.layout.require_same(adapters.layout, "the generator", "the training adapters")
        mean, deviation = weight_statistics(adapters)
        if not deviation.any():
            raise UsageError("statistics need two adapters at least that differ")
        self.mean.copy_(pad(mean, (0, self.mean.numel() - self.values)).view_as(self.mean))
        self.deviation.copy_(deviation)

    def forward(self, values: Float[Tensor, "n values"]) -> Float[Tensor, "n values"]:
        """Weights to z-scores; zero in a tensor that does not vary."""
        deviation = self._deviations()
        safe = torch.where(deviation > 0, deviation, 1.0)
        return torch.where(deviation > 0, (values - self._means()) / safe, 0.0)

    def inverse(self, scores: Float[Tensor, "n values"]) -> Float[Tensor, "n values"]:
        """z-scores to weights."""
        return scores * self._deviations() + self._means()

    def _means(self) -> Float[Tensor, " values"]:
        return self.mean.flatten()[: self.values]

    def _deviations(self) -> Float[Tensor, " values"]:
        return self.deviation.repeat_interleave(self.sizes, output_size=self.values)


def _sizes(sizes: Sequence[int], device: torch.device) -> Int[Tensor, " tensors"]:
    return torch.tensor(sizes, device=device)
