"""Embedded descriptions and pairs without an encoder: random, of given lengths, with padding."""

import torch
from torch import Tensor

from index.encoders.descriptions import Embeddings
from index.encoders.pairs import EmbeddedPairs

WIDTH, WORDS = 12, 7  # of a token in its context, and by itself


def descriptions(lengths: list[int], seed: int = 0) -> Embeddings:
    """Random embeddings of texts with so many tokens, padded with noise that must not matter."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    n, width = len(lengths), max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    pooled = torch.nn.functional.normalize(randn(n, WIDTH), dim=-1)
    return Embeddings(pooled, randn(n, width, WIDTH), randn(n, width, WORDS), mask)


def row(e: Embeddings, i: int) -> Embeddings:
    """One description without its padding."""
    length = int(e.mask[i].sum())
    tokens, words = e.tokens[[i], :length], e.words[[i], :length]
    return Embeddings(e.pooled[[i]], tokens, words, e.mask[[i], :length])


def pairs(counts: list[int], seed: int = 0, places: int | None = None) -> EmbeddedPairs:
    """Random embeddings of so many pairs each, with noise in the places that must not matter."""
    n, p, t = len(counts), places or max(counts), 3
    flat = descriptions([1 + i % t for i in range(2 * n * p)], seed)
    inputs, outputs = flat.pooled.view(2, n, p, WIDTH)
    tokens, words = flat.tokens[: n * p, :t], flat.words[: n * p, :t]
    present = torch.arange(p) < torch.tensor(counts)[:, None]
    mask = flat.mask[: n * p, :t].view(n, p, t) & present[..., None]
    return EmbeddedPairs(
        inputs, outputs, tokens.reshape(n, p, t, WIDTH), words.reshape(n, p, t, WORDS), mask
    )


def pairs_at(e: EmbeddedPairs, i: int, order: list[int]) -> EmbeddedPairs:
    """One condition's pairs in an order, without other places."""
    return EmbeddedPairs(*(part[[i]][:, order] for part in vars(e).values()))
