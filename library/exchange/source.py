"""Adapters to import: PEFT folders, image models' LoRA files, and either from the Hub."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from library.errors import AdapterFileError, BaseModelError, MissingPath, first_line
from library.exchange.image_lora import kind_of, read_image_lora
from library.peft.config import parse_config, require_plain
from library.peft.folder import PICKLES, read_adapter_file
from library.peft.keys import unwrapped, wrapper_in
from library.peft.safetensors_file import TensorFile, read_tensors
from library.peft.write import CONFIG_FILE, PREFIX, WEIGHTS_FILE

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Source:
    """An adapter as it came, its tensors and config in PEFT's form.

    Attributes:
        format: "peft", "diffusers", "kohya", "xlabs", or the PEFT type that it was converted from.
        config: the content of adapter_config.json, and
        config_bytes: the file itself, if there is one.
        tensors: by PEFT's names, dtypes and shapes as they came.
        note: what provenance says of the original, and what giving it back takes.
    """

    format: str
    config: dict[str, Any]
    config_bytes: bytes | None
    tensors: dict[str, Tensor]
    note: dict[str, Any]


def find_source(source: str) -> Path:
    """A folder or file on this machine; a Hub id is downloaded, safetensors and config only.

    Raises:
        MissingPath: neither a path nor of the form of a Hub id.
        AdapterFileError: the Hub does not give it.
    """
    if Path(source).exists():
        return Path(source)
    if not _HUB_ID.fullmatch(source):
        raise MissingPath(f"there is no adapter at {source}")
    from huggingface_hub import snapshot_download

    try:
        # Files of whole models and of subfolders are not an adapter's.
        folder = snapshot_download(
            source,
            allow_patterns=[CONFIG_FILE, "*.safetensors"],
            ignore_patterns=["*/*", "model*.safetensors"],
        )
    except (OSError, ValueError) as error:  # all of huggingface_hub's are one of these
        reason = first_line(error).rstrip(".")
        raise AdapterFileError(f"{source} cannot be downloaded: {reason}") from error
    return Path(folder)


def is_plain(config: dict[str, Any]) -> bool:
    """True for a config of plain LoRA; DoRA and other types have to be converted."""
    return config.get("peft_type") == "LORA" and not config.get("use_dora")


def read_source(path: Path, base_name: str | None) -> Source:
    """Read a plain LoRA of any of the three formats.

    Args:
        path: a folder or a file.
        base_name: of the base model, where the file does not say it.
    Raises:
        AdapterFileError: damaged, not a plain LoRA, or not of a format that is known.
        BaseModelError: nobody says what base model it is for.
    """
    if (path / CONFIG_FILE).is_file():
        return _peft(path)
    file = read_tensors(_weights(path))
    if any(key.startswith(PREFIX) for key in file.tensors):
        raise AdapterFileError(f"{path} is of a PEFT adapter, which needs its {CONFIG_FILE}")
    if base_name is None:
        raise BaseModelError(f"{path} does not name its base model; use --base")
    config, tensors, note = read_image_lora(file, base_name)
    return Source(kind_of(file.tensors), config, None, tensors, _named(file) | note)


def peft_weights(folder: Path) -> TensorFile:
    """The weights of a PEFT folder. Raises AdapterFileError, for pickles too."""
    if not (folder / WEIGHTS_FILE).is_file():
        _refuse_pickles(folder, WEIGHTS_FILE)
    return read_tensors(folder / WEIGHTS_FILE)


def _peft(folder: Path) -> Source:
    content = read_adapter_file(folder / CONFIG_FILE)
    require_plain(folder / CONFIG_FILE, parse_config(folder / CONFIG_FILE, content))
    return peft_source(content, peft_weights(folder), folder)


def peft_source(content: bytes, file: TensorFile, folder: Path = Path()) -> Source:
    """A plain LoRA in PEFT's form from the content of its config, and its weights.

    Args:
        folder: for messages.
    Raises AdapterFileError.
    """
    config = parse_config(folder / CONFIG_FILE, content)
    require_plain(folder / CONFIG_FILE, config)
    note: dict[str, Any] = _named(file) | {"metadata": file.metadata}
    wrapper = wrapper_in(file.tensors)
    if wrapper is None:
        return Source("peft", config, content, file.tensors, note)
    tensors, plain = unwrapped(file.tensors, config)
    return Source(
        "peft", plain, content if plain == config else None, tensors, note | {"wrapper": wrapper}
    )


def _named(file: TensorFile) -> dict[str, Any]:
    return {"file": file.name, "sha256": file.sha256}


def _weights(path: Path) -> Path:
    if path.is_file():
        if path.suffix in PICKLES:
            raise AdapterFileError(f"{path} is a pickle: safetensors only")
        return path
    files = sorted(path.glob("*.safetensors"))
    files = [file for file in files if file.name == DIFFUSERS_FILE] or files
    if not files:
        _refuse_pickles(path, "safetensors file")
    if len(files) > 1:
        raise AdapterFileError(f"{path} holds {len(files)} safetensors files; name one of them")
    return files[0]


def _refuse_pickles(folder: Path, missing: str) -> NoReturn:
    pickle = next((f.name for f in sorted(folder.iterdir()) if f.suffix in PICKLES), None)
    reason = f": {pickle} is a pickle, and safetensors only are read" if pickle else ""
    raise AdapterFileError(f"{folder} holds no {missing}{reason}")
