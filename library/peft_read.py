"""Reading adapter folders, ours and anyone's, into the one representation."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from library.adapter import Adapter, from_sites
from library.errors import AdapterFileError, LayoutMismatch, MissingPath, UsageError
from library.layout import Layout, Site
from library.peft_config import check_targets, read_config, scaling
from library.peft_io import CONFIG_FILE, PREFIX, WEIGHTS_FILE

_KEY = re.compile(rf"^{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight$")


def read_peft(folder: Path, layout: Layout | None = None) -> Adapter:
    """Read an adapter folder; the scale is folded into B, in float32.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors.
        layout: the base's layout, which fixes the order of the modules; without it they are
            ordered by layer and name, and the family is unknown.
    Raises:
        MissingPath: no such folder.
        AdapterFileError: damaged, not plain LoRA, or files and config disagree.
        LayoutMismatch: `layout` has other modules or shapes than the file.
    """
    if not folder.is_dir():
        raise MissingPath(f"there is no adapter folder at {folder}")
    config = read_config(folder / CONFIG_FILE)
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise AdapterFileError(f"{folder / WEIGHTS_FILE} cannot be read: {error}") from error
    pairs = _pairs(tensors)
    check_targets(config, pairs)
    try:
        found = _layout_of_file(config, pairs)
    except UsageError as error:
        raise AdapterFileError(f"{folder} cannot be used: {error}") from error
    if layout is not None:
        found = _in_order_of(found, layout)
    scaled = {
        site.name: (a.float(), b.float() * scaling(config, site))
        for site in found.sites
        for a, b in [pairs[site.name]]
    }
    return from_sites(found, scaled)


def _pairs(tensors: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Tensors by module path. Raises AdapterFileError for strange keys and lone halves."""
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if match is None or tensor.ndim != 2:
            raise AdapterFileError(f"{key} is not a LoRA factor of a linear layer")
        halves.setdefault(match[1], {})[match[2]] = tensor
    for name, half in halves.items():
        if set(half) != {"A", "B"} or half["A"].shape[0] != half["B"].shape[1]:
            raise AdapterFileError(f"the factors of {name} are not a pair of one rank")
    if not halves:
        raise AdapterFileError("the adapter file holds no tensors")
    return {name: (half["A"], half["B"]) for name, half in halves.items()}


def _layout_of_file(config: dict[str, Any], pairs: dict[str, tuple[Tensor, Tensor]]) -> Layout:
    transposed = bool(config.get("fan_in_fan_out"))
    sites = [
        Site(name, a.shape[1], b.shape[0], a.shape[0], transposed=transposed)
        for name, (a, b) in pairs.items()
    ]
    sites.sort(key=lambda site: (site.depth, site.name))
    return Layout("", max(site.depth for site in sites) + 1, tuple(sites))


def _in_order_of(found: Layout, layout: Layout) -> Layout:
    by_name = {site.name: site for site in found.sites}
    if set(by_name) != {site.name for site in layout.sites}:
        raise LayoutMismatch(
            f"the adapter has {found.describe()}; the base's layout is {layout.describe()}"
        )
    sites = tuple(replace(site, rank=by_name[site.name].rank) for site in layout.sites)
    for site in sites:
        other = by_name[site.name]
        if (site.in_features, site.out_features) != (other.in_features, other.out_features):
            raise LayoutMismatch(
                f"the adapter's {site.name} is {other.in_features}x{other.out_features}; "
                f"the base's is {site.in_features}x{site.out_features}"
            )
    return replace(layout, sites=sites)
