"""safetensors files as they come from outside: read with every check, before anything is stored."""

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from library.canonical import digest
from library.errors import AdapterFileError

DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}


@dataclass(frozen=True)
class TensorFile:
    """The content of a safetensors file.

    Attributes:
        name: the file's name.
        sha256: of its bytes.
        tensors: sorted by name.
        metadata: the header's, or None if it has none.
    """

    name: str
    sha256: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str] | None


def read_tensors(path: Path) -> TensorFile:
    """Read a safetensors file whole.

    Raises AdapterFileError: a pickle or another format, truncated, a name twice in the header, a
    dtype that is no factor's, NaN or infinity.
    """
    try:
        content = path.read_bytes()
        if content[8:9] != b"{":  # a pickle or a zip, as torch.save writes them, among others
            raise AdapterFileError(f"{path} is not a safetensors file: safetensors only")
        tensors = load(content)
    except (OSError, SafetensorError) as error:
        raise AdapterFileError(f"{path} cannot be read: {error}") from error
    header = _header(path, content)
    for name, entry in header.items():
        if name != "__metadata__" and entry.get("dtype") not in DTYPES:
            raise AdapterFileError(f"{path}: {name} has dtype {entry.get('dtype')}, no factor's")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise AdapterFileError(f"{path}: {name} holds NaN or infinity")
    ordered = dict(sorted(tensors.items()))  # safetensors gives them in another order each time
    return TensorFile(path.name, digest(content), ordered, header.get("__metadata__"))


def tensors_digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over every tensor's name, dtype, shape and bytes; their order does not matter."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _header(path: Path, content: bytes) -> dict[str, Any]:
    """The JSON of a header that safetensors has read (its length is the first eight bytes)."""
    (length,) = struct.unpack("<Q", content[:8])
    try:
        return json.loads(content[8 : 8 + length], object_pairs_hook=unique_keys)
    except ValueError as error:
        raise AdapterFileError(f"{path} has a damaged header: {error}") from error


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An `object_pairs_hook` for json. Raises ValueError for a key that is there twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key} is there twice")
        found[key] = value
    return found
