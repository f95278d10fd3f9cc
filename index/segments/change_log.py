"""The change log: what was added and removed since a snapshot, in memory and on the disk.

A line of the log is one change: a digest of the rest of the line, then JSON. A process that dies
while it writes leaves a last line whose digest is wrong; that change never happened. The next
writer cuts it off.
"""

import base64
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from index.segments.metadata import IndexEntry
from index.segments.segment import Vectors
from index.segments.snapshot import REBUILD, IndexDamaged
from library.canonical import digest
from library.files import output_errors

_DIGEST = 16  # hex digits of a line's digest


@dataclass(frozen=True)
class Change:
    """Adapters to add, or to replace by id, with their vectors; ids to remove.

    Attributes:
        records: stamp of the library's records that the index answers for from now on.
    """

    added: tuple[IndexEntry, ...] = ()
    vectors: Vectors = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    removed: tuple[str, ...] = ()
    records: str = ""

    def to_line(self) -> bytes:
        data = {
            "added": [entry.to_dict() for entry in self.added],
            "vectors": base64.b64encode(self.vectors.astype("<f4").tobytes()).decode(),
            "removed": list(self.removed),
            "records": self.records,
        }
        content = json.dumps(data, sort_keys=True).encode()
        return digest(content)[:_DIGEST].encode() + b" " + content + b"\n"

    @classmethod
    def from_content(cls, content: bytes, dimension: int) -> "Change":
        data = json.loads(content)
        rows = np.frombuffer(base64.b64decode(data["vectors"]), dtype="<f4").astype(np.float32)
        entries = tuple(IndexEntry.from_dict(entry) for entry in data["added"])
        vectors = rows.reshape(-1, dimension)  # (rows, d)
        return cls(entries, vectors, tuple(data["removed"]), str(data["records"]))


def append_changes(log: Path, changes: Iterable[Change], offset: int) -> int:
    """Write changes behind the first `offset` bytes, which are whole lines; return the new length.

    Raises OutputError.
    """
    content = b"".join(change.to_line() for change in changes)
    with output_errors(log), log.open("r+b" if log.exists() else "x+b") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return offset + len(content)


def read_changes(log: Path, dimension: int, start: int = 0) -> Iterator[tuple[Change, int]]:
    """The changes behind the first `start` bytes, each with the offset of its line's end.

    Raises IndexDamaged for a wrong line that is not the last.
    """
    try:
        with log.open("rb") as file:
            file.seek(start)
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return
    for number, line in enumerate(lines):
        content = line[_DIGEST + 1 : -1]
        if not line.endswith(b"\n") or digest(content)[:_DIGEST].encode() != line[:_DIGEST]:
            if number < len(lines) - 1:
                raise IndexDamaged(f"{log} is damaged; {REBUILD}")
            return
        start += len(line)
        yield Change.from_content(content, dimension), start
