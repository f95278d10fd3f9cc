"""Adapter folders that PEFT, transformers, vLLM, SGLang and LoRAX read alike: writing them.

The portable profile is plain LoRA with the scale folded into B, so that lora_alpha == r and no
server can apply it at another strength: uniform rank (zero-padded), bfloat16, sorted names. The
lossless profile keeps float32 and each module's own rank (rank_pattern). The JSON and the tensors
are written in a fixed order: equal weights give equal bytes.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from library.adapter import Adapter, zeros
from library.layout import Layout
from library.peft.config import PLAIN_LORA
from library.peft.patterns import targeted_as

Profile = Literal["portable", "lossless"]
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."


@dataclass(frozen=True)
class PeftFiles:
    """The two files of an adapter folder, as content."""

    config: dict[str, Any]
    weights: bytes

    @property
    def config_bytes(self) -> bytes:
        return (json.dumps(self.config, indent=2, sort_keys=True) + "\n").encode()


def to_peft(
    adapter: Adapter,
    *,
    base_name: str,
    profile: Profile = "portable",
) -> PeftFiles:
    """Encode one adapter (n = 1) as PEFT's two files.

    Where the layout names its family the base is a causal language model; else PEFT is told no
    kind of model, which fits any.

    Args:
        adapter: a single adapter; its scale is already in B.
        base_name: exactly the string that the server uses for the base model.
        profile: "portable" (bf16, one rank) or "lossless" (float32, each site's rank).
    """
    if len(adapter) != 1:
        raise ValueError(f"an adapter folder holds one adapter, not {len(adapter)}")
    adapter = as_written(adapter, profile)
    dtype = torch.bfloat16 if profile == "portable" else torch.float32
    weights = _weights(adapter.to("cpu", dtype))
    return PeftFiles(_config(adapter.layout, base_name), weights)


def as_written(adapter: Adapter, profile: Profile) -> Adapter:
    """An adapter at the ranks that it has in its file: one for all modules where portable."""
    return adapter if profile == "lossless" else adapter.with_rank(adapter.layout.rank)


def lasting_profile(layout: Layout) -> Profile:
    """The profile that keeps a layout's ranks: lossless where they differ by module."""
    return "portable" if layout == layout.with_rank(layout.rank) else "lossless"


def _weights(adapter: Adapter) -> bytes:
    """What safetensors writes of an adapter's factors, without its work on each of hundreds."""
    tensors = _tensors(adapter).values()
    dtype = adapter.factors()[0].dtype
    data = torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).view(torch.uint8)
    return _header(adapter.layout, dtype) + data.numpy().tobytes()


@lru_cache(maxsize=16)
def _header(layout: Layout, dtype: torch.dtype) -> bytes:
    """The part of a file before its tensors, which all adapters of a layout have in common."""
    tensors = {k: v.contiguous() for k, v in _tensors(zeros(layout, dtype=dtype)).items()}
    file = save(tensors, metadata={"format": "pt"})
    return file[: 8 + int.from_bytes(file[:8], "little")]


def _tensors(adapter: Adapter) -> dict[str, Tensor]:
    """Each site's factors by PEFT's names, in the order in which a file holds them."""
    tensors: dict[str, Tensor] = {}
    for site in adapter.layout.sites:
        a, b = adapter.site(site)
        a, b = a[0], b[0]
        if site.window:  # a convolution's: A (r, in, *window), B (out, r, 1, ...)
            a, b = a.unflatten(1, (-1, *site.window)), b[(..., *(None for _ in site.window))]
        tensors[f"{PREFIX}{site.name}.lora_A.weight"] = a
        tensors[f"{PREFIX}{site.name}.lora_B.weight"] = b
    return dict(sorted(tensors.items()))


def target_modules(layout: Layout) -> tuple[list[str], list[int] | None]:
    """PEFT's `target_modules` and `layers_to_transform` that select exactly the layout's modules.

    Module types where every adapted layer has all of them, full paths where it does not, or where
    the family is unknown, and with it what else the base has modules of these types for.
    """
    names = sorted({targeted_as(site.name) for site in layout.sites})
    if not layout.model_type:
        return names, None
    depths: dict[str, set[int]] = {}
    for site in layout.sites:
        depths.setdefault(site.module_type, set()).add(site.depth)
    layers = sorted({site.depth for site in layout.sites})
    if len(names) < len(layout.sites) or any(sorted(n) != layers for n in depths.values()):
        return names, None
    return sorted(depths), None if layers == list(range(layout.depth)) else layers


def _config(layout: Layout, base_name: str) -> dict[str, Any]:
    modules, layers = target_modules(layout)
    patterns = {s.name: s.rank for s in layout.sites if s.rank != layout.rank}
    return {
        **PLAIN_LORA,
        "alpha_pattern": patterns,
        "base_model_name_or_path": base_name,
        "fan_in_fan_out": any(site.transposed for site in layout.sites),
        "layers_to_transform": layers,
        "lora_alpha": layout.rank,
        "r": layout.rank,
        "rank_pattern": dict(patterns),
        "revision": None,
        "target_modules": modules,
        "task_type": "CAUSAL_LM" if layout.model_type else None,
        "use_rslora": False,
    }
