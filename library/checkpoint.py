"""Checkpoints: a trained network as a folder of config.json and model.safetensors, read strictly.

One format serves generators, the weight encoder, the merge predictor and the router: `kind` names
the class, `architecture` its configuration, `layout` the modules that it is for. Matrices may be
stored as int8 rows with a float32 scale per row, or per channel of a convolution;
what is loaded is then exactly scale x integer, so a card's scores are those of the stored file. No
pickle, no unknown tensors, no missing ones.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from library.canonical import digest
from library.errors import CheckpointError, LorasmithError, MissingPath, first_line
from library.files import write_folder
from library.int8 import dequantise, quantise
from library.layout import Layout

CHECKPOINT_CONFIG = "config.json"
CHECKPOINT_WEIGHTS = "model.safetensors"
CHECKPOINT_FORMAT = 2
SCALE = ".row_scale"
MIN_QUANTISED = 4096  # smaller matrices are kept in float32
MIN_ROW = 16  # shorter rows, such as a kernel's, share a scale with their neighbours

Storage = Literal["float32", "int8"]


class Checkpointed(nn.Module):
    """A network that a checkpoint can hold; subclasses with a `kind` register under it.

    Class attributes:
        kind: its name in checkpoints.
        Config: dataclass of its architecture; its constructor refuses what makes no sense.
        for_layout: whether it is made for the modules of one layout.

    Args:
        config: an instance of `Config`.
        layout: modules of the base model that it is for; None if it serves any.
    """

    registry: ClassVar[dict[str, type["Checkpointed"]]] = {}
    kind: ClassVar[str]
    Config: ClassVar[type[Any]]
    for_layout: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "kind" in cls.__dict__:
            other = Checkpointed.registry.setdefault(cls.kind, cls)
            if other.__qualname__ != cls.__qualname__ or other.__module__ != cls.__module__:
                raise TypeError(f"two classes are of kind {cls.kind!r}: {other} and {cls}")
            Checkpointed.registry[cls.kind] = cls

    def __init__(self, config: Any, layout: Layout | None) -> None:
        super().__init__()
        self.config, self.layout = config, layout


Module = TypeVar("Module", bound=Checkpointed)


@dataclass(frozen=True)
class CheckpointInfo:
    """The record of a network's training, and what it is for.

    Attributes:
        base: {"id", "sha256", "source"} of the base model; empty if it serves any.
        encoder: name of the description encoder; empty if it reads no text.
        tasks: names of the training tasks; any other task counts as held out.
        training: objective and settings, for the record.
        onto: SHA-256 of the weights' file of an adapter that a generator's adapters are added to;
            empty for none.
    """

    base: dict[str, Any] = field(default_factory=dict)
    encoder: str = ""
    tasks: list[str] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    onto: str = ""


@dataclass(frozen=True)
class Checkpoint(Generic[Module]):
    """A loaded network in float32 and eval mode, its record, and the digest of both files."""

    module: Module
    info: CheckpointInfo
    digest: str

    @property
    def kind(self) -> str:
        return self.module.kind


def save_checkpoint(
    folder: Path,
    module: Checkpointed,
    info: CheckpointInfo,
    *,
    storage: Storage = "float32",
    overwrite: bool = False,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Write a checkpoint folder, whole or not at all. Raises OutputError, OutputExists.

    Args:
        folder: where it goes.
        module: the network.
        info: its record.
        storage: of its matrices.
        overwrite: whether it may take the place of another.
        beside: further files of the folder, by relative path.
    """
    layout = module.layout
    config = {
        "format": CHECKPOINT_FORMAT,
        "kind": module.kind,
        "architecture": asdict(module.config),
        "layout": None if layout is None else layout.to_dict(),
        "layout_digest": None if layout is None else layout.digest,
        "storage": storage,
        **asdict(info),
    }
    state = {key: value.detach().cpu().float() for key, value in module.state_dict().items()}
    if storage == "int8":
        state = _quantise(state)
    state = {key: value.contiguous() for key, value in sorted(state.items())}
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    files = {
        **(beside or {}),
        CHECKPOINT_CONFIG: text.encode(),
        CHECKPOINT_WEIGHTS: save(state, metadata={"format": "pt"}),
    }
    write_folder(folder, files, overwrite=overwrite)


