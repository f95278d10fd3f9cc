"""LoRA files of image models, as diffusers, kohya's sd-scripts and XLabs' trainer write them.

Their factors are the same as PEFT's; names differ, and the scale is in `.alpha` tensors or in the
header. Reading gives PEFT's names and config, and a note of what the original looked like;
`restored` gives the original back, bit for bit.

diffusers (loaders/lora_base.py): `unet.….to_q.lora_A.weight`, formerly `.lora.down.weight` and
`….processor.to_q_lora.down.weight`. kohya (networks/lora.py): `lora_unet_` and the module's path
with `_` for `.`, then `.lora_down.weight`, `.lora_up.weight`, `.alpha`. XLabs (x-flux,
src/flux/modules/layers.py): `double_blocks.….processor.qkv_lora1.down.weight`, without a scale.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from library.errors import AdapterFileError
from library.exchange.image_names import is_guess, module_of, xlabs_factor
from library.peft.config import check_targets, require_plain
from library.peft.lora_config import lora_config
from library.peft.patterns import alpha_in, rank_in
from library.peft.safetensors_file import TensorFile, tensors_digest
from library.peft.write import PREFIX

_ENDINGS = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_down.weight": "A",
    ".lora_up.weight": "B",
    ".lora.down.weight": "A",
    ".lora.up.weight": "B",
    ".lora_linear_layer.down.weight": "A",
    ".lora_linear_layer.up.weight": "B",
    "_lora.down.weight": "A",
    "_lora.up.weight": "B",
}
_OTHER_KINDS = {  # sound files, whose tensors are not the two factors of a LoRA
    ".lokr_": "a LoKr",
    ".hada_": "a LoHa",
    ".dora_scale": "a DoRA",
    ".lora_magnitude_vector": "a DoRA",
}
_ALPHA = ".alpha"
_METADATA = "lora_adapter_metadata"  # diffusers' name for the config in a header
_HEADER_ALPHA = "alpha"  # one for all modules, of a file that has no alpha tensors

JsonObject = dict[str, Any]


class OtherKind(AdapterFileError):
    """A sound file that is of another kind than those that are read."""


def kind_of(tensors: Mapping[str, Tensor]) -> Literal["kohya", "xlabs", "diffusers"]:
    """Whose names a file's tensors have."""
    if any(key.startswith("lora_") for key in tensors):
        return "kohya"
    return "xlabs" if any(map(xlabs_factor, tensors)) else "diffusers"


def read_image_lora(
    file: TensorFile, base_name: str
) -> tuple[JsonObject, dict[str, Tensor], JsonObject]:
    """Config and tensors under PEFT's names, and a JSON note that `restored` needs.

    Raises AdapterFileError: a name that is no LoRA factor's, two names of one module, or a scale
    that cannot be read.
    """
    stored: dict[str, Tensor] = {}
    keys: dict[str, str] = {}
    alphas: dict[str, tuple[str, Tensor]] = {}
    for key, tensor in file.tensors.items():
        if key.endswith(_ALPHA):
            name = module_of(key.removesuffix(_ALPHA).removesuffix("_lora"))
            if name in alphas:
                raise AdapterFileError(
                    f"{file.name}: {key} and {alphas[name][0]} are of one module"
                )
            alphas[name] = (key, tensor)
            continue
        name, side = _factor(key)
        plain = f"{PREFIX}{name}.lora_{side}.weight"
        if plain in stored:
            raise AdapterFileError(f"{file.name}: {key} and {keys[plain]} are of one module")
        stored[plain], keys[plain] = tensor, key
    rows = _pad(stored, keys)
    ranks = {_module(k): t.shape[0] for k, t in stored.items() if ".lora_A." in k and t.ndim}
    config = _config(file, ranks, alphas, base_name)
    note = {
        "metadata": file.metadata,
        "keys": {k: v for k, v in sorted(keys.items()) if k.removeprefix(PREFIX) != v},
        "alphas": {key: _scalar(key, tensor) for key, tensor in sorted(alphas.values())},
        "tensors_sha256": tensors_digest(file.tensors),
    }
    if rows:
        note["rows"] = rows
    guess = next(
        (key for key in keys.values() if is_guess(key.removesuffix(_ending(key) or ""))), None
    )
    if guess is not None:
        note["guess"] = guess
    return config, stored, note


def _pad(stored: dict[str, Tensor], keys: JsonObject) -> dict[str, int]:
    """Add zeros to B of XLabs' q, k and v for linear1's other rows; returns how many it had.

    linear2 reads all of these and v. Raises AdapterFileError if it is not there.
    """
    rows: dict[str, int] = {}
    for name in (key for key in stored if keys[key].endswith(".processor.qkv_lora.up.weight")):
        rows[name] = len(stored[name])
        other = stored.get(name.replace(".linear1.lora_B.", ".linear2.lora_A."))
        more = -1 if other is None or other.ndim != 2 else other.shape[1] - rows[name] // 3
        if more < 0:
            raise AdapterFileError(f"{keys[name]} lacks the proj_lora that tells linear1's size")
        stored[name] = torch.nn.functional.pad(stored[name], (0, 0, 0, more))
    return rows


