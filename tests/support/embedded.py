"""Embedded descriptions without an encoder: random, of given lengths, with padding."""

import torch
from torch import Tensor

from index.encoders.descriptions import Embeddings

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
