"""Reading adapter folders, ours and anyone's, into the one representation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from library.adapter import Adapter, from_sites
from library.errors import (
    AdapterFileError,
    LayoutMismatch,
    MissingPath,
    MoreThanLora,
    UsageError,
)
from library.layout import Layout, Site
from library.peft.config import check_targets, parse_config, require_plain, scaling
from library.peft.folder import read_adapter_folder
from library.peft.keys import FACTOR, parted
from library.peft.write import CONFIG_FILE, PREFIX, WEIGHTS_FILE


def read_peft(folder: Path, layout: Layout | None = None) -> Adapter:
    """Read an adapter folder; the scale is folded into B, in float32.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors.
        layout: the base's layout, which fixes the order of the modules, of which the adapter may
            have a part; without it they are ordered by layer and name, and the family is unknown.
    Raises:
        MissingPath: no such folder.
        AdapterFileError: damaged, not plain LoRA, or files and config disagree.
        MoreThanLora: there are extras, such as a head, without which it is another adapter.
        LayoutMismatch: `layout` lacks a module of the file, or has another shape.
    """
    if not folder.is_dir():
        raise MissingPath(f"there is no adapter folder at {folder}")
    return adapter_of(read_adapter_folder(folder, optional=()), layout, folder)


def adapter_of(
    files: Mapping[str, bytes],
    layout: Layout | None = None,
    folder: Path = Path(),
    *,
    leave_extras: bool = False,
) -> Adapter:
    """The same from the content of an adapter's files, by name; `folder` is for messages.

    Raises as `read_peft` does; with `leave_extras`, for what looks at ΔW only, no MoreThanLora.
    """
    config = parse_config(folder / CONFIG_FILE, files[CONFIG_FILE])
    require_plain(folder / CONFIG_FILE, config)
    try:
        tensors, extras = parted(load(files[WEIGHTS_FILE]), config)
    except SafetensorError as error:
        raise AdapterFileError(f"{folder / WEIGHTS_FILE} cannot be read: {error}") from error
    if extras and not leave_extras:
        named = min(extras).removeprefix(PREFIX)
        message = f"the adapter has trained weights beside its LoRA ({named}), without which it is"
        raise MoreThanLora(f"{message} another adapter")
    own_layout = layout_in(config, tensors)
    if layout is not None:
        own_layout = _in_order_of(own_layout, layout)
    pairs = _pairs(tensors)
    scaled = {
        site.name: (a.flatten(1).float(), b.flatten(1).float() * scaling(config, site))
        for site in own_layout.sites
        # a (r, in, *kernel) to (r, in·kernel), b (out, r) or (out, r, 1, 1) to (out, r)
        for a, b in [pairs[site.name]]
    }
    return from_sites(own_layout, scaled)


def layout_in(config: dict[str, Any], tensors: dict[str, Tensor]) -> Layout:
    """The layout that tensors and config of a plain LoRA agree on; the family is unknown.

    Raises AdapterFileError: they disagree, or something is no factor of a pair.
    """
    pairs = _pairs(tensors)
    check_targets(config, pairs)
    try:
        layout = _layout_of_file(config, pairs)
    except UsageError as error:
        raise AdapterFileError(f"the adapter cannot be used: {error}") from error
    for site in layout.sites:
        scaling(config, site)
    return layout


def _pairs(tensors: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Tensors by module path: A `[r, in, *kernel]`, B `[out, r]` or `[out, r, 1, 1]`.

    Raises AdapterFileError for strange keys and lone halves.
    """
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = FACTOR.match(key)
        if match is None or tensor.ndim < 2:
            raise AdapterFileError(f"{key} is not a LoRA factor of a linear or convolution layer")
        halves.setdefault(match[1], {})[match[2]] = tensor
    for name, half in halves.items():
        if set(half) != {"A", "B"} or half["A"].shape[0] != half["B"].shape[1]:
            raise AdapterFileError(f"the factors of {name} are not a pair of one rank")
        if half["A"].ndim != half["B"].ndim or half["B"][0, 0].numel() != 1:
            raise AdapterFileError(f"the factors of {name} are not those of one kind of layer")
    if not halves:
        raise AdapterFileError("the adapter holds no LoRA: there is no pair of factors")
    return {name: (half["A"], half["B"]) for name, half in halves.items()}


def _layout_of_file(config: dict[str, Any], pairs: dict[str, tuple[Tensor, Tensor]]) -> Layout:
    transposed = bool(config.get("fan_in_fan_out"))
    sites = [
        Site(name, a.shape[1], b.shape[0], a.shape[0], a[0, 0].numel(), transposed, (*a.shape[2:],))
        for name, (a, b) in pairs.items()
    ]
    sites.sort(key=lambda site: (site.depth, site.name))
    return Layout("", max(site.depth for site in sites) + 1, tuple(sites))


def _in_order_of(own_layout: Layout, layout: Layout) -> Layout:
    by_name = {site.name: site for site in own_layout.sites}
    if not by_name.keys() <= layout.ranks.keys():
        raise LayoutMismatch(
            f"the adapter has {own_layout.describe()}; the base's layout is {layout.describe()}"
            f"{own_layout.difference(layout)}"
        )
    layout = layout.with_ranks(own_layout.ranks)
    for site in layout.sites:
        other = by_name[site.name]
        if shape_of(site) != shape_of(other):
            raise LayoutMismatch(
                f"the adapter's {site.name} is {other.in_features}x{other.out_features}; "
                f"the base's is {site.in_features}x{site.out_features}"
            )
    return layout


def shape_of(site: Site) -> tuple[str, int, int, int]:
    """Name and shape, on which files and bases have to agree; not the rank."""
    return site.name, site.in_features, site.out_features, site.kernel
