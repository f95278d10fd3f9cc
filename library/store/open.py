"""Opening a library for reading or writing, packed or not."""

from pathlib import Path

from library.errors import MissingPath, UsageError
from library.store.folder import MANIFEST, PACKED, LibraryFolder
from library.store.packed import unpacked


def open_library(location: str, *, write: bool = False) -> LibraryFolder:
    """The library at a folder or URL; a packed one opens as its unpacked copy.

    Raises:
        MissingPath: there is none.
        UsageError: it is packed, and `write` is meant.
    """
    folder = LibraryFolder(location)
    if not folder.exists(MANIFEST):
        raise MissingPath(f"there is no library at {location}")
    if write:
        require_unpacked(folder)
    return LibraryFolder(unpacked(Path(location))) if folder.exists(PACKED) else folder


def require_unpacked(folder: LibraryFolder) -> None:
    """Raise UsageError for a packed library, which cannot be changed."""
    if folder.exists(PACKED):
        raise UsageError(f"the library {folder.location} is packed and cannot be changed")
