"""A ReLU MLP that serves every module of a group with one set of weights."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SiteMLP(nn.Module):
    """The same layers for all sites of a group, told apart by a learned vector each.

    A site brings in thousands of numbers beside a short latent. Each part is divided by the root
    of its width, so that all parts weigh alike and a step of Adam, which moves every weight by the
    same, does not switch units off for good.

    Args:
        sites: their number.
        parts: widths of what a site brings in.
        hidden: width of the layers between.
        out: numbers that a site gets.
        layers: linear layers; a ReLU stands between two.
        code: length of a site's vector.
    """

    def __init__(
        self, sites: int, parts: Sequence[int], hidden: int, out: int, *, layers: int, code: int
    ) -> None:
        super().__init__()
        self.codes = nn.Embedding(sites, code)
        widths = [sum(parts) + code, *[hidden] * (layers - 1)]
        modules: list[nn.Module] = []
        for before, after in pairwise(widths):
            modules += [nn.Linear(before, after), nn.ReLU()]
        nn.init.normal_(modules[0].weight, std=math.sqrt(2 / (len(parts) + 1)))  # type: ignore[arg-type]
        self.layers, self.last = nn.Sequential(*modules), nn.Linear(widths[-1], out)

    def forward(self, *parts: Float[Tensor, "n sites _"]) -> Float[Tensor, "n sites out"]:
        codes = self.codes.weight.expand(len(parts[0]), -1, -1)  # (n, sites, code)
        scaled = [part * part.shape[-1] ** -0.5 for part in (*parts, codes)]
        return self.last(self.layers(torch.cat(scaled, dim=-1)))
