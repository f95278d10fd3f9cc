"""Adapter folders that PEFT, transformers, vLLM, SGLang and LoRAX read alike.

The portable profile is plain LoRA with the scale folded into B, so that lora_alpha == r and no
server can apply it at another strength: uniform rank (zero-padded), bfloat16, sorted names. The
lossless profile keeps float32 and each module's own rank (rank_pattern). The JSON and the tensors
are written in a fixed order: equal weights give equal bytes.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from library.adapter import Adapter
from library.errors import AdapterFileError, LayoutMismatch, MissingPath, UsageError
from library.layout import Layout, Site

Profile = Literal["portable", "lossless"]
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
_KEY = re.compile(rf"^{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight$")
# What makes a LoRA more than ΔW = scaling·B·A on the base as it is.
_MORE = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "lora_bias",
    "modules_to_save", "monteclora_config", "target_parameters", "trainable_token_indices",
    "use_bdlora", "use_dora", "use_qalora",
)  # fmt: skip
_CHANGES_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")  # starts that edit the base


@dataclass(frozen=True)
class PeftFiles:
    """The two files of an adapter folder, as content."""

    config: dict[str, Any]
    weights: bytes

    @property
    def config_bytes(self) -> bytes:
        return (json.dumps(self.config, indent=2, sort_keys=True) + "\n").encode()


def to_peft(
    adapter: Adapter, *, base_name: str, revision: str | None = None, profile: Profile = "portable"
) -> PeftFiles:
    """Encode one adapter (n = 1) as PEFT's two files.

    Args:
        adapter: a single adapter; its scale is already in B.
        base_name: exactly the string that the server uses for the base model.
        revision: revision of the base on the Hub, if it is pinned.
        profile: "portable" (bf16, one rank) or "lossless" (float32, each site's rank).
    """
    if len(adapter) != 1:
        raise ValueError(f"an adapter folder holds one adapter, not {len(adapter)}")
    layout = adapter.layout
    if profile == "portable":
        adapter = adapter.with_rank(layout.rank) if _ranks(layout) != {layout.rank} else adapter
        dtype = torch.bfloat16
    else:
        dtype = torch.float32
    tensors: dict[str, Tensor] = {}
    for site in adapter.layout.sites:
        a, b = adapter.site(site)
        tensors[f"{PREFIX}{site.name}.lora_A.weight"] = a[0].to(dtype).contiguous()
        tensors[f"{PREFIX}{site.name}.lora_B.weight"] = b[0].to(dtype).contiguous()
    weights = save(dict(sorted(tensors.items())), metadata={"format": "pt"})
    return PeftFiles(_config(adapter.layout, base_name, revision), weights)


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
    config = _read_config(folder / CONFIG_FILE)
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise AdapterFileError(f"{folder / WEIGHTS_FILE} cannot be read: {error}") from error
    pairs = _pairs(tensors)
    _check_targets(config, pairs)
    try:
        found = _layout_of_file(config, pairs)
    except UsageError as error:
        raise AdapterFileError(f"{folder} cannot be used: {error}") from error
    if layout is not None:
        found = _in_order_of(found, layout)
    return _stacked(found, config, pairs)


def target_modules(layout: Layout) -> tuple[list[str], list[int] | None]:
    """PEFT's `target_modules` and `layers_to_transform` that select exactly the layout's modules.

    Module types where every adapted layer has all of them, full paths where it does not.
    """
    depths: dict[str, set[int]] = {}
    for site in layout.sites:
        depths.setdefault(site.module_type, set()).add(site.depth)
    layers = sorted({site.depth for site in layout.sites})
    if any(sorted(found) != layers for found in depths.values()):
        return sorted(site.name for site in layout.sites), None
    return sorted(depths), None if layers == list(range(layout.depth)) else layers


def _config(layout: Layout, base_name: str, revision: str | None) -> dict[str, Any]:
    modules, layers = target_modules(layout)
    patterns = {s.name: s.rank for s in layout.sites if s.rank != layout.rank}
    return {
        "alpha_pattern": patterns,
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": any(site.transposed for site in layout.sites),
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_to_transform": layers,
        "lora_alpha": layout.rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": layout.rank,
        "rank_pattern": dict(patterns),
        "revision": revision,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterFileError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise AdapterFileError(f"{path} does not describe a LoRA adapter")
    more = next((key for key in _MORE if config.get(key)), None)
    if more is not None:
        raise AdapterFileError(f"{path} describes more than plain LoRA: {more}")
    if config.get("bias", "none") != "none":
        raise AdapterFileError(f"{path} trains biases, which is more than plain LoRA")
    if str(config.get("init_lora_weights")).startswith(_CHANGES_BASE):
        raise AdapterFileError(f"{path} changes the base model ({config['init_lora_weights']})")
    _check_types(path, config)
    return config


def _check_types(path: Path, config: dict[str, Any]) -> None:
    """Raise AdapterFileError unless the fields read below have types that PEFT writes."""
    for default, patterns in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        found = config.get(patterns) or {}
        values = [config.get(default, 8), *found.values()] if isinstance(found, dict) else [None]
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
            raise AdapterFileError(f"{path}: {default} and {patterns} must hold numbers")
        _compiled(path, found)
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        names = config.get(key) or []
        if isinstance(names, str):
            _compiled(path, [names])
        elif not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise AdapterFileError(f"{path}: {key} must be a list of names or an expression")
    layers = config.get("layers_to_transform") or []
    if not all(isinstance(x, int) for x in (layers if isinstance(layers, list) else [layers])):
        raise AdapterFileError(f"{path}: layers_to_transform must hold layer numbers")


def _compiled(path: Path, expressions: Iterable[str]) -> None:
    for expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            raise AdapterFileError(f"{path}: '{expression}' is no expression: {error}") from error


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


def _check_targets(config: dict[str, Any], pairs: dict[str, tuple[Tensor, Tensor]]) -> None:
    """PEFT ignores tensors that the config does not target; here that is an error."""
    targets = config.get("target_modules")
    if targets is None:
        return
    for name in pairs:
        if not _is_targeted(config, name):
            raise AdapterFileError(f"the config does not target {name}, which the file adapts")
    for target in targets if isinstance(targets, list) else []:
        if not any(_ends_with(name, [target]) for name in pairs):
            raise AdapterFileError(f"the config targets {target}, which the file lacks")


def _is_targeted(config: dict[str, Any], name: str) -> bool:
    """Whether PEFT adapts a module (peft.tuners.tuners_utils.check_target_module_exists)."""
    targets, excluded = config["target_modules"], config.get("exclude_modules")
    if excluded and _selects(excluded, name):
        return False
    if isinstance(targets, str):
        return targets == "all-linear" or _selects(targets, name)
    layers = config.get("layers_to_transform")
    if name in targets or layers is None or layers == []:
        return _selects(targets, name)
    patterns = config.get("layers_pattern") or [r"[^.]*"]
    matches = (
        re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name)
        for pattern in ([patterns] if isinstance(patterns, str) else patterns)
    )
    match = next((found for found in matches if found), None)
    wanted = layers if isinstance(layers, list) else [layers]
    return _selects(targets, name) and match is not None and int(match[1]) in wanted


def _selects(names: str | list[str], name: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, name) is not None
    return _ends_with(name, names)


def _ends_with(name: str, endings: list[str]) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)


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


def _stacked(
    layout: Layout, config: dict[str, Any], pairs: dict[str, tuple[Tensor, Tensor]]
) -> Adapter:
    factors_a, factors_b = {}, {}
    for group in layout.groups:
        a = torch.zeros(1, len(group.sites), group.rank, group.in_features)
        b = torch.zeros(1, len(group.sites), group.out_features, group.rank)
        for position, site in enumerate(group.sites):
            site_a, site_b = pairs[site.name]
            a[0, position, : site.rank] = site_a.float()
            b[0, position, :, : site.rank] = site_b.float() * _scaling(config, site)
        factors_a[group.key], factors_b[group.key] = a, b
    return Adapter(layout, factors_a, factors_b)


def _scaling(config: dict[str, Any], site: Site) -> float:
    """alpha / r, or alpha / sqrt(r) with rsLoRA; patterns match as they do in PEFT."""
    rank = _by_pattern(config.get("rank_pattern") or {}, site.name, config.get("r", 8))
    alpha = _by_pattern(config.get("alpha_pattern") or {}, site.name, config.get("lora_alpha", 8))
    if rank != site.rank:
        raise AdapterFileError(f"the config gives {site.name} rank {rank}, the file {site.rank}")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: dict[str, Any], name: str, default: Any) -> Any:
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def _ranks(layout: Layout) -> set[int]:
    return {site.rank for site in layout.sites}
