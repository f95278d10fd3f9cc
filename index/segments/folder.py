"""An index's files: generations, and one file that names the current one.

    current.json      the generation, digests of its manifest and FAISS file, the records' stamp
    000001/           its snapshot (index.segments.snapshot)
    000001.faiss      FAISS over the snapshot's vectors: a cache
    000001.log        what was added and removed since (index.segments.change_log)

Replacing current.json swaps generations. The one before stays for those who are reading it; older
ones, and what a killed process left unfinished, are removed at the next swap.
"""

import json
import os
import shutil
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from index.segments.snapshot import INDEX_FORMAT, REBUILD, IndexDamaged
from library.canonical import canonical_json
from library.files import output_errors, write_file

CURRENT = "current.json"
POLL_SECONDS = 0.01  # between two tries for a lock that another holds


@dataclass(frozen=True)
class Generation:
    """The current generation: the content of current.json."""

    generation: int
    manifest_sha256: str
    factory: str
    faiss_sha256: str
    records: str
    format: int = INDEX_FORMAT


class IndexFolder:
    """The files of one index."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locks = {name: FileLock(path / f"{name}.lock") for name in ("build", "write")}

    def snapshot(self, generation: int) -> Path:
        return self.path / f"{generation:06}"

    def faiss(self, generation: int) -> Path:
        return self.path / f"{generation:06}.faiss"

    def log(self, generation: int) -> Path:
        return self.path / f"{generation:06}.log"

    def current(self) -> Generation | None:
        """The current generation, or None if there is no index. Raises IndexDamaged."""
        file = self.path / CURRENT
        try:
            current = Generation(**json.loads(file.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError) as error:
            raise IndexDamaged(f"{file} is damaged; {REBUILD}") from error
        if current.format != INDEX_FORMAT:
            raise IndexDamaged(f"{file} is of another version; {REBUILD}")
        return current

    def publish(self, current: Generation) -> None:
        """Swap: from now on every reader sees this generation. Raises OutputError."""
        write_file(self.path / CURRENT, canonical_json(asdict(current)))

    def invalidate(self) -> None:
        """Invalidate the index; the next one that is written replaces its files.

        Raises OutputError.
        """
        with self.locked("build"), self.locked("write"):
            (self.path / CURRENT).unlink(missing_ok=True)

    def version(self) -> tuple[int, ...]:
        """A value that differs after every swap."""
        try:
            status = (self.path / CURRENT).stat()
        except (FileNotFoundError, NotADirectoryError):
            return ()
        return status.st_ino, status.st_mtime_ns, status.st_size

    def locked(self, name: Literal["build", "write"]) -> AbstractContextManager[Any]:
        """Hold a lock that one thread of all processes has at a time, and may take again.

        It ends with its process, however that ends. Their order: index.segments.index.

        Raises OutputError if the folder cannot be written.
        """
        with output_errors(self.path):
            return self._locks[name].acquire(poll_interval=POLL_SECONDS)

    def remove_unfinished(self) -> None:
        """Remove what a killed process left. Raises OutputError."""
        with self.locked("build"), self.locked("write"):
            current = self.current()
            self.clean(set() if current is None else {current.generation - 1, current.generation})

    def last_generation(self) -> int:
        """The highest number in use, whether or not it was ever current."""
        stems = (name.split(".")[0] for name in os.listdir(self.path))
        return max((int(stem) for stem in stems if stem.isdecimal()), default=0)

    def clean(self, keep: Collection[int]) -> None:
        """Remove other generations, and what was never finished; needs both locks."""
        for path in list(self.path.iterdir()):
            stem = path.name.split(".")[0]
            if path.name.startswith(".") or (stem.isdecimal() and int(stem) not in keep):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
