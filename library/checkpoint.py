"""A trained model as a folder of config.json and model.safetensors, read strictly.

Matrices may be stored as int8 rows with a float32 scale per row; what is loaded is then exactly
scale x integer, so a card's scores are those of the stored file. No pickle, no unknown tensors, no
missing ones.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from library.canonical import digest
from library.errors import CheckpointError, LorasmithError, MissingPath
from library.files import write_folder
from library.int8 import dequantise, quantise

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SCALE = ".row_scale"
MIN_QUANTISED = 4096  # smaller matrices are kept in float32

Storage = Literal["float32", "int8"]
Built = TypeVar("Built")
# What reading a damaged or foreign checkpoint may raise; RuntimeError is torch's for odd sizes.
_UNREADABLE = (
    OSError, ValueError, SafetensorError, LookupError, TypeError, AttributeError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class CheckpointInfo:
    """What a model was trained on and for.

    Attributes:
        base: {"id", "sha256", "source"} of the base model.
        encoder: name of the description encoder.
        tasks: names of the training tasks; any other task counts as held out.
        training: objective and settings, for the record.
    """

    base: dict[str, Any]
    encoder: str
    tasks: list[str] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "CheckpointInfo":
        """From a checkpoint's config."""
        return cls(*(config[key] for key in ("base", "encoder", "tasks", "training")))


@dataclass(frozen=True)
class StateFolder(Generic[Built]):
    """What a folder holds: what its config describes, its tensors, the digest of both files."""

    config: dict[str, Any]
    built: Built
    state: dict[str, Tensor]
    digest: str


def write_state(
    folder: Path,
    config: Mapping[str, Any],
    module: nn.Module,
    *,
    storage: Storage = "float32",
    overwrite: bool = False,
) -> None:
    """Write a checkpoint folder, whole or not at all; `storage` joins the config.

    Raises OutputError, OutputExists.
    """
    state = {key: value.detach().cpu().float() for key, value in module.state_dict().items()}
    if storage == "int8":
        state = _quantise(state)
    state = {key: value.contiguous() for key, value in sorted(state.items())}
    text = json.dumps({**config, "storage": storage}, indent=1, sort_keys=True) + "\n"
    files = {CONFIG_FILE: text.encode(), WEIGHTS_FILE: save(state, metadata={"format": "pt"})}
    write_folder(folder, files, overwrite=overwrite)


def read_state(folder: Path, build: Callable[[dict[str, Any]], Built]) -> StateFolder[Built]:
    """Read a checkpoint folder; `build` makes of the config what the tensors belong to.

    Raises:
        MissingPath: no such folder.
        CheckpointError: damaged, of another program, or incomplete.
    """
    if not folder.is_dir():
        raise MissingPath(f"there is no checkpoint folder at {folder}")
    try:
        config_bytes = (folder / CONFIG_FILE).read_bytes()
        weights_bytes = (folder / WEIGHTS_FILE).read_bytes()
        config = json.loads(config_bytes)
        built = build(config)
        state = load(weights_bytes)
        if config["storage"] not in get_args(Storage):
            raise ValueError(f"storage {config['storage']!r} is not known here")
        if config["storage"] == "int8":
            state = _dequantise(state)
    except _UNREADABLE as error:
        raise CheckpointError(
            f"checkpoint {folder} cannot be read: {_first_line(error)}"
        ) from error
    except LorasmithError as error:
        raise CheckpointError(f"checkpoint {folder} cannot be read: {error}") from error
    return StateFolder(config, built, state, digest(config_bytes + weights_bytes))


def load_strictly(folder: Path, module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a module its tensors. Raises CheckpointError unless they fit it one to one."""
    wanted = module.state_dict()
    if set(state) != set(wanted):
        odd = sorted(set(state) ^ set(wanted))[0]
        side = "lacks" if odd in wanted else "has a strange"
        raise CheckpointError(f"checkpoint {folder} {side} tensor {odd}")
    for key, value in state.items():
        if value.shape != wanted[key].shape or value.dtype != torch.float32:
            raise CheckpointError(
                f"checkpoint {folder}: {key} is {value.dtype} {list(value.shape)}, "
                f"not float32 {list(wanted[key].shape)}"
            )
        if not torch.isfinite(value).all():
            raise CheckpointError(f"checkpoint {folder}: {key} is not finite")
    module.load_state_dict(state)


def _quantise(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices, and stacks of them, to int8 rows."""
    out = {}
    for key, value in state.items():
        if value.ndim < 2 or value.numel() < MIN_QUANTISED:
            out[key] = value
            continue
        out[key], out[key + SCALE] = quantise(value)
    return out


def _dequantise(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows times their scales. Raises ValueError for a scale that belongs to no such matrix."""
    out = {key: value for key, value in state.items() if not key.endswith(SCALE)}
    for scale_key in state.keys() - out.keys():
        key = scale_key.removesuffix(SCALE)
        rows, scale = out.get(key), state[scale_key]
        if rows is None or rows.dtype != torch.int8 or scale.shape != rows.shape[:-1]:
            raise ValueError(f"{scale_key} does not fit {key}")
        out[key] = dequantise(rows, scale)
    return out


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
