"""The files of stored adapters on disk, a folder for each id, written as one step."""

import os
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from library.canonical import digest, file_digest
from library.files import whole_folder, write_synced
from library.peft.write import WEIGHTS_FILE

REMEMBERED = 64  # paths of files that others may have too


class AdapterFolders:
    """Folders of adapters, by their ids. Files removed or changed by hand count as absent.

    A file that an adapter written lately has too is a link to that one's, as files are replaced and
    never changed: the weights of multi-task are the same for every description.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written = OrderedDict[str, Path]()  # by SHA-256, the latest last

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

    def write(self, identity: str, files: Mapping[str, bytes], entries: Mapping[str, Any]) -> None:
        """Write an adapter's folder, in place of one that is there. Raises OutputError.

        Args:
            entries: of the files, as `file_entries` gives them.
        """
        with whole_folder(self.path(identity), overwrite=True) as staging:
            for name, content in files.items():
                sha256 = entries[name]["sha256"]
                known = self._written.get(sha256)
                if known is None or not _linked(known, staging / name, sha256):
                    write_synced(staging / name, content)
        for name in files:
            self._remember(entries[name]["sha256"], self.path(identity, name))

    def remove(self, identity: str) -> None:
        """Remove an adapter's folder, as far as it can be."""
        shutil.rmtree(self.path(identity), ignore_errors=True)

    def clear_begun(self) -> None:
        """Remove what a killed process had begun to write; to be called while nobody writes."""
        for begun in self._folder.glob(".ad_*"):
            shutil.rmtree(begun, ignore_errors=True)

    def _remember(self, sha256: str, path: Path) -> None:
        self._written[sha256] = path
        self._written.move_to_end(sha256)
        if len(self._written) > REMEMBERED:
            self._written.popitem(last=False)


def _linked(known: Path, path: Path, sha256: str) -> bool:
    """Whether `path` is a link to a known file now, which is as it was written."""
    try:
        os.link(known, path)
    except OSError:  # it is gone, or the file system has no links, or no more to one file
        return False
    if file_digest(path) == sha256:
        return True
    path.unlink()
    return False


def file_entries(files: Mapping[str, bytes], weights: str | None = None) -> dict[str, Any]:
    """Files as records have them: the SHA-256 and the size in bytes of each, by name.

    Args:
        weights: SHA-256 of the weights, where it is known, as megabytes take milliseconds.
    """
    known = {WEIGHTS_FILE: weights}
    return {
        name: {"sha256": known.get(name) or digest(data), "bytes": len(data)}
        for name, data in files.items()
    }
