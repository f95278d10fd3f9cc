"""The files of an adapter folder: their names, their limits, and the one reader of their bytes."""

import os
import stat
from collections.abc import Collection
from pathlib import Path

from library.errors import AdapterFileError, MissingPath
from library.peft.provenance import PROVENANCE_FILE
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")  # endings of files that can run code
MAX_WEIGHTS = 2 * 2**30  # bytes
MAX_JSON = 2**20


class UnreadableFile(AdapterFileError):
    """A file of an adapter that is no regular file, too large, or cannot be read.

    Attributes:
        reason: "unreadable" or "too-large".
        fault: the message without the file's path.
        limit: bytes, where it is too large.
    """

    def __init__(self, path: Path, fault: str, limit: int | None = None) -> None:
        super().__init__(f"{path} {fault}")
        self.reason = "unreadable" if limit is None else "too-large"
        self.fault, self.limit = fault, limit


def read_adapter_folder(
    path: Path, *, optional: Collection[str] = (PROVENANCE_FILE,)
) -> dict[str, bytes]:
    """The content of config and weights, and of those of the `optional` files that exist, by name.

    Args:
        path: the folder, or a safetensors file beside its config.
    Raises:
        MissingPath: nothing is there.
        AdapterFileError: config or weights are missing, or a file cannot be read within limits.
    """
    if not os.path.exists(path):  # also of a name that is too long for a path
        raise MissingPath(f"there is no adapter at {path}")
    folder = path if path.is_dir() else path.parent
    weights = path if path.suffix == ".safetensors" and not path.is_dir() else folder / WEIGHTS_FILE
    files = {}
    for name in (CONFIG_FILE, WEIGHTS_FILE, *optional):
        file = weights if name == WEIGHTS_FILE else folder / name
        if os.path.lexists(file):
            files[name] = read_adapter_file(file)
        elif name not in optional:
            raise AdapterFileError(f"{folder} holds no adapter: there is no {name}")
    return files


def read_adapter_file(path: Path, limit: int | None = None) -> bytes:
    """The content of a regular file; its size is compared with the limit before anything is read.

    Args:
        limit: in bytes; by default that of JSON or of weights, by the file's ending.
    Raises UnreadableFile.
    """
    limit = limit or (MAX_JSON if path.suffix == ".json" else MAX_WEIGHTS)
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableFile(path, "is not a regular file")
            if status.st_size > limit:
                raise UnreadableFile(path, f"has {status.st_size} bytes", limit)
            return file.read(limit)
    except OSError as error:
        raise UnreadableFile(path, f"cannot be read: {error.strerror or error}") from error


def _without_waiting(path: str, flags: int) -> int:
    """Open a pipe without waiting for a writer; a regular file as always."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
