"""safetensors files from outside: their headers and tensors, read with every check.

safetensors itself accepts a name that is there twice (the last one counts) and any dtype; here the
first is refused, and the second is for the caller to judge. Nothing is allocated by a number that
the file claims: sizes are compared with the bytes that are there.
"""

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

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
MAX_MESSAGE = 400  # characters; names in a hostile file can be long
MAX_NUMBER = 2**48
MAX_HEADER = 8 * 2**20  # bytes; 60,000 tensors need about this much
ELEMENT_BYTES = {  # bytes of one element, of every dtype of whole bytes in the format's definition
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2,
    "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


class BadFile(AdapterFileError):
    """A file that cannot be used, with the reason code of the finding that says so."""

    def __init__(self, reason: str, message: str, **evidence: Any) -> None:
        super().__init__(as_utf8(message[:MAX_MESSAGE]))
        self.reason, self.evidence = reason, evidence


def as_utf8(text: str) -> str:
    """The text with a mark for each byte of a file's name that is no UTF-8."""
    return text.encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor: where its bytes lie, `start` and `end` counted from the file's beginning."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """Every tensor by name, in the order of their bytes, and the metadata."""

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]


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
    except OSError as error:
        raise AdapterFileError(f"{path} cannot be read: {error}") from error
    return tensors_in(content, path)


def tensors_in(content: bytes, path: Path) -> TensorFile:
    """The same of a file whose content is at hand; `path` names it."""
    try:
        if content[8:9] != b"{":  # a pickle or a zip, as torch.save writes them, among others
            raise AdapterFileError(f"{path} is not a safetensors file: safetensors only")
        tensors = load(content)
    except SafetensorError as error:
        raise AdapterFileError(f"{path} cannot be read: {error}") from error
    (length,) = struct.unpack("<Q", content[:8])
    header = parse_object(content[8 : 8 + length], f"{path} has a damaged header")
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
    sha256 = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha256.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        sha256.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()


def read_header(content: bytes) -> Header:
    """The header of a whole safetensors file.

    Raises BadFile with the reason: `not-safetensors`, `truncated`, `padded`, `header-too-large`,
    `header`, `duplicate-keys`, `offsets`.
    """
    if len(content) < 8:
        raise BadFile("truncated", f"the file ends after {len(content)} bytes")
    (length,) = struct.unpack("<Q", content[:8])
    if content[8:9] not in (b"{", b""):
        raise BadFile(
            "not-safetensors", "it does not begin as a safetensors file: safetensors only"
        )
    if length > MAX_HEADER:
        limit = f"more than the {MAX_HEADER} that are read"
        raise BadFile(
            "header-too-large", f"the header claims {length} bytes, {limit}", limit=MAX_HEADER
        )
    if 8 + length > len(content):
        raise BadFile("truncated", f"the header claims {length} bytes, the file ends before")
    raw = parse_object(content[8 : 8 + length], "the header")
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise BadFile("header", "the header's metadata are not strings")
    begin = 8 + length
    entries = {name: _entry(name, value, begin) for name, value in raw.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
    _require_whole(ordered, begin, len(content))
    return Header(ordered, metadata)


def parse_object(content: bytes, what: str, reason: str = "header") -> dict[str, Any]:
    """A JSON object whose keys are unique. Raises BadFile."""
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_unique_keys)
        if b"\\u" in content:  # half a surrogate pair, which no UTF-8 can hold
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise BadFile(reason, f"{what} is nested too deeply") from error
    except ValueError as error:
        twice = str(error).endswith("is there twice")
        raise BadFile("duplicate-keys" if twice else reason, f"{what}: {error}") from error
    if not isinstance(value, dict):
        raise BadFile(reason, f"{what} is not a JSON object")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"{key} is there twice")
        members[key] = value
    return members


def _entry(name: str, value: Any, begin: int) -> TensorEntry:
    fields = value if isinstance(value, dict) else {}
    dtype, shape, span = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if len(fields) != 3 or shape is None or span is None or not isinstance(dtype, str):
        raise BadFile("header", f"{name} lacks dtype, shape or offsets, or has more than these")
    if not _naturals(shape) or not _naturals(span) or len(span) != 2 or span[0] > span[1]:
        raise BadFile("header", f"{name} has a shape or offsets that are no natural numbers")
    if dtype not in ELEMENT_BYTES:
        raise BadFile("dtype", f"{name} has dtype {dtype}, which is no factor's")
    if len(shape) > 8 or math.prod(shape) * ELEMENT_BYTES[dtype] != span[1] - span[0]:
        raise BadFile("offsets", f"{name} says {shape} of {dtype}, its offsets {span}")
    return TensorEntry(dtype, tuple(shape), begin + span[0], begin + span[1])


def _naturals(value: Any) -> TypeGuard[list[int]]:
    if not isinstance(value, list) or not set(map(type, value)) <= {int}:
        return False
    return not value or (min(value) >= 0 and max(value) < MAX_NUMBER)


def _require_whole(entries: dict[str, TensorEntry], begin: int, size: int) -> None:
    """Raise BadFile unless the tensors cover the rest of the file without hole or overlap."""
    end = begin
    for name, entry in entries.items():
        if entry.start != end:
            raise BadFile("offsets", f"there is a hole or an overlap before {name}")
        end = entry.end
    if end > size:
        raise BadFile("truncated", f"{end - size} bytes are missing at the end")
    if end < size:
        raise BadFile("padded", f"{size - end} bytes follow the last tensor")
