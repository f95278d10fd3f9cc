"""Where an index lies on the disk: generations of files, and one file that names the current one.

    current.json      the generation, digests of its manifest and FAISS file, the records' stamp
    000001/           its snapshot (index.segments.snapshot)
    000001.faiss      FAISS over the snapshot's vectors: a cache
    000001.log        what was added and removed since (index.segments.change_log)

Replacing current.json is what swaps generations. The one before stays for those who are reading it;
older ones, and what a killed process left unfinished, go at the next swap.
"""

import contextlib
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from index.segments.snapshot import AGAIN, FORMAT, IndexDamaged
from library.canonical import canonical_json
from library.errors import OutputError
from library.files import write_file

CURRENT = "current.json"


@dataclass(frozen=True)
class Current:
    """What current.json says."""

    generation: int
    manifest_sha256: str
    factory: str
    faiss_sha256: str
    records: str
    format: int = FORMAT


class IndexFolder:
    """The files of one index."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: set[tuple[str, int]] = set()

    def snapshot(self, generation: int) -> Path:
        return self.path / f"{generation:06}"

    def faiss(self, generation: int) -> Path:
        return self.path / f"{generation:06}.faiss"

    def log(self, generation: int) -> Path:
        return self.path / f"{generation:06}.log"

    def current(self) -> Current | None:
        """The current generation, or None if there is no index. Raises IndexDamaged."""
        file = self.path / CURRENT
        try:
            current = Current(**json.loads(file.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError) as error:
            raise IndexDamaged(f"{file} is damaged; {AGAIN}") from error
        if current.format != FORMAT:
            raise IndexDamaged(f"{file} is of another version; {AGAIN}")
        return current

    def publish(self, current: Current) -> None:
        """Swap: from now on whoever looks sees this generation. Raises OutputError."""
        write_file(self.path / CURRENT, canonical_json(asdict(current)))

    def write_faiss(self, generation: int, content: bytes) -> None:
        write_file(self.faiss(generation), content)

    def forget(self) -> None:
        """Let there be no index here; its files go when another is written. Raises OutputError."""
        with self.locked("build"), self.locked("write"):
            (self.path / CURRENT).unlink(missing_ok=True)

    def stamp(self) -> tuple[int, ...]:
        """What changes at every swap."""
        try:
            status = (self.path / CURRENT).stat()
        except (FileNotFoundError, NotADirectoryError):
            return ()
        return status.st_ino, status.st_mtime_ns, status.st_size

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock that one thread has at a time, of all processes; it goes with the process.

        Who holds it may take it again. Raises OutputError if the folder cannot be written.
        """
        mine = (name, threading.get_ident())
        if mine in self._held:
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._held.add(mine)
            yield
        finally:
            self._held.discard(mine)
            os.close(handle)

    def tidy(self) -> None:
        """Remove what a killed process left. Raises OutputError."""
        with self.locked("build"), self.locked("write"):
            current = self.current()
            self.clean(set() if current is None else {current.generation - 1, current.generation})

    def last_generation(self) -> int:
        """The highest number in use, whether or not it was ever current."""
        stems = (name.split(".")[0] for name in os.listdir(self.path))
        return max((int(stem) for stem in stems if stem.isdecimal()), default=0)

    def clean(self, keep: Collection[int]) -> None:
        """Remove other generations, and what was never finished."""
        for path in list(self.path.iterdir()):
            stem = path.name.split(".")[0]
            if path.name.startswith(".") or (stem.isdecimal() and int(stem) not in keep):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
