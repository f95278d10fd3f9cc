"""A folder of downloaded adapters, each in a folder named by its id, within a limit of bytes.

vLLM reads an adapter again from its path whenever it had to make room in memory. So a folder that
was handed out is never removed while a process lives that has handed it out: each process holds a
shared lock on it. Several servers may use one cache.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = ".lock"  # whoever looks at folders, or moves and removes them, holds it for that moment
_COMING = ".coming-"  # before the size, which keeps the room for it, and something unique


class CacheFull(Exception):
    """The adapter does not fit beside those that are in use."""


class Cache:
    """The folder, as one process sees it."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._held: dict[str, int] = {}  # open folders, by their names; closing one unlocks it

    def hold(self, adapter: str) -> Path | None:
        """An adapter's folder, which stays from now on; None if it is not here."""
        with self._alone():
            return self._hold(adapter)

    def release(self, adapter: str) -> None:
        """Let a folder go that is not handed out after all; again, if that was done meanwhile."""
        if (opened := self._held.pop(adapter, None)) is not None:
            os.close(opened)

    @contextmanager
    def coming(self, size: int) -> Iterator[Path]:
        """A place for an adapter of so many bytes that is being downloaded. Raises CacheFull."""
        name = f"{_COMING}{size}-{uuid.uuid4().hex}"
        with self._alone():
            self._make_room(size)
            (self._folder / name).mkdir()
            self._hold(name)
        try:
            yield self._folder / name / "adapter"
        finally:
            with self._alone():
                shutil.rmtree(self._folder / name)
                self.release(name)

    def take(self, adapter: str, downloaded: Path) -> Path:
        """Move a downloaded adapter to its own folder, which stays."""
        with self._alone():
            if (present := self._hold(adapter)) is not None:  # another process was quicker
                return present
            downloaded.rename(self._folder / adapter)
            held = self._hold(adapter)
            assert held is not None
            return held

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _hold(self, name: str) -> Path | None:
        path = self._folder / name
        if not path.is_dir():
            return None
        if name not in self._held:
            self._held[name] = os.open(path, os.O_RDONLY)
            fcntl.flock(self._held[name], fcntl.LOCK_SH)
        os.utime(path)
        return path

    def _make_room(self, size: int) -> None:
        """Remove folders that nobody holds, the longest unused first."""
        folders = sorted(
            (path for path in self._folder.iterdir() if path.is_dir()),
            key=lambda path: path.stat().st_mtime_ns,
        )
        total = size + sum(map(_bytes, folders))
        for path in folders:
            if total <= self._limit:
                return
            if _is_free(path):
                total -= _bytes(path)
                shutil.rmtree(path)
        if total > self._limit:
            message = f"{self._folder} may have {self._limit:,} bytes, and all are in use"
            raise CacheFull(message)


def _bytes(folder: Path) -> int:
    """The size of an adapter's files; of one that is coming, what it will have at most."""
    if folder.name.startswith(_COMING):
        return int(folder.name.removeprefix(_COMING).split("-")[0])
    return sum(file.stat().st_size for file in folder.iterdir())


def _is_free(folder: Path) -> bool:
    """Whether no process holds a folder."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(opened)
