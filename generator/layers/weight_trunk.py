"""LoFA's trunk: tokens of weight matrices look at each other, then at the description's tokens.

A block is self-attention among the patches of one matrix, an MLP, cross-attention to the
description, an MLP; each normalised first and scaled before it is added (LoFA, arXiv 2512.08785).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from generator.layers.lofa_config import TrunkConfig
from generator.layers.weight_tokens import Tokens, patches_along
from index.encoders.descriptions import Embeddings
from library.layout import Group, Layout

States = Float[Tensor, "n sites tokens d"]


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys (QK-norm)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.query_norm, self.key_norm = (nn.RMSNorm(width // heads) for _ in range(2))

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        context: Float[Tensor, "b k d"],
        mask: Bool[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """What each of q places takes from the context, where the mask is true."""
        queries = self.query_norm(self._split(self.query(x)))  # (b, heads, q, d/heads)
        keys, values = (self._split(part) for part in self.key_value(context).chunk(2, dim=-1))
        allowed = None if mask is None else mask[:, None, None, :]
        taken = scaled_dot_product_attention(
            queries, self.key_norm(keys), values, attn_mask=allowed
        )
        return self.out(taken.transpose(1, 2).flatten(2))

    def _split(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b heads t part"]:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class PreNorm(nn.Module):
    """x + scale · inner(norm(x), ...), with a learned scale of each channel that starts at 1."""

    def __init__(self, width: int, inner: nn.Module) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(width), inner
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*n d"], *more: Any) -> Float[Tensor, "*n d"]:
        return x + self.scale * self.inner(self.norm(x), *more)


class WithinSite(nn.Module):
    """Attention of each matrix's tokens to those of one matrix: its own, or `context`'s."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads)

    def forward(self, x: States, context: States | None = None) -> States:
        flat = x.flatten(0, 1)  # (n·sites, tokens, d)
        other = flat if context is None else context.flatten(0, 1)
        return self.attention(flat, other).view_as(x)


class ToDescription(nn.Module):
    """Attention of all tokens to the description's."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads)

    def forward(self, x: States, text: Float[Tensor, "n t d"], mask: Bool[Tensor, "n t"]) -> States:
        return self.attention(x.flatten(1, 2), text, mask).view_as(x)


class WeightBlock(nn.Module):
    """One block. What sees no description comes first, and may be given once for all n."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        d = config.width
        self.self_attention = PreNorm(d, WithinSite(config))
        self.mlp1 = PreNorm(d, _mlp(config))
        self.cross_attention = PreNorm(d, ToDescription(config))
        self.mlp2 = PreNorm(d, _mlp(config))

    def forward(
        self,
        x: Float[Tensor, "_ sites tokens d"],
        text: Float[Tensor, "n t d"],
        mask: Bool[Tensor, "n t"],
    ) -> States:
        x = self.mlp1(self.self_attention(x)).expand(len(text), -1, -1, -1)
        return self.mlp2(self.cross_attention(x, text, mask))


class WeightTrunk(nn.Module):
    """States of every patch of a group's matrices under n descriptions; a CLS token comes first.

    Args:
        config: sizes.
        layout: whose depths, groups and shapes are told apart.
    """

    def __init__(self, config: TrunkConfig, layout: Layout) -> None:
        super().__init__()
        d, groups = config.width, layout.groups
        self.cls = nn.Parameter(torch.randn(d))
        self.rows = nn.Embedding(max(patches_along(g.out_features) for g in groups), d)
        self.columns = nn.Embedding(max(patches_along(g.in_features) for g in groups), d)
        self.depths = nn.Embedding(layout.depth, d)
        self.types = nn.Embedding(len(groups), d)
        self.token_norm = nn.LayerNorm(config.embedding_dim)
        self.word_norm = nn.LayerNorm(config.words_dim)
        self.text = nn.Linear(config.embedding_dim + config.words_dim, d)
        self.blocks = nn.ModuleList(WeightBlock(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(d)
        for number, group in enumerate(groups):
            places = torch.tensor([[number, site.depth] for site in group.sites])
            self.register_buffer(f"places_{group.key}", places, persistent=False)

    def place(
        self, tokens: Tokens, group: Group, positions: Sequence[int] | None = None
    ) -> Float[Tensor, "1 sites t d"]:
        """CLS and patches of a group's matrices (or some of them), told where each stands."""
        rows, columns = tokens.shape[1:3]
        grid = tokens + self.rows.weight[:rows, None] + self.columns.weight[:columns]
        places = self.get_buffer(f"places_{group.key}")  # (sites, 2): number of the group, depth
        places = places if positions is None else places[list(positions)]
        sites = self.types(places[:, 0]) + self.depths(places[:, 1])  # (sites, d)
        placed = torch.cat([self.cls.expand(len(tokens), 1, -1), grid.flatten(1, 2)], dim=1)
        return (placed + sites[:, None])[None]

    def read(self, text: Embeddings) -> Float[Tensor, "n t d"]:
        """A description's tokens, each in its context and by itself."""
        both = [self.token_norm(text.tokens), self.word_norm(text.words)]
        return self.text(torch.cat(both, dim=-1))

    def forward(
        self,
        x: Float[Tensor, "1 sites t d"],
        text: Embeddings,
        readers: nn.ModuleDict | None = None,
        features: States | None = None,
    ) -> States:
        """States of placed tokens; after the blocks that `readers` name, features are read."""
        words = self.read(text)
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, words, text.mask)
            if readers is not None and str(number) in readers:
                x = readers[str(number)](x, features)
        return self.norm(x)


def _mlp(config: TrunkConfig) -> nn.Sequential:
    d, hidden = config.width, config.width * config.widening
    return nn.Sequential(nn.Linear(d, hidden), nn.GELU(), nn.Linear(hidden, d))