def load_checkpoint(folder: Path, expected: type[Module]) -> Checkpoint[Module]:
    """Read a checkpoint folder of `expected` or of a subclass of it.

    Raises:
        MissingPath: no such folder.
        CheckpointError: damaged, of another kind or program, or incomplete.
    """
    if not folder.is_dir():
        raise MissingPath(f"there is no checkpoint folder at {folder}")
    # 1. Parse both files; whatever this raises means that they are damaged or foreign.
    try:
        config_bytes = (folder / CHECKPOINT_CONFIG).read_bytes()
        weights_bytes = (folder / CHECKPOINT_WEIGHTS).read_bytes()
        config = json.loads(config_bytes)
        cls = _class_of(config, expected)
        architecture, layout = cls.Config(**config["architecture"]), _layout_of(cls, config)
        kept = {k: config[k] for k in ("base", "encoder", "tasks", "training")}
        info = CheckpointInfo(**kept, onto=config.get("onto", ""))
        state = _stored_state(config["storage"], load(weights_bytes))
    except (OSError, ValueError, SafetensorError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {folder} cannot be read: {first_line(error)}") from error
    except LorasmithError as error:
        raise CheckpointError(f"checkpoint {folder} cannot be read: {error}") from error
    # 2. Build the network; an error that is not about its sizes is a bug and shows as one.
    try:
        module = cls(architecture, layout)
    except LorasmithError as error:
        raise CheckpointError(f"checkpoint {folder} cannot be read: {error}") from error
    # 3. Tensors have to fit one to one.
    _load_strictly(folder, module, state)
    return Checkpoint(module.eval(), info, digest(config_bytes + weights_bytes))


def _class_of(config: Mapping[str, Any], expected: type[Module]) -> type[Module]:
    """The registered class of a config's kind. Raises ValueError unless it is an `expected`."""
    if config["format"] != CHECKPOINT_FORMAT:
        raise ValueError(f"format {config['format']!r} is not known here")
    cls = Checkpointed.registry.get(config["kind"])
    if cls is None or not issubclass(cls, expected):
        kinds = ", ".join(k for k, c in Checkpointed.registry.items() if issubclass(c, expected))
        raise ValueError(f"it is of kind {config['kind']!r}, not of {kinds}")
    return cls


def _layout_of(cls: type[Checkpointed], config: Mapping[str, Any]) -> Layout | None:
    """The layout of a config, if the class has one. Raises ValueError if its digest is another."""
    if not cls.for_layout:
        return None
    layout = Layout.from_dict(config["layout"])
    if layout.digest != config["layout_digest"]:
        raise ValueError("its layout does not match its layout digest")
    return layout


def _stored_state(storage: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by name, int8 rows multiplied out. Raises ValueError."""
    if storage not in get_args(Storage):
        raise ValueError(f"storage {storage!r} is not known here")
    return _dequantise(state) if storage == "int8" else state


def _load_strictly(folder: Path, module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a module its tensors. Raises CheckpointError unless they fit it one to one."""
    expected = module.state_dict()
    if set(state) != set(expected):
        key = sorted(set(state) ^ set(expected))[0]
        side = "lacks" if key in expected else "has a strange"
        raise CheckpointError(f"checkpoint {folder} {side} tensor {key}")
    for key, value in state.items():
        if value.shape != expected[key].shape or value.dtype != torch.float32:
            raise CheckpointError(
                f"checkpoint {folder}: {key} is {value.dtype} {list(value.shape)}, "
                f"not float32 {list(expected[key].shape)}"
            )
        if not torch.isfinite(value).all():
            raise CheckpointError(f"checkpoint {folder}: {key} is not finite")
    module.load_state_dict(state)


def _quantise(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices, stacks of them and kernels to int8 rows."""
    out = {}
    for key, value in state.items():
        if value.ndim < 2 or value.numel() < MIN_QUANTISED:
            out[key] = value
            continue
        lead = value.ndim - 1
        while lead > 1 and value.shape[lead:].numel() < MIN_ROW:
            lead -= 1
        rows, out[key + SCALE] = quantise(value.flatten(lead))  # (*lead, width), (*lead)
        out[key] = rows.view(value.shape)
    return out


def _dequantise(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows times their scales. Raises ValueError for a scale that belongs to no such matrix."""
    out = {key: value for key, value in state.items() if not key.endswith(SCALE)}
    for scale_key in state.keys() - out.keys():
        key = scale_key.removesuffix(SCALE)
        rows, scale = out.get(key), state[scale_key]
        lead = scale.ndim
        if rows is None or rows.dtype != torch.int8 or not 0 < lead < rows.ndim:
            raise ValueError(f"{scale_key} does not fit {key}")
        if scale.shape != rows.shape[:lead]:
            raise ValueError(f"{scale_key} does not fit {key}")
        out[key] = dequantise(rows.flatten(lead), scale).view(rows.shape)
    return out
