"""A library's files behind fsspec: a local folder, or an object store by URL.

A write is whole or absent. Locally that takes a hidden file and a rename; object stores promise it.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.errors import OutputError, OutputExists
from library.files import write_file, write_folder

if TYPE_CHECKING:
    from library.store.plan import Plan

ADAPTERS, RECORDS, MANIFEST = "adapters", "records", "library.json"
IMPORTED = "imported"  # the shard of records of what was imported
PACKED = "adapters.safetensors"  # of a packed library


class LibraryFolder:
    """Files by relative path, under a local folder or a URL such as `s3://bucket/library`.

    Raises OutputError from every method where the store cannot be reached or written.
    """

    def __init__(self, location: str | Path) -> None:
        from fsspec.core import url_to_fs

        try:
            self._fs, self._root = url_to_fs(str(location))
        except (ImportError, ValueError) as error:
            raise OutputError(f"{location} cannot be opened: {error}") from error
        self.location = str(location)
        self.url = str(self._fs.unstrip_protocol(self._root))
        self.local = Path(self._root) if "file" in _protocols(self._fs) else None

    def write(self, name: str, content: bytes) -> None:
        """Create or replace one file."""
        if self.local is not None:
            write_file(self.local / name, content)
        else:
            self._try(lambda: self._fs.pipe_file(f"{self._root}/{name}", content))

    def write_adapter(self, identity: str, files: Mapping[str, bytes]) -> None:
        """Store an adapter's files under its id; a complete folder stays as it is."""
        name = f"{ADAPTERS}/{identity}"
        exists = self.exists(name)

        def complete() -> bool:
            return all(self.exists(f"{name}/{file}") for file in files)

        if exists and complete():
            return
        if self.local is None:
            for file, content in files.items():
                self.write(f"{name}/{file}", content)
            return
        try:  # a folder that exists has lost a file; one that appears now is another builder's
            write_folder(self.local / name, files, overwrite=exists)
        except (OutputError, OutputExists):
            if not complete():
                raise

    def read(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError if it is not there."""
        return self._try(lambda: self._fs.cat_file(f"{self._root}/{name}"))

    def exists(self, name: str) -> bool:
        return self._try(lambda: self._fs.exists(f"{self._root}/{name}"))

    def names(self, folder: str) -> list[str]:
        """Names directly in a folder, sorted, without hidden ones, which are work in progress."""
        return sorted(name for name in self.stamps(folder) if name[:1] != ".")

    def stamps(self, folder: str) -> dict[str, str]:
        """Names directly in a folder, hidden or not, with a stamp that changes on rewriting."""
        if self.local is not None:
            return self._try(partial(_local_stamps, self.local / folder))
        self._fs.invalidate_cache()
        try:
            entries = self._try(lambda: self._fs.ls(f"{self._root}/{folder}", detail=True))
        except FileNotFoundError:
            return {}
        return {str(entry["name"]).rsplit("/", 1)[-1]: _stamp(entry) for entry in entries}

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
            raise OutputError(f"{self.location}/{name} is damaged: {error}") from error

    def plan(self) -> "Plan":
        """The library's plan. Raises UsageError if it is of a newer version, or has no plan."""
        from library.store.plan import Plan  # needs torch, which listing a library does not

        return Plan.from_dict(self.read_json(MANIFEST))

    def _try(self, action: Any) -> Any:
        try:
            return action()
        except FileNotFoundError:
            raise
        except Exception as error:  # each store has errors of its own
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"{self.location} cannot be used: {reason}") from error


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _local_stamps(folder: Path) -> dict[str, str]:
    stamps = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # removed a moment ago
                status = entry.stat(follow_symlinks=False)
                stamps[entry.name] = f"{status.st_size} {status.st_mtime_ns}"
    return stamps


def _stamp(entry: Mapping[str, Any]) -> str:
    """A file's size and its digest or time, under whichever name the store gives it."""
    values = (entry.get(key) for key in ("ETag", "etag", "mtime", "LastModified", "updated"))
    version = next((value for value in values if value), entry.get("created"))
    return f"{entry.get('size')} {version}"
