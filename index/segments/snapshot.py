"""A snapshot: an index as it was at one moment, in files that never change.

`vectors.safetensors` (rows, in float32), `entries.jsonl` (one adapter a line) and `manifest.json`,
with the digests of both and the identity of the encoder.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from index.encoders.descriptions import EncoderIdentity
from index.segments.metadata import IndexEntry
from index.segments.segment import Vectors
from library.canonical import canonical_json, digest, file_digest
from library.errors import LorasmithError
from library.files import write_folder

INDEX_FORMAT = 1
VECTORS, ENTRIES, MANIFEST = "vectors.safetensors", "entries.jsonl", "manifest.json"
METRIC = "inner product"
REBUILD = "rebuild it with `lorasmith index build`"


class IndexDamaged(LorasmithError):
    """An index whose files are missing, damaged or of a newer version; it can be rebuilt."""

    code = "index-unreadable"


class EncoderMismatch(LorasmithError):
    """An index made with another encoder: its vectors mean something else."""

    code = "encoder-mismatch"
    status = 409


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that was read; its vectors stay on the disk until they are used."""

    encoder: EncoderIdentity
    entries: tuple[IndexEntry, ...]
    vectors: Vectors


def write_snapshot(
    folder: Path, encoder: EncoderIdentity, entries: Sequence[IndexEntry], vectors: Vectors
) -> str:
    """Write a snapshot as one step; return its manifest's digest. Raises OutputError."""
    lines = "".join(
        json.dumps(entry.to_dict(), sort_keys=True, ensure_ascii=False) + "\n" for entry in entries
    )
    files = {
        VECTORS: save({"vectors": np.ascontiguousarray(vectors)}, metadata={"format": "pt"}),
        ENTRIES: lines.encode(),
    }
    manifest = {
        "format": INDEX_FORMAT,
        "metric": METRIC,
        "encoder": encoder.to_dict(),
        "adapters": len(entries),
        "rows": len(vectors),
        "files": {name: digest(content) for name, content in files.items()},
    }
    content = canonical_json(manifest)
    write_folder(folder, {**files, MANIFEST: content})
    return digest(content)


def read_snapshot(folder: Path, sha256: str) -> Snapshot:
    """Read a snapshot whose manifest has this digest, and its files those in the manifest.

    Raises IndexDamaged, FileNotFoundError.
    """
    try:
        manifest = _manifest(folder, sha256)
        for name in (VECTORS, ENTRIES):
            if file_digest(folder / name) != manifest["files"][name]:
                raise IndexDamaged(f"{folder / name} is damaged; {REBUILD}")
        lines = (folder / ENTRIES).read_text(encoding="utf-8").splitlines()
        entries = tuple(IndexEntry.from_dict(json.loads(line)) for line in lines)
        vectors = _mapped(folder / VECTORS)
        encoder = EncoderIdentity.from_dict(manifest["encoder"])
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise IndexDamaged(f"{folder} is damaged ({error!r}); {REBUILD}") from error
    if len(vectors) != sum(entry.rows for entry in entries):
        raise IndexDamaged(f"{folder} lacks vectors; {REBUILD}")
    return Snapshot(encoder, entries, vectors)


def _manifest(folder: Path, sha256: str) -> dict[str, Any]:
    content = (folder / MANIFEST).read_bytes()
    if digest(content) != sha256:
        raise IndexDamaged(f"{folder / MANIFEST} is damaged; {REBUILD}")
    manifest = json.loads(content)
    if manifest["format"] > INDEX_FORMAT:
        raise IndexDamaged(f"{folder} is of a newer version; {REBUILD}")
    return manifest


def _mapped(file: Path) -> Vectors:
    """The vectors `(rows, d)` as a memory map of the file."""
    with safe_open(file, framework="np") as tensors:
        rows, width = tensors.get_slice("vectors").get_shape()
    start = file.stat().st_size - 4 * rows * width  # the file ends with its only tensor
    if rows == 0:
        return np.zeros((0, width), dtype=np.float32)
    return np.memmap(file, dtype=np.float32, mode="r", offset=start, shape=(rows, width))
