"""An adapter added to a base's weights, in place."""

import torch
from torch import nn

from library.adapter import Adapter


@torch.no_grad()
def merge_into(model: nn.Module, adapter: Adapter) -> None:
    """Add ΔW of one adapter to the weights of its modules; the sum is taken in float32.

    Args:
        model: with linear layers under the names of the adapter's sites.
        adapter: n = 1.
    """
    for site in adapter.layout.sites:
        weight = model.get_submodule(site.name).get_parameter("weight")
        a, b = (factor[0].to(weight.device, torch.float32) for factor in adapter.site(site))
        delta = b @ a  # (out, in)
        weight.copy_(weight.float() + (delta.mT if site.transposed else delta))
