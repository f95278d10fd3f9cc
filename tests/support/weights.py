"""Modules for what reads a base's weights: no real model is needed."""

import torch
from torch import nn

from library.layout import Layout, Site

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
