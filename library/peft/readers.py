"""Readers of adapters: which ones each loads, refuses, or applies at another strength.

A reader is a server, PEFT itself, or this library's own import. The table below says, for each of
them and the version whose sources it was read from, which fields it needs, what it loads beyond
plain LoRA, and how it scales B·A. `verify --target` and `library import` go by it. Wrong scales:
sgl-project/sglang#40835.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from library.layout import REFUSED
from library.peft.patterns import alpha_in, rank_in

Server = Literal["peft", "vllm", "sglang", "llama.cpp", "ollama"]
SERVERS: tuple[Server, ...] = ("peft", "vllm", "sglang", "llama.cpp", "ollama")
Config = Mapping[str, Any]
Reason = tuple[str, str]  # code and message

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank may be
VLLM_DEFAULT_RANK = 16
OLLAMA_FAMILIES = ("llama", "mistral", "gemma", "gemma2")

_CHANGES_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")  # starts that edit the base
_FORMS = (  # fields of LoRA's other forms
    "arrow_config", "kasa_config", "layer_replication", "monteclora_config", "target_parameters",
    "use_bdlora", "use_qalora",
)  # fmt: skip
EXTRAS = ("modules_to_save", "bias", "lora_bias", "trainable_token_indices")  # trained beside it


@dataclass(frozen=True)
class Reader:
    """One reader's rules.

    Attributes:
        version: whose code the rules were read from.
        needs: fields without which it does not load a config.
        loads: what it loads beyond plain LoRA, or applies rightly; "forms" are `_FORMS`, "extras"
            `EXTRAS`.
        beside: what it does with extras that it does not load.
        saved: names in `modules_to_save` that it loads all the same.
        scale: how it scales B·A: as PEFT does, or alpha over the factors' rank or over `r`.
        alora: what it does with an activated LoRA, if it does not load one.
    """

    version: str
    needs: tuple[str, ...] = ()
    loads: frozenset[str] = frozenset()
    beside: str = "refuses what was trained beside the LoRA"
    saved: frozenset[str] = frozenset()
    scale: Literal["peft", "rank", "r"] = "rank"
    alora: str = "would apply it to every token"


_HUGGING_FACE = ("r", "lora_alpha", "target_modules")
READERS: dict[str, Reader] = {
    "peft": Reader(
        "PEFT 0.21.2",
        loads=frozenset({"dora", "alora", "changed base", "forms", "extras", "embeddings"})
        | {"expressions"},
        scale="peft",
    ),
    "vllm": Reader(
        "vLLM 0.33.0",
        needs=_HUGGING_FACE,
        loads=frozenset({"expressions"}),
        saved=frozenset({"classifier", "score"}),
        scale="peft",
        alora="refuses it",
    ),
    "sglang": Reader(
        "SGLang 0.5.23",
        needs=_HUGGING_FACE,
        beside="loads the LoRA without what was trained beside it, and says nothing",
        scale="r",
    ),
    "llama.cpp": Reader(
        "convert_lora_to_gguf of autumn 2026",
        needs=("lora_alpha", "base_model_name_or_path"),
        loads=frozenset({"alora", "expressions"}),
        beside="refuses what was trained beside the LoRA, but drops norms and says nothing",
    ),
    "ollama": Reader(
        "Ollama of autumn 2026", needs=("lora_alpha",), loads=frozenset({"expressions"})
    ),
    "lorasmith": Reader(
        "this one",
        loads=frozenset({"expressions", "embeddings", "extras"}),
        scale="peft",
        alora="does not read it",
    ),
}


def config_refusals(name: str, config: Config) -> list[Reason]:
    """Why a reader does not load a LoRA's config, or should not be given it; empty if it may."""
    reader, loads = READERS[name], READERS[name].loads
    reasons = [
        ("field-missing", f"{name} needs {key} in the config")
        for key in reader.needs
        if not config.get(key)
    ]
    if config.get("use_dora") and "dora" not in loads:
        reasons.append(("dora", f"{name} does not apply DoRA (use_dora)"))
    if config.get("alora_invocation_tokens") and "alora" not in loads:
        reasons.append(("alora", f"this is an activated LoRA; {name} {reader.alora}"))
    start = str(config.get("init_lora_weights"))
    if start.startswith(_CHANGES_BASE) and "changed base" not in loads:
        reasons.append(("changes-base", f"{start:.40} changes the base: it belongs to that one"))
    forms = [key for key in _FORMS if config.get(key) and "forms" not in loads]
    reasons += [("more-than-lora", f"{name} does not support {key}") for key in forms]
    if "extras" not in loads:
        extras = [key for key in EXTRAS if config.get(key) and config[key] != "none"]
        saved = config.get("modules_to_save")
        if isinstance(saved, list) and reader.saved.issuperset(map(str, saved)):
            extras = [key for key in extras if key != "modules_to_save"]
        reasons += [("more-than-lora", f"{name} {reader.beside}: {key}") for key in extras]
    targets = config.get("target_modules")
    plain = isinstance(targets, list | None) or targets in ("all", "all-linear")
    if not plain and "expressions" not in loads:
        message = f"{name} takes target_modules as a list, not as an expression"
        reasons.append(("target-expression", message))
    return reasons


