"""Reading adapter_config.json: what is plain LoRA, and which modules PEFT would adapt."""

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from library.errors import AdapterFileError
from library.layout import Site
from library.peft.patterns import rank_in, require_bounded, targeted_as
from library.peft.readers import adapts_parameter, config_refusals, scale

PLAIN_LORA = {
    "bias": "none",
    "inference_mode": True,
    "init_lora_weights": True,
    "lora_dropout": 0.0,
    "modules_to_save": None,
    "peft_type": "LORA",
    "use_dora": False,
}  # what every config says that we write


def read_config(path: Path) -> dict[str, Any]:
    """The config of a plain LoRA. Raises AdapterFileError for anything else."""
    config = read_any_config(path)
    require_plain(path, config)
    return config


def read_any_config(path: Path) -> dict[str, Any]:
    """The config of any adapter of PEFT's. Raises AdapterFileError if it is not a JSON object."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AdapterFileError(f"{path} cannot be read: {error}") from error
    return parse_config(path, content)


def parse_config(path: Path, content: bytes) -> dict[str, Any]:
    """The config in a file's content; `path` is for messages. Raises AdapterFileError."""
    try:
        config = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise AdapterFileError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise AdapterFileError(f"{path} does not describe a LoRA adapter")
    return config


def require_plain(path: Path, config: dict[str, Any]) -> None:
    """Raise AdapterFileError unless the config is that of a plain LoRA; `path` is for messages."""
    if config.get("peft_type") != "LORA":
        raise AdapterFileError(f"{path} does not describe a LoRA adapter")
    reasons = config_refusals("lorasmith", config)
    if reasons:
        raise AdapterFileError(f"{path} describes more than plain LoRA: {reasons[0][1]}")
    check_types(path, config)


def check_types(path: Path, config: dict[str, Any]) -> None:
    """Raise AdapterFileError unless the fields read below have types that PEFT writes."""
    for default, patterns in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        by_name = config.get(patterns) or {}
        values = [None]
        if isinstance(by_name, dict):
            values = [config.get(default, 8), *by_name.values()]
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
            raise AdapterFileError(f"{path}: {default} and {patterns} must hold numbers")
        _require_expressions(path, by_name)
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        names = [] if config.get(key) is None else config[key]
        if isinstance(names, str):
            _require_expressions(path, [names])
        elif not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise AdapterFileError(f"{path}: {key} must be a list of names or an expression")
    parameters = config.get("target_parameters") or []
    if not isinstance(parameters, list) or not all(isinstance(x, str) for x in parameters):
        raise AdapterFileError(f"{path}: target_parameters must be a list of names")
    layers = config.get("layers_to_transform") or []
    if not all(isinstance(x, int) for x in (layers if isinstance(layers, list) else [layers])):
        raise AdapterFileError(f"{path}: layers_to_transform must hold layer numbers")


def _require_expressions(path: Path, expressions: Iterable[str]) -> None:
    for expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            raise AdapterFileError(f"{path}: '{expression}' is no expression: {error}") from error


def check_targets(config: dict[str, Any], modules: Collection[str]) -> None:
    """Raise AdapterFileError unless the config targets every module of the file.

    PEFT would ignore the tensors of the others without a word. Targets that the file lacks do no
    harm: PEFT and servers go by the file's names. Expressions that may never finish are not tried.
    """
    require_bounded(config, modules)
    if config.get("target_modules") is None:
        return
    for name in modules:
        if not _is_targeted(config, name) and not adapts_parameter(config, name):
            raise AdapterFileError(f"the config does not target {name}, which the file adapts")


def unused_targets(config: dict[str, Any], modules: Collection[str]) -> list[str]:
    """The listed target modules that no module of the file ends with."""
    targets = config.get("target_modules")
    names = targets if isinstance(targets, list) else []
    return [target for target in names if not any(_ends_with(name, [target]) for name in modules)]


def require_rank(config: Mapping[str, Any], name: str, rank: int) -> None:
    """Raise AdapterFileError unless the config gives a module the rank that its factors have."""
    expected = rank_in(config, name)
    for number in (config.get("r", 8), expected):
        if type(number) is not int or number < 1:
            raise AdapterFileError(f"the config gives rank {number!s:.40}, no natural number")
    multiple = adapts_parameter(config, name) and rank % expected == 0
    if rank != expected and not multiple:
        raise AdapterFileError(f"the config gives {name} rank {expected}, the file {rank}")


def _is_targeted(config: dict[str, Any], name: str) -> bool:
    """True if PEFT adapts a module (peft.tuners.tuners_utils.check_target_module_exists)."""
    targets, excluded = config["target_modules"], config.get("exclude_modules")
    name = targeted_as(name)
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
    match = next((match for match in matches if match), None)
    selected = layers if isinstance(layers, list) else [layers]
    return _selects(targets, name) and match is not None and int(match[1]) in selected


def _selects(names: str | list[str], name: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, name) is not None
    return _ends_with(name, names)


def _ends_with(name: str, endings: list[str]) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)


def scaling(config: dict[str, Any], site: Site) -> float:
    """The scale of one module, as PEFT has it.

    Raises AdapterFileError if config and file differ in the rank.
    """
    rank = rank_in(config, site.name)
    if rank != site.rank:
        raise AdapterFileError(f"the config gives {site.name} rank {rank}, the file {site.rank}")
    return scale("peft", config, site.name, rank)
