"""Input/output pairs of a task as further tokens beside those of its description.

A pair becomes one token, made of both texts' vectors and of the mean over all pairs of the task
(Zaheer et al. 2017): what changes from input to output, and how this pair differs from the others.
Beside it stand the output's own tokens, marked with the pair's, for a reader to say. The pair's own
token has no word: what a reader says of it would be learnt by heart instead of read. Nothing knows
the order of the pairs. They can do without a description (LoRA of Change, arXiv 2411.19156, with
images): a learned vector then stands for it.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad

from generator.layers.config import TextToLoRAConfig
from index.encoders.descriptions import Embeddings
from index.encoders.pairs import EmbeddedPairs
from library.errors import UsageError


class PairEncoder(nn.Module):
    """Descriptions and pairs to what the task encoder and the word reader read."""

    def __init__(self, config: TextToLoRAConfig) -> None:
        super().__init__()
        d, h = config.embedding_dim, config.latent
        self.scale = math.sqrt(d)
        self.no_description = nn.Parameter(torch.zeros(d))
        dropout = nn.Dropout(config.dropout)
        self.pair = nn.Sequential(nn.Linear(2 * d, h), nn.SiLU(), dropout)
        self.beside = nn.Sequential(nn.Linear(2 * h, h), nn.SiLU(), dropout)
        self.out = nn.Linear(h, d)

    def forward(self, text: Embeddings | None, pairs: EmbeddedPairs | None) -> Embeddings:
        """n descriptions, each followed by its pairs' tokens.

        A description without tokens is none. Raises UsageError for a condition that has neither.
        """
        if pairs is not None and text is None:
            text = _none(pairs)
        if text is None:
            raise UsageError("this generator needs descriptions or examples")
        read = text if pairs is None else _joined(text, self._tokens(pairs))
        if not read.mask.any(dim=1).all():
            raise UsageError("a condition has neither a description nor an example")
        described = text.mask.any(dim=1, keepdim=True)
        pooled = torch.where(described, text.pooled, self.no_description)
        return Embeddings(pooled, read.tokens, read.words, read.mask)

    def _tokens(self, pairs: EmbeddedPairs) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, words and mask of n conditions' pairs: (n, p·(1+t), ·)."""
        present = pairs.mask.any(dim=-1)  # (n, p)
        token = self.out(self._states(pairs, present))[:, :, None]  # (n, p, 1, d)
        parts = (
            torch.cat([token, pairs.tokens + token], dim=2),  # (n, p, 1+t, d)
            pad(pairs.words, (0, 0, 1, 0)),
            torch.cat([present[..., None], pairs.mask], dim=2),
        )
        tokens, words, mask = (part.flatten(1, 2) for part in parts)
        return tokens, words, mask

    def _states(self, pairs: EmbeddedPairs, present: Bool[Tensor, "n p"]) -> Float[Tensor, "n p h"]:
        """What each pair is, beside the mean of its condition's pairs."""
        both = torch.cat([pairs.inputs, pairs.outputs], dim=-1)  # (n, p, 2d); holds out - in
        states = self.pair(both * self.scale) * present[..., None]
        mean = states.sum(dim=1) / present.sum(dim=1, keepdim=True).clamp_min(1)
        return self.beside(torch.cat([states, mean[:, None].expand_as(states)], dim=-1))


def _none(pairs: EmbeddedPairs) -> Embeddings:
    """No description for each of n conditions."""
    n, tokens, words = len(pairs), pairs.tokens[:, 0, :0], pairs.words[:, 0, :0]
    return Embeddings(
        pairs.inputs.new_zeros(n, tokens.shape[-1]), tokens, words, pairs.mask[:, 0, :0]
    )


def _joined(text: Embeddings, more: tuple[Tensor, Tensor, Tensor]) -> Embeddings:
    """Descriptions followed by further tokens."""
    parts = zip((text.tokens, text.words, text.mask), more, strict=True)
    return Embeddings(text.pooled, *(torch.cat(both, dim=1) for both in parts))
