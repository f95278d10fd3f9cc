"""Where a library lies: files behind fsspec, a local folder or an object store by URL.

A write is whole or absent. Locally that takes a hidden file and a rename; object stores promise it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from library.errors import OutputError
from library.files import write_file, write_folder

ADAPTERS, RECORDS, MANIFEST = "adapters", "records", "library.json"
PACKED = "adapters.safetensors"  # of a packed library


class LibraryFolder:
    """Files by relative path, under a local folder or a URL such as `s3://bucket/library`.

    Raises OutputError from every method where the store cannot be reached or written.
    """

    def __init__(self, place: str | Path) -> None:
        from fsspec.core import url_to_fs

        try:
            self._fs, self._root = url_to_fs(str(place))
        except (ImportError, ValueError) as error:
            raise OutputError(f"{place} cannot be opened: {error}") from error
        self.place = str(place)
        self._local = Path(self._root) if "file" in _protocols(self._fs) else None

    def write(self, name: str, content: bytes) -> None:
        """Create or replace one file."""
        if self._local is not None:
            write_file(self._local / name, content)
        else:
            self._try(lambda: self._fs.pipe_file(f"{self._root}/{name}", content))

    def write_adapter(self, identity: str, files: Mapping[str, bytes]) -> None:
        """Store an adapter's files under its id; what is there already stays as it is."""
        name = f"{ADAPTERS}/{identity}"
        if all(self.exists(f"{name}/{file}") for file in files):
            return
        if self._local is not None:
            write_folder(self._local / name, files, overwrite=True)
        else:
            for file, content in files.items():
                self.write(f"{name}/{file}", content)

    def read(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError if it is not there."""
        return self._try(lambda: self._fs.cat_file(f"{self._root}/{name}"))

    def exists(self, name: str) -> bool:
        return self._try(lambda: self._fs.exists(f"{self._root}/{name}"))

    def names(self, folder: str) -> list[str]:
        """What lies directly in a folder, sorted; hidden names are work in progress."""
        self._fs.invalidate_cache()
        try:
            found = self._try(lambda: self._fs.ls(f"{self._root}/{folder}", detail=False))
        except FileNotFoundError:
            return []
        return sorted(n for n in (str(p).rsplit("/", 1)[-1] for p in found) if n[:1] != ".")

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all in it; nothing happens if it is not there."""
        if self.exists(name):
            self._try(lambda: self._fs.rm(f"{self._root}/{name}", recursive=True))

    def write_json(self, name: str, value: Any) -> None:
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        self.write(name, text.encode())

    def read_json(self, name: str) -> Any:
        """Raises OutputError if the file is not JSON."""
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise OutputError(f"{self.place}/{name} is damaged: {error}") from error

    def _try(self, action: Any) -> Any:
        try:
            return action()
        except FileNotFoundError:
            raise
        except Exception as error:  # each store has errors of its own
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"{self.place} cannot be used: {reason}") from error


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
