"""The names of a PEFT LoRA's tensors: which are pairs of factors, which are something else."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from library.errors import AdapterFileError
from library.layout import REFUSED
from library.peft.safetensors_file import BadFile
from library.peft.write import PREFIX

Shape = tuple[int, ...]
T = TypeVar("T")
# What wrappers of a model put into the names of its parameters: PEFT finds no module of such a name
# and applies nothing, without an error. The last two stand in front only.
_WRAPPED = re.compile(
    rf"^{re.escape(PREFIX)}(?:.*\.)??"
    r"((?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.)"
    rf"|^{re.escape(PREFIX)}(module\.|{re.escape(PREFIX)})"
)
FACTOR = re.compile(rf"^{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight$")
_EMBEDDING = re.compile(rf"^{re.escape(PREFIX)}(.+)\.lora_embedding_([AB])$")
_MAGNITUDE = re.compile(rf"^{re.escape(PREFIX)}(.+)\.lora_magnitude_vector(?:\.weight)?$")
_BIAS = re.compile(rf"^{re.escape(PREFIX)}(.+)\.lora_B\.bias$")


def pairs_of(
    shapes: Mapping[str, Shape], config: Mapping[str, Any]
) -> dict[str, tuple[Shape, Shape]]:
    """Shapes of A and B of every module of a PEFT LoRA, embeddings included, sorted by name.

    Raises BadFile: `pairs` for lone halves and unlike ranks, `keys` for other names that the config
    does not account for.
    """
    halves: dict[str, dict[str, Shape]] = {}
    for key, shape in shapes.items():
        match = FACTOR.match(key) or _EMBEDDING.match(key)
        if match is not None:
            halves.setdefault(match[1], {})[match[2]] = shape
        elif not _accounted_for(key, config):
            raise BadFile("keys", f"{key} is no factor of a LoRA, nor anything the config names")
    for name, half in halves.items():
        a, b = half.get("A", ()), half.get("B", ())
        if len(a) < 2 or len(a) != len(b) or a[0] != b[1]:
            raise BadFile("pairs", f"the factors of {name} are not a pair of one rank")
    if not halves:
        raise BadFile("pairs", "the file holds no pair of factors")
    return {name: (half["A"], half["B"]) for name, half in sorted(halves.items())}


def parted(
    tensors: Mapping[str, T], config: Mapping[str, Any]
) -> tuple[dict[str, T], dict[str, T]]:
    """An adapter's own tensors, and its extras: heads, biases, norms, tokens, whole embeddings."""
    own = {
        key: value
        for key, value in tensors.items()
        if FACTOR.match(key) or _MAGNITUDE.match(key) or not _accounted_for(key, config)
    }
    return own, {key: value for key, value in tensors.items() if key not in own}


def _accounted_for(key: str, config: Mapping[str, Any]) -> bool:
    """True if PEFT writes such a tensor beside the factors, given the config."""
    if _MAGNITUDE.match(key):
        return bool(config.get("use_dora"))
    if _BIAS.match(key):
        return bool(config.get("lora_bias"))
    saved = config.get("modules_to_save") or []
    path = key.removeprefix(PREFIX)
    # PEFT saves every module whose path ends with one of the names, even within a word.
    if isinstance(saved, list) and any(f"{name}." in path for name in saved):
        return key.startswith(PREFIX)
    parts = path.split(".")
    if config.get("trainable_token_indices") and "token_adapter" in parts:
        return True
    return is_whole_embedding(key) or (parts[-1] == "bias" and config.get("bias", "none") != "none")


def is_whole_embedding(key: str) -> bool:
    """PEFT saves embeddings that it adapts, or whose vocabulary has grown, as a whole as well."""
    parts = key.removeprefix(PREFIX).replace(".base_layer.", ".").split(".")
    return parts[-1] == "weight" and len(parts) > 1 and parts[-2] in REFUSED


def wrapper_in(keys: Iterable[str]) -> str | None:
    """The part that a wrapper put into a name, such as `_orig_mod.`; None if there is none."""
    matches = (_WRAPPED.match(key) for key in keys)
    return next((match[1] or match[2] for match in matches if match), None)


def unwrapped(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An adapter's tensors and config with the names that PEFT gives without wrappers.

    Raises AdapterFileError if two tensors have the same name then.
    """
    names = {key: _without_wrappers(key) for key in tensors}
    if len(set(names.values())) < len(names):
        raise AdapterFileError("two tensors have one name once what wrappers added is removed")
    targets = config.get("target_modules")
    if isinstance(targets, list):
        targets = [_without_wrappers(PREFIX + name).removeprefix(PREFIX) for name in targets]
    plain = {**config, "target_modules": targets} if "target_modules" in config else {**config}
    return {names[key]: tensor for key, tensor in tensors.items()}, plain


def _without_wrappers(key: str) -> str:
    while match := _WRAPPED.match(key):
        group = 1 if match[1] else 2
        key = key[: match.start(group)] + key[match.end(group) :]
    return key
