"""The files of stored adapters on disk, a folder for each id, written as one step."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from library.canonical import digest
from library.files import write_folder


class AdapterFolders:
    """Folders of adapters, by their ids. Files removed or changed by hand count as absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, identity: str, name: str = "") -> Path:
        """An adapter's folder or one file in it, whether or not it exists."""
        return self._folder / identity / name

    def content(self, identity: str, name: str, sha256: str) -> bytes | None:
        """What a file holds; None unless that has this SHA-256."""
        try:
            content = self.path(identity, name).read_bytes()
        except OSError:
            return None
        return content if digest(content) == sha256 else None

    def intact(self, record: Mapping[str, Any]) -> bool:
        """True if every file that a record names is as it was stored."""
        return all(
            self.content(record["id"], name, file["sha256"]) is not None
            for name, file in record["files"].items()
        )

    def write(self, identity: str, files: Mapping[str, bytes]) -> None:
        """Write an adapter's folder, in place of one that is there. Raises OutputError."""
        write_folder(self.path(identity), files, overwrite=True)

    def remove(self, identity: str) -> None:
        """Remove an adapter's folder, as far as it can be."""
        shutil.rmtree(self.path(identity), ignore_errors=True)

    def clear_begun(self) -> None:
        """Remove what a killed process had begun to write; to be called while nobody writes."""
        for begun in self._folder.glob(".ad_*"):
            shutil.rmtree(begun, ignore_errors=True)


def file_entries(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Files as records have them: the SHA-256 and the size in bytes of each, by name."""
    return {name: {"sha256": digest(data), "bytes": len(data)} for name, data in files.items()}
