"""An adapter added to a base's weights, in place."""

import torch
from torch import nn

from library.adapter import Adapter


@torch.no_grad()
def merge_into(model: nn.Module, adapter: Adapter) -> None:
    """Add ΔW of one adapter to the weights of its modules; the sum is taken in float32 at least.

    Args:
        model: with linear layers under the names of the adapter's sites.
        adapter: n = 1.
    """
    for site in adapter.layout.sites:
        weight = model.get_submodule(site.name).get_parameter("weight")
        wide = torch.promote_types(weight.dtype, torch.float32)
        a, b = (factor[0].to(weight.device, wide) for factor in adapter.site(site))
        delta = b @ a  # (out, in)
        weight.copy_(weight.to(wide) + (delta.mT if site.transposed else delta))
