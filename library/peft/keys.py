"""The names of a PEFT LoRA's tensors: which are pairs of factors, which are something else."""

import re
from collections.abc import Mapping
from typing import Any

from library.layout import REFUSED
from library.peft.safetensors_file import BadFile
from library.peft.write import PREFIX

Shape = tuple[int, ...]
_FACTOR = re.compile(rf"^{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight$")
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
        match = _FACTOR.match(key) or _EMBEDDING.match(key)
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


def _accounted_for(key: str, config: Mapping[str, Any]) -> bool:
    """Whether PEFT writes such a tensor beside the factors, given the config."""
    if _MAGNITUDE.match(key):
        return bool(config.get("use_dora"))
    if _BIAS.match(key):
        return bool(config.get("lora_bias"))
    saved = config.get("modules_to_save") or []
    parts = key.removeprefix(PREFIX).split(".")
    if isinstance(saved, list) and any(part in saved for part in parts):
        return key.startswith(PREFIX)
    if config.get("trainable_token_indices") and "token_adapter" in parts:
        return True
    return is_whole_embedding(key) or (parts[-1] == "bias" and config.get("bias", "none") != "none")


def is_whole_embedding(key: str) -> bool:
    """PEFT saves embeddings that it adapts, or whose vocabulary has grown, as a whole as well."""
    parts = key.removeprefix(PREFIX).replace(".base_layer.", ".").split(".")
    return parts[-1] == "weight" and len(parts) > 1 and parts[-2] in REFUSED
