"""Generator checkpoints: a folder of config.json and model.safetensors, read strictly.

Matrices may be stored as int8 rows with a float32 scale per row; what is loaded is then exactly
scale x integer, so a card's scores are those of the stored file. No pickle, no unknown keys, no
missing keys.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from generator.config import TextToLoRAConfig
from generator.text_to_lora import TextToLoRA
from library.canonical import digest
from library.errors import CheckpointError, LorasmithError, MissingPath
from library.files import write_folder
from library.int8 import dequantise, quantise
from library.layout import Layout

FORMAT = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SCALE = ".row_scale"
MIN_QUANTISED = 4096  # smaller matrices are kept in float32

Storage = Literal["float32", "int8"]
# What reading a damaged or foreign checkpoint may raise; RuntimeError is torch's for odd sizes.
_UNREADABLE = (
    OSError, ValueError, SafetensorError, LookupError, TypeError, AttributeError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class CheckpointInfo:
    """What a generator was trained on and for.

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


@dataclass(frozen=True)
class Checkpoint:
    """A loaded generator with its record and digest."""

    generator: str
    module: TextToLoRA
    info: CheckpointInfo
    digest: str

    @property
    def layout(self) -> Layout:
        return self.module.layout


def save_pretrained(
    folder: Path,
    module: TextToLoRA,
    info: CheckpointInfo,
    *,
    storage: Storage = "float32",
    overwrite: bool = False,
) -> None:
    """Write a checkpoint folder, whole or not at all. Raises OutputError, OutputExists."""
    config = {
        "format": FORMAT,
        "generator": "text-to-lora",
        "architecture": asdict(module.config),
        "layout": module.layout.to_dict(),
        "layout_digest": module.layout.digest,
        "storage": storage,
        **asdict(info),
    }
    state = {key: value.detach().cpu().float() for key, value in module.state_dict().items()}
    if storage == "int8":
        state = _quantise(state)
    state = {key: value.contiguous() for key, value in sorted(state.items())}
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    files = {CONFIG_FILE: text.encode(), WEIGHTS_FILE: save(state, metadata={"format": "pt"})}
    write_folder(folder, files, overwrite=overwrite)


def from_pretrained(folder: Path) -> Checkpoint:
    """Read a checkpoint folder.

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
        module, info = _build(config)
        state = load(weights_bytes)
        if config["storage"] == "int8":
            state = _dequantise(state)
    except _UNREADABLE as error:
        raise CheckpointError(
            f"checkpoint {folder} cannot be read: {_first_line(error)}"
        ) from error
    except LorasmithError as error:
        raise CheckpointError(f"checkpoint {folder} cannot be read: {error}") from error
    _load_strictly(folder, module, state)
    return Checkpoint(
        config["generator"], module.eval(), info, digest(config_bytes + weights_bytes)
    )


def _build(config: dict[str, Any]) -> tuple[TextToLoRA, CheckpointInfo]:
    if config["format"] != FORMAT or config["generator"] != "text-to-lora":
        raise ValueError(
            f"format {config['format']!r} of {config['generator']!r} is not known here"
        )
    if config["storage"] not in get_args(Storage):
        raise ValueError(f"storage {config['storage']!r} is not known here")
    layout = Layout.from_dict(config["layout"])
    if layout.digest != config["layout_digest"]:
        raise ValueError("its layout does not match its layout digest")
    module = TextToLoRA(TextToLoRAConfig(**config["architecture"]), layout)
    keys = ("base", "encoder", "tasks", "training")
    return module, CheckpointInfo(**{key: config[key] for key in keys})


def _load_strictly(folder: Path, module: nn.Module, state: dict[str, Tensor]) -> None:
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
