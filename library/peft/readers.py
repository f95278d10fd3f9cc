"""What each server does with an adapter: loads it, refuses it, or applies it at another strength.

One table of what servers refuse by a config's field, and one rule each for the scale that they
apply. Read from the sources of PEFT 0.21, vLLM 0.33, SGLang 0.5.23, llama.cpp's
convert_lora_to_gguf and Ollama (autumn 2026); wrong scales: sgl-project/sglang#40835.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from library.layout import REFUSED
from library.peft.config import by_pattern

Server = Literal["peft", "vllm", "sglang", "llama.cpp", "ollama"]
SERVERS: tuple[Server, ...] = ("peft", "vllm", "sglang", "llama.cpp", "ollama")
Config = Mapping[str, Any]
Reason = tuple[str, str]  # code and message

LIKE_PEFT: tuple[Server, ...] = ("peft", "vllm")  # apply every scale that PEFT applies
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank may be
VLLM_DEFAULT_RANK = 16
OLLAMA_FAMILIES = ("llama", "mistral", "gemma", "gemma2")

_REQUIRED: dict[Server, tuple[str, ...]] = {
    "peft": (),
    "vllm": ("r", "lora_alpha", "target_modules"),
    "sglang": ("r", "lora_alpha", "target_modules"),
    "llama.cpp": ("lora_alpha", "base_model_name_or_path"),
    "ollama": ("lora_alpha",),
}
_CHANGES_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")
_EXTRAS = (
    "arrow_config", "kasa_config", "layer_replication", "lora_bias", "modules_to_save",
    "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora",
)  # fmt: skip


def refusals(server: Server, config: Config, modules: Mapping[str, int]) -> list[Reason]:
    """Why a server does not load a LoRA, or should not be given it; empty if it may.

    Args:
        modules: the rank of each module in the file, by name.
    """
    lacking = [key for key in _REQUIRED[server] if not config.get(key)]
    found = [("field-missing", f"{server} needs {key} in the config") for key in lacking]
    if server == "peft":
        return found
    if config.get("use_dora"):
        found.append(("dora", f"{server} does not apply DoRA"))
    if config.get("alora_invocation_tokens") and server != "llama.cpp":
        manner = "refuses it" if server == "vllm" else "would apply it to every token"
        found.append(("alora", f"this is an activated LoRA; {server} {manner}"))
    if str(config.get("init_lora_weights")).startswith(_CHANGES_BASE):
        start = config["init_lora_weights"]
        found.append(("changes-base", f"it belongs to a base that {start!s:.40} has changed"))
    if config.get("bias", "none") != "none":
        found.append(("more-than-lora", f"{server} does not load biases"))
    extras = [key for key in _EXTRAS if config.get(key)]
    found += [("more-than-lora", f"{server} does not support {key}") for key in extras]
    heads = [name for name in modules if name.rsplit(".", 1)[-1] in REFUSED]
    if heads:
        found.append(("embedding", f"{server} refuses an adapter of {heads[0]}"))
    return found + _OWN.get(server, _nothing)(config, modules)


def scale(server: Server, config: Config, name: str, rank: int) -> float:
    """What a server multiplies B·A of one module with, whose factors have `rank`."""
    alpha, r = config.get("lora_alpha", 8), config.get("r", 8)
    if server in LIKE_PEFT:
        alpha = by_pattern(dict(config.get("alpha_pattern") or {}), name, alpha)
        return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return alpha / (r if server == "sglang" else rank)


def _vllm(config: Config, modules: Mapping[str, int]) -> list[Reason]:
    rank = max(modules.values())
    if rank > VLLM_RANKS[-1]:
        return [("rank-limit", f"rank {rank} is above vllm's largest, {VLLM_RANKS[-1]}")]
    return []


def _sglang(config: Config, modules: Mapping[str, int]) -> list[Reason]:
    lone = [
        name
        for name in modules
        if name.endswith(".q_proj") and f"{name.removesuffix('q_proj')}v_proj" not in modules
    ]
    if lone:
        return [("q-without-v", f"sglang needs v_proj wherever q_proj is adapted: {lone[0]}")]
    return []


def _ollama(config: Config, modules: Mapping[str, int]) -> list[Reason]:
    alpha = config.get("lora_alpha")
    if type(alpha) is not int or alpha < 0:
        return [("alpha-not-natural", f"ollama reads lora_alpha as a natural number, not {alpha}")]
    return []


def _nothing(config: Config, modules: Mapping[str, int]) -> list[Reason]:
    return []


_OWN: dict[Server, Callable[[Config, Mapping[str, int]], list[Reason]]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "ollama": _ollama,
}
