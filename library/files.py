"""Reading inputs and writing outputs.

An output is whole or absent: it is built beside the target, then renamed. A killed process leaves
at most a hidden temporary folder, never half an output.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from library.errors import MissingPath, OutputError, OutputExists

STANDARD_INPUT = Path("-")
PIECE = 2**20  # bytes that are read at once


def cache_dir() -> Path:
    """`$LORASMITH_CACHE`, by default `~/.cache/lorasmith`: converted models and embeddings."""
    return Path(os.environ.get("LORASMITH_CACHE") or Path.home() / ".cache" / "lorasmith")


def data_dir() -> Path:
    """`$LORASMITH_DATA`, by default `~/.local/share/lorasmith`: generated adapters."""
    return Path(os.environ.get("LORASMITH_DATA") or Path.home() / ".local" / "share" / "lorasmith")


def require_present(*paths: Path | None) -> None:
    """Raise MissingPath unless something is at each path; `-` is standard input."""
    for path in paths:
        if path not in (None, STANDARD_INPUT) and not os.path.lexists(path):
            raise MissingPath(f"there is nothing at {path}")


def read_input(path: Path) -> bytes:
    """The content of a file, of a pipe such as /dev/fd/63, or of standard input for `-`.

    Raises MissingPath: nothing or a folder is there; OSError: it cannot be read.
    """
    if path == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    if not os.path.exists(path) or os.path.isdir(path):  # also of a name that is too long
        raise MissingPath(f"there is no file at {path}")
    return path.read_bytes()


def file_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """The content of an open file from its beginning, a piece at a time."""
    file.seek(0)
    while piece := file.read(PIECE):
        yield piece


def require_absent(path: Path, overwrite: bool) -> None:
    """Raise OutputExists if something is at `path` and may not be replaced."""
    if os.path.lexists(path) and not overwrite:
        raise OutputExists(f"{path} already exists; use --overwrite to replace it")


def require_kind(path: Path, *, folder: bool) -> None:
    """Raise OutputExists if a thing of another kind, such as a device, is at `path`."""
    if path.exists() and not (path.is_dir() if folder else path.is_file()):
        raise OutputExists(f"{path} is not a {'folder' if folder else 'file'}")


@contextlib.contextmanager
def output_errors(target: Path) -> Iterator[None]:
    """Turn an OSError inside the `with` block into the OutputError of `target`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


@contextlib.contextmanager
def whole_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to fill in the `with` block, which then becomes `target` as one step.

    Raises:
        OutputExists: `target` exists and `overwrite` is false, or it is no folder.
        OutputError: it cannot be written; nothing is left behind.
    """
    require_absent(target, overwrite)
    require_kind(target, folder=True)
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=_hidden(target), dir=target.parent))
        try:
            staging.chmod(0o755)
            yield staging
            _rename(staging, target, overwrite)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def write_folder(target: Path, files: Mapping[str, bytes], *, overwrite: bool = False) -> None:
    """Create folder `target` holding `files` (by relative path); errors as of `whole_folder`."""
    with whole_folder(target, overwrite=overwrite) as staging:
        for name, content in files.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            write_synced(staging / name, content)


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write in the `with` block; the file there then replaces `target` as one step.

    Raises:
        OutputExists: there is a folder or a device.
        OutputError: it cannot be written; nothing is left behind.
    """
    require_kind(target, folder=False)
    staging = target.with_name(f"{_hidden(target)}{os.getpid()}.{threading.get_ident()}")
    try:
        with output_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield staging
            with staging.open("rb") as file:
                os.fsync(file.fileno())
            staging.replace(target)
    finally:
        with contextlib.suppress(OSError):
            staging.unlink()


def write_file(target: Path, content: bytes) -> None:
    """Replace file `target` as one step; errors as of `whole_file`."""
    with whole_file(target) as staging:
        staging.write_bytes(content)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk: a part of what `whole_folder` yields."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _hidden(target: Path) -> str:
    """The beginning of temporary names beside `target`; short, as names have at most 255 bytes."""
    return f".{target.name[:40]}."


def _rename(staging: Path, target: Path, overwrite: bool) -> None:
    """Put `staging` at `target`; an old folder there is moved aside first and then deleted.

    A link is replaced itself; what it points to stays.
    """
    if not overwrite or not os.path.lexists(target):
        staging.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=_hidden(target), dir=target.parent))
    try:
        target.rename(aside / "old")
        try:
            staging.rename(target)
        except BaseException:  # Ctrl-C included: the old folder goes back to its place
            (aside / "old").rename(target)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
