"""Modules and embedded descriptions for what reads a base's weights: no real model is needed."""

import torch
from torch import Tensor, nn

from index.encoders.descriptions import Embeddings
from library.layout import Layout, Site

WIDTH, WORDS = 12, 7

# Sides that 64 does not divide, one shorter than a patch; two shapes of one type; ranks differ.
LAYOUT = Layout(
    "mixed",
    5,
    (
        Site("m.layers.0.attn.q", 70, 130, 3),
        Site("m.layers.0.attn.v", 70, 20, 2),
        Site("m.layers.2.attn.q", 70, 130, 1),
        Site("m.layers.2.attn.v", 70, 20, 2),
        Site("m.layers.4.attn.q", 70, 130, 2),
    ),
)


def base_of(layout: Layout, *, seed: int = 0) -> nn.Module:
    """Random linear modules under a layout's names."""
    generator, base = torch.Generator().manual_seed(seed), nn.Module()
    for site in layout.sites:
        *path, name = site.name.split(".")
        parent = base
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        linear = nn.Linear(site.in_features, site.out_features, bias=False)
        with torch.no_grad():
            linear.weight.normal_(std=site.in_features**-0.5, generator=generator)
        parent.add_module(name, linear.requires_grad_(False))
    return base


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
