"""The true ΔW of an adapter of any PEFT type: what merging it changes in a layer's weight."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from library.errors import AdapterFileError

# The types that PEFT merges into the weights of linear layers, from the adapter's files alone.
MERGEABLE = (
    "ADALORA", "ADAMSS", "BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "GLORA", "GRALORA", "HIRA",
    "HRA", "IA3", "LOHA", "LOKR", "LORA", "MISS", "OFT", "OSF", "PEANUT", "PSOFT", "PVERA",
    "RANDLORA", "ROAD", "TINYLORA", "UNILORA", "VBLORA", "VERA", "WAVEFT",
)  # fmt: skip


def change_by_merging(name: str, layer: Any) -> Float[Tensor, "rows columns"]:
    """ΔW in float64, laid out as the base's weight is; the layer is of no use afterwards.

    Raises AdapterFileError, with `name`, where PEFT cannot merge it or a bias changes, too.
    """
    layer.double()
    base = layer.get_base_layer()
    weight = base.weight.detach().clone()
    bias = None if base.bias is None else base.bias.detach().clone()
    try:
        layer.merge()
    except (NotImplementedError, ValueError, RuntimeError) as error:
        raise AdapterFileError(f"PEFT cannot merge {name} into the base: {error}") from error
    if bias is not None and (bias != base.bias).any():
        raise AdapterFileError(f"{name}: the adapter changes a bias, which a LoRA cannot")
    return base.weight.detach() - weight
