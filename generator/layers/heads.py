"""The trunk of Text-to-LoRA and its three kinds of head (Charakorn et al. 2025, section 3.2).

Every module's descriptor goes through the one trunk; a head turns what comes out into A and B of
the modules of one group.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generator.layers.config import TextToLoRAConfig
from library.layout import Group


class Trunk(nn.Module):
    """Mixer, two residual blocks, and a block that widens to what the heads read."""

    def __init__(self, config: TextToLoRAConfig) -> None:
        super().__init__()
        h, p = config.latent, config.dropout
        self.mixer = _mlp(h, h, p, norm=False)
        self.block1 = _mlp(h, h, p)
        self.block2 = _mlp(h, h, p)
        self.block3 = _mlp(h, config.head_in, p)[:-1]

    def first(self, x: Float[Tensor, "*n h"]) -> Float[Tensor, "*n h"]:
        x = self.mixer(x)
        return x + self.block1(x)

    def second(self, x: Float[Tensor, "*n h"]) -> Float[Tensor, "*n h"]:
        return x + self.block2(x)

    def forward(self, x: Float[Tensor, "*n h"]) -> Float[Tensor, "*n out"]:
        return self.block3(self.second(self.first(x)))


class HeadL(nn.Module):
    """One linear layer to A and B together: r·(in + out) numbers."""

    def __init__(self, config: TextToLoRAConfig, group: Group) -> None:
        super().__init__()
        self.group, self.gain = group, config.b_gain
        self.linear = nn.Linear(
            config.head_in, group.rank * (group.in_features + group.out_features)
        )
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            self.linear.bias.zero_()
            self.linear.bias[: group.rank * group.in_features] = kaiming_a(group).flatten()

    def forward(self, trunk: Trunk, x: Tensor) -> tuple[Tensor, Tensor]:
        g = self.group
        out = self.linear(trunk(x))  # (n, sites, r·(in+out))
        flat_a, flat_b = out.split([g.rank * g.in_features, g.rank * g.out_features], dim=-1)
        a = flat_a.unflatten(-1, (g.rank, g.in_features))
        return a, flat_b.unflatten(-1, (g.rank, g.out_features)).mT * self.gain


class HeadM(nn.Module):
    """One head for both factors, told which by a learned vector; a zero scale on B's rows."""

    def __init__(self, config: TextToLoRAConfig, group: Group) -> None:
        super().__init__()
        self.group = group
        self.side = nn.Parameter(torch.randn(2, config.latent))
        self.side_norm = nn.LayerNorm(config.latent)
        self.b_scale = nn.Parameter(torch.zeros(group.rank))
        width = max(group.in_features, group.out_features)
        self.linear = nn.Linear(config.head_in, self._rows() * width)
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            bias = torch.zeros(self._rows(), width)
            bias[:, : group.in_features] = kaiming_a(group)[: self._rows()]
            self.linear.bias.copy_(bias.flatten())

    def forward(self, trunk: Trunk, x: Tensor) -> tuple[Tensor, Tensor]:
        g = self.group
        state = trunk.first(x)  # (n, sites, h)
        sides = self.side_norm(self.side)
        a, b = (self._factor(trunk, state + side) for side in sides)  # (n, sites, r, max)
        a = a[..., : g.in_features]
        return a, (b[..., : g.out_features] * self.b_scale[:, None]).mT

    def _rows(self) -> int:
        return self.group.rank

    def _factor(self, trunk: Trunk, state: Tensor) -> Tensor:
        out = self.linear(trunk.block3(trunk.second(state)))
        return out.unflatten(-1, (self.group.rank, -1))


class HeadS(HeadM):
    """As M, and one row of a factor at a time, told which by a learned rank embedding."""

    def __init__(self, config: TextToLoRAConfig, group: Group) -> None:
        super().__init__(config, group)
        self.ranks = nn.Parameter(torch.randn(group.rank, config.latent))
        self.ranks_norm = nn.LayerNorm(config.latent)

    def _rows(self) -> int:
        return 1

    def _factor(self, trunk: Trunk, state: Tensor) -> Tensor:
        ranks = trunk.second(self.ranks_norm(self.ranks))  # (r, h)
        rows = trunk.second(state)[..., None, :] + ranks  # (n, sites, r, h)
        return self.linear(trunk.block3(rows))


def make_head(config: TextToLoRAConfig, group: Group) -> nn.Module:
    return {"L": HeadL, "M": HeadM, "S": HeadS}[config.size](config, group)


def _mlp(h: int, out: int, p: float, norm: bool = True) -> nn.Sequential:
    start = [nn.LayerNorm(h)] if norm else [nn.Dropout(p)]
    hidden = [nn.Linear(h, 4 * h), nn.SiLU(), nn.Dropout(p)]
    return nn.Sequential(*start, *hidden, nn.Linear(4 * h, out), nn.SiLU(), nn.Dropout(p))


def kaiming_a(group: Group) -> Float[Tensor, "r i"]:
    """PEFT's start for A: uniform in ±1/sqrt(in)."""
    return torch.empty(group.rank, group.in_features).uniform_(-1, 1) / math.sqrt(group.in_features)
