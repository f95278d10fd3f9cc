"""Text-to-LoRA: a description becomes an adapter in one forward pass (Charakorn et al. 2025).

A descriptor per target module (description, layer, module type) goes through a small residual MLP
and one linear head per group of modules. Head sizes: L emits A and B at once, M shares one head
between A and B, S emits one row of A or B at a time. Three things differ from the paper: ΔW is
exactly zero at the start for every size; the order of modules is part of the layout, hence of the
checkpoint; and the description may be read token by token beside its pooled vector.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from index.encoder import Embeddings
from library.adapter import Adapter, rank_mask
from library.errors import UnsupportedModel, UsageError
from library.layout import Group, Layout

Size = Literal["S", "M", "L"]


@dataclass(frozen=True)
class TextToLoRAConfig:
    """The architecture.

    Attributes:
        embedding_dim: length of a description's vector.
        size: which head (paper, section 3.2).
        latent: width h of the descriptor and trunk.
        head_in: width of the trunk's output, which the heads read.
        queries: learned queries that attend to the description's tokens; 0 uses the pooled
            vector alone, as the paper does.
        words_dim: length of the encoder's input embeddings, if the queries shall read these beside
            the token vectors; 0 leaves them out.
        dropout: in the trunk.
        b_gain: factor on the L head's B, which keeps the first steps small.
    """

    embedding_dim: int = 384
    size: Size = "L"
    latent: int = 128
    head_in: int = 512
    queries: int = 0
    words_dim: int = 0
    dropout: float = 0.05
    b_gain: float = 0.1

    def __post_init__(self) -> None:
        if self.size not in ("S", "M", "L"):
            raise UsageError(f"size must be S, M or L, not {self.size!r}")
        if self.latent % 4:
            raise UsageError(f"latent must be a multiple of 4, not {self.latent}")
        if self.words_dim and not self.queries:
            raise UsageError("words_dim needs queries, which read the words")


class TextToLoRA(nn.Module):
    """The hypernetwork for one layout. Needs the base's layout only, never its weights."""

    def __init__(self, config: TextToLoRAConfig, layout: Layout) -> None:
        super().__init__()
        _require_one_per_layer(layout)
        h, depth = config.latent, layout.depth
        self.config, self.layout = config, layout
        self.task_encoder = TaskEncoder(config)
        self.layer_embedding = nn.Embedding(depth, h // 4)
        self.layer_norm = nn.LayerNorm(h // 4)
        self.module_embedding = nn.Embedding(len(layout.groups), h // 4)
        self.module_norm = nn.LayerNorm(h // 4)
        self.trunk = Trunk(config)
        self.heads = nn.ModuleDict({g.key: _make_head(config, g) for g in layout.groups})
        for group in layout.groups:
            depths = torch.tensor([site.depth for site in group.sites])
            self.register_buffer(f"depths_{group.key}", depths, persistent=False)
            self.register_buffer(f"mask_{group.key}", rank_mask(group), persistent=False)

    def forward(self, descriptions: Embeddings) -> Adapter:
        """n embedded descriptions to n adapters."""
        task = self.task_encoder(descriptions)  # (n, h/2)
        a, b = {}, {}
        for index, group in enumerate(self.layout.groups):
            site_a, site_b = self.heads[group.key](self.trunk, self._descriptor(task, index, group))
            mask = self.get_buffer(f"mask_{group.key}").to(site_a)  # (sites, r)
            a[group.key] = site_a * mask[:, :, None]
            b[group.key] = site_b * mask[:, None, :]
        return Adapter(self.layout, a, b)

    def _descriptor(
        self, task: Float[Tensor, "n half"], index: int, group: Group
    ) -> Float[Tensor, "n sites h"]:
        n, sites = task.shape[0], len(group.sites)
        layer = self.layer_norm(self.layer_embedding(self.get_buffer(f"depths_{group.key}")))
        module = self.module_norm(self.module_embedding.weight[index])
        return torch.cat(
            [
                task[:, None].expand(n, sites, -1),
                layer.expand(n, sites, -1),
                module.expand(n, sites, -1),
            ],
            dim=-1,
        )


class TaskEncoder(nn.Module):
    """Pooled vector, and optionally attention over token vectors, to the task part (n, h/2)."""

    def __init__(self, config: TextToLoRAConfig) -> None:
        super().__init__()
        d, width = config.embedding_dim, config.latent // 2
        self.scale = math.sqrt(d)
        self.pooled = nn.Linear(d, width)
        self.norm = nn.LayerNorm(width)
        self.queries: nn.Parameter | None = None
        if config.queries:
            self.queries = nn.Parameter(torch.randn(config.queries, width))
            self.token_norm = nn.LayerNorm(d)
            self.word_norm = nn.LayerNorm(config.words_dim) if config.words_dim else None
            self.key = nn.Linear(d + config.words_dim, width, bias=False)
            self.value = nn.Linear(d + config.words_dim, width, bias=False)
            self.join = nn.Linear(config.queries * width, width, bias=False)
            self.dropout = nn.Dropout(config.dropout)

    def forward(self, descriptions: Embeddings) -> Float[Tensor, "n half"]:
        # The paper scales unit vectors by sqrt(d); without it the input is 1/20 of its size.
        state = self.pooled(descriptions.pooled * self.scale)
        if self.queries is not None:
            tokens = self.token_norm(descriptions.tokens)  # (n, t, d)
            if self.word_norm is not None:
                tokens = torch.cat([tokens, self.word_norm(descriptions.words)], dim=-1)
            keys = self.key(tokens)
            scores = keys @ self.queries.T / math.sqrt(keys.shape[-1])  # (n, t, q)
            scores = scores.masked_fill(~descriptions.mask[..., None], float("-inf"))
            read = scores.softmax(dim=1).mT @ self.value(tokens)  # (n, q, width)
            state = state + self.join(self.dropout(read.flatten(1)))
        return self.norm(state)


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
            self.linear.bias[: group.rank * group.in_features] = _kaiming_a(group).flatten()

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
            bias[:, : group.in_features] = _kaiming_a(group)[: self._rows()]
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


def _make_head(config: TextToLoRAConfig, group: Group) -> nn.Module:
    return {"L": HeadL, "M": HeadM, "S": HeadS}[config.size](config, group)


def _mlp(h: int, out: int, p: float, norm: bool = True) -> nn.Sequential:
    start = [nn.LayerNorm(h)] if norm else [nn.Dropout(p)]
    hidden = [nn.Linear(h, 4 * h), nn.SiLU(), nn.Dropout(p)]
    return nn.Sequential(*start, *hidden, nn.Linear(4 * h, out), nn.SiLU(), nn.Dropout(p))


def _kaiming_a(group: Group) -> Float[Tensor, "r i"]:
    """PEFT's start for A: uniform in ±1/sqrt(in)."""
    return torch.empty(group.rank, group.in_features).uniform_(-1, 1) / math.sqrt(group.in_features)


def _require_one_per_layer(layout: Layout) -> None:
    for group in layout.groups:
        depths = [site.depth for site in group.sites]
        if len(set(depths)) != len(depths):
            raise UnsupportedModel(
                f"two {group.module_type} modules of one shape in one layer cannot be told apart"
            )
