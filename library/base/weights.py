"""The weights of a loaded base's target modules, for what reads them beside the layout."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from library.errors import LayoutMismatch, UnsupportedModel
from library.layout import Group, Site


def group_weights(
    model: nn.Module, group: Group, positions: Sequence[int] | None = None
) -> Float[Tensor, "sites out in"]:
    """W of a group's modules (or of those at `positions`), each shaped as its ΔW.

    Rows are outputs, whichever way the model stores them, and a kernel is laid flat.

    Raises:
        LayoutMismatch: the model has no such module, or one of another shape.
        UnsupportedModel: its weights are stored in a quantised form.
    """
    sites = group.sites if positions is None else [group.sites[i] for i in positions]
    return torch.stack([_weight(model, site, group) for site in sites])


def _weight(model: nn.Module, site: Site, group: Group) -> Float[Tensor, "out in"]:
    try:
        weight = model.get_submodule(site.name).get_parameter("weight").detach()
    except AttributeError as error:
        raise LayoutMismatch(f"the base model has no weights of a module {site.name}") from error
    if not weight.is_floating_point():
        raise UnsupportedModel(
            f"the weights of {site.name} are stored as {weight.dtype}: load the base unquantised"
        )
    weight = weight.mT if site.transposed else weight.flatten(1)
    shape = (group.out_features, group.in_features)
    if tuple(weight.shape) != shape:
        raise LayoutMismatch(
            f"the base model's {site.name} is {tuple(weight.shape)}; the layout says {shape}"
        )
    return weight
