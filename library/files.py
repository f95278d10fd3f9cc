"""Writing that is whole or absent: build beside the target, then rename.

A killed process leaves at most a hidden temporary folder, never half an output.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from library.errors import OutputError, OutputExists


def cache_dir() -> Path:
    """`$LORASMITH_CACHE`, by default `~/.cache/lorasmith`: converted models and embeddings."""
    return Path(os.environ.get("LORASMITH_CACHE") or Path.home() / ".cache" / "lorasmith")


def data_dir() -> Path:
    """`$LORASMITH_DATA`, by default `~/.local/share/lorasmith`: the adapters that were made."""
    return Path(os.environ.get("LORASMITH_DATA") or Path.home() / ".local" / "share" / "lorasmith")


def require_absent(path: Path, overwrite: bool) -> None:
    """Raise OutputExists if something is at `path` and may not be replaced."""
    if os.path.lexists(path) and not overwrite:
        raise OutputExists(f"{path} already exists; use --overwrite to replace it")


def write_folder(target: Path, files: Mapping[str, bytes], *, overwrite: bool = False) -> None:
    """Create folder `target` holding `files`, as one step.

    Raises:
        OutputExists: `target` exists and `overwrite` is false.
        OutputError: it cannot be written; nothing is left behind.
    """
    require_absent(target, overwrite)
    if target.exists() and not target.is_dir():
        raise OutputExists(f"{target} is not a folder")
    staging: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        staging.chmod(0o755)
        for name, content in files.items():
            _write_synced(staging / name, content)
        _rename(staging, target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def write_file(target: Path, content: bytes) -> None:
    """Replace file `target` as one step.

    Raises:
        OutputExists: there is a folder or a device.
        OutputError: it cannot be written.
    """
    if target.exists() and not target.is_file():
        raise OutputExists(f"{target} is not a file")
    staging = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_synced(staging, content)
        staging.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            staging.unlink()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _rename(staging: Path, target: Path) -> None:
    """Put `staging` at `target`; an old folder there is moved aside first and then deleted."""
    if not target.exists():
        staging.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(aside / "old")
    try:
        staging.rename(target)
    except OSError:
        (aside / "old").rename(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