def refusals(server: Server, config: Config, modules: Mapping[str, int]) -> list[Reason]:
    """Why a server does not load a LoRA, or should not be given it; empty if it may.

    Args:
        modules: the rank of each module in the file, by name.
    """
    reasons = config_refusals(server, config)
    heads = [name for name in modules if name.rsplit(".", 1)[-1] in REFUSED]
    if heads and "embeddings" not in READERS[server].loads:
        reasons.append(("embedding", f"{server} refuses an adapter of {heads[0]}"))
    largest, alpha = max(modules.values()), config.get("lora_alpha")
    if server == "vllm" and largest > VLLM_RANKS[-1]:
        message = f"rank {largest} is above vllm's largest, {VLLM_RANKS[-1]}"
        reasons.append(("rank-limit", message))
    if server == "sglang":
        reasons += _without_value(modules)
    if server == "ollama" and (type(alpha) is not int or alpha < 0):
        message = f"ollama reads lora_alpha as a natural number, not {alpha}"
        reasons.append(("alpha-not-natural", message))
    return reasons


def _without_value(modules: Mapping[str, int]) -> list[Reason]:
    for name in modules:
        if name.endswith(".q_proj") and f"{name.removesuffix('q_proj')}v_proj" not in modules:
            return [("q-without-v", f"sglang needs v_proj wherever q_proj is adapted: {name}")]
    return []


def scale(server: Server, config: Config, name: str, rank: int) -> float:
    """The factor in a server's ΔW = scale·B·A of one module, whose factors have `rank`.

    As in PEFT: alpha / r, or alpha / sqrt(r) with rsLoRA, both by the config's patterns.
    """
    rule = READERS[server].scale
    if rule != "peft":
        return config.get("lora_alpha", 8) / (config.get("r", 8) if rule == "r" else rank)
    if adapts_parameter(config, name):  # one rank for each of a stack of matrices
        rank = rank_in(config, name)
    return alpha_in(config, name) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def adapts_parameter(config: Mapping[str, Any], name: str) -> bool:
    """True if a module's factors are of one of the config's `target_parameters`.

    PEFT names them by the module that holds the parameter, with a `.base_layer` for each further
    parameter of it, and gives a stack of n matrices n times the rank.
    """
    while name.endswith(".base_layer"):
        name = name.removesuffix(".base_layer")
    parameters = config.get("target_parameters") or []
    owners = (parameter.rpartition(".")[0] for parameter in parameters)
    return any(f".{name}".endswith(f".{owner}") for owner in owners if owner)