def restored(stored: dict[str, Tensor], note: JsonObject) -> dict[str, Tensor]:
    """The original's tensors. Raises AdapterFileError if they are not what they were."""
    keys, rows = note["keys"], note.get("rows", {})
    tensors = {
        keys.get(key, key.removeprefix(PREFIX)): t[: rows.get(key)] for key, t in stored.items()
    }
    for key, (value, dtype, shape) in note["alphas"].items():
        tensors[key] = torch.tensor(value, dtype=getattr(torch, dtype)).reshape(shape)
    if tensors_digest(tensors) != note["tensors_sha256"]:
        raise AdapterFileError("the adapter is damaged: its tensors are not the original's")
    return tensors


def _factor(key: str) -> tuple[str, str]:
    """Module path and side of a factor's name."""
    factor = xlabs_factor(key)
    if factor is not None:
        return factor
    ending = _ending(key)
    if ending is not None:
        return module_of(key.removesuffix(ending)), _ENDINGS[ending]
    kind = next((kind for part, kind in _OTHER_KINDS.items() if part in key), None)
    if kind is not None:
        raise OtherKind(f"{key} is of {kind}, a kind of file that is not read")
    raise AdapterFileError(f"{key} is not a factor of a plain LoRA, nor its alpha")


def _ending(key: str) -> str | None:
    return next((ending for ending in _ENDINGS if key.endswith(ending)), None)


def _module(stored: str) -> str:
    return stored.removeprefix(PREFIX).rsplit(".lora_", 1)[0]


def _scalar(key: str, tensor: Tensor) -> tuple[float, str, list[int]]:
    if tensor.numel() != 1:
        raise AdapterFileError(f"{key} is not a single number")
    return tensor.item(), str(tensor.dtype).removeprefix("torch."), list(tensor.shape)


def _config(
    file: TensorFile,
    ranks: dict[str, int],
    alphas: dict[str, tuple[str, Tensor]],
    base_name: str,
) -> JsonObject:
    """Alpha is the file's own, else the header's, else the rank (scale 1, as both loaders do).

    A header has a config of each part, or one number for all modules (diffusers 0.42.1,
    MiniMaxH3LoraLoaderMixin), which counts only where nothing else says an alpha, and only if it is
    a number.
    """
    lone = next((key for name, (key, _) in alphas.items() if name not in ranks), None)
    if lone is not None or not ranks:
        raise AdapterFileError(f"{file.name}: {lone or 'nothing'} belongs to a pair of factors")
    configs = _configs_in_header(file)
    rslora = {bool(config.get("use_rslora")) for config in configs.values()} or {False}
    header_alpha = None if alphas or configs else _alpha_in_header(file)
    values: dict[str, int | float] = {
        name: rank if header_alpha is None else header_alpha for name, rank in ranks.items()
    }
    for part, config in configs.items():
        values |= _alphas_of_part(file, part, config, ranks)
    if len(rslora) > 1 or (True in rslora and not all(_in_part(configs, name) for name in ranks)):
        raise AdapterFileError(f"{file.name} uses rsLoRA in some parts only, which is not kept")
    values |= {name: _scalar(key, tensor)[0] for name, (key, tensor) in alphas.items()}
    return lora_config(ranks, values, base_name=base_name, use_rslora=True in rslora)


def _alphas_of_part(
    file: TensorFile, part: str, config: JsonObject, ranks: dict[str, int]
) -> dict[str, int | float]:
    """Alphas by module, once the header's config has been held to the file."""
    prefix = f"{part}." if part else ""
    names = [name for name in ranks if name.startswith(prefix)]
    require_plain(Path(file.name), config)
    check_targets(config, [name.removeprefix(prefix) for name in names])
    alphas = {}
    for name in names:
        inner = name.removeprefix(prefix)
        rank = rank_in(config, inner)
        if rank != ranks[name]:
            raise AdapterFileError(f"the header gives {name} rank {rank}, the file {ranks[name]}")
        alphas[name] = alpha_in(config, inner)
    return alphas


def _in_part(configs: dict[str, JsonObject], name: str) -> bool:
    return any(not part or name.startswith(f"{part}.") for part in configs)


def _alpha_in_header(file: TensorFile) -> int | float | None:
    try:
        alpha = float((file.metadata or {})[_HEADER_ALPHA])
    except (KeyError, ValueError):
        return None
    if not math.isfinite(alpha):
        return None
    return int(alpha) if alpha.is_integer() else alpha


def _configs_in_header(file: TensorFile) -> dict[str, JsonObject]:
    """diffusers' header: PEFT's config of each part, by the part's name ("" if there is one)."""
    try:
        flat = json.loads((file.metadata or {}).get(_METADATA, "{}"))
        parts: dict[str, JsonObject] = {}
        for key, value in flat.items():
            part, _, field = key.rpartition(".")
            parts.setdefault(part, {"peft_type": "LORA"})[field] = value
    except (ValueError, AttributeError) as error:
        raise AdapterFileError(f"{file.name} has a damaged {_METADATA}: {error}") from error
    return parts
