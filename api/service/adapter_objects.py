"""The files of stored adapters in an object store, and those used lately on this machine's disk.

An object is `<id>/<SHA-256 of the file>`, and is there before the row that names it: an adapter is
visible once it is whole, and gives way to another one of its id as one step. What a killed process
had begun to send stays, unseen, until the same adapter is made or deleted.
"""

import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.errors import StorageFailed, StorageUnreachable
from api.service.adapter_folders import AdapterFolders
from library.canonical import digest
from library.errors import OutputError, UsageError, first_line
from library.files import write_file
from verification.zk.errors import MissingExtra

if TYPE_CHECKING:
    from obstore.store import ObjectStore

CACHE_BYTES = 2 * 2**30  # of files on this machine; the oldest go
RETRIES, RETRY_SECONDS = 3, 10  # while the store does not answer


class AdapterObjects(AdapterFolders):
    """Adapters in an object store.

    Args:
        cache: folder for those used lately.
        url: as s3://bucket/prefix; credentials are in the environment.
    Raises:
        MissingExtra, UsageError: it cannot be opened.
    """

    def __init__(self, cache: Path, url: str) -> None:
        super().__init__(cache)
        self._objects = _open(url)

    def content(self, identity: str, name: str, sha256: str) -> bytes | None:
        """What a file holds; None if it is not there. Raises StorageFailed, StorageUnreachable."""
        import obstore
        from obstore.exceptions import BaseError

        cached = super().content(identity, name, sha256)
        if cached is not None:
            return cached
        try:
            found = bytes(obstore.get(self._objects, f"{identity}/{sha256}").bytes())
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise _unreachable(error) from error
        if digest(found) != sha256:
            return None
        try:
            write_file(self.path(identity, name), found)
        except OutputError as error:
            raise StorageFailed("the cache of adapters cannot be written") from error
        self._trim()
        return found

    def write(self, identity: str, files: Mapping[str, bytes], entries: Mapping[str, Any]) -> None:
        """Store an adapter's files. Raises StorageUnreachable; OutputError for the cache."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            for name, content in files.items():
                obstore.put(self._objects, f"{identity}/{entries[name]['sha256']}", content)
        except BaseError as error:
            raise _unreachable(error) from error
        super().write(identity, files, entries)
        self._trim()

    def remove(self, identity: str) -> None:
        """Remove an adapter's files, as far as they can be."""
        import obstore
        from obstore.exceptions import BaseError

        super().remove(identity)
        try:
            found = obstore.list(self._objects, prefix=f"{identity}/")
            obstore.delete(self._objects, [one["path"] for some in found for one in some])
        except BaseError as error:
            _log.error("objects of %s are left over: %s", identity, first_line(error))

    def _trim(self) -> None:
        """Remove the oldest of the cache, as far as it has grown too large."""
        room = CACHE_BYTES
        with suppress(OSError):  # others remove from it too
            newest = sorted(self.path("").glob("ad_*"), key=_written, reverse=True)
            for folder in newest:
                room -= sum(file.stat().st_size for file in folder.iterdir())
                if room < 0:
                    shutil.rmtree(folder, ignore_errors=True)


def _written(folder: Path) -> int:
    return folder.stat().st_mtime_ns


def _open(url: str) -> "ObjectStore":
    """Raises MissingExtra, UsageError."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ModuleNotFoundError as error:
        raise MissingExtra("objects need obstore: pip install 'lorasmith[objects]'") from error
    try:
        waiting = timedelta(seconds=RETRY_SECONDS)
        return from_url(url, retry_config={"max_retries": RETRIES, "retry_timeout": waiting})
    except (BaseError, ValueError) as error:
        raise UsageError(f"the object store cannot be opened: {first_line(error)}") from error


def _unreachable(error: Exception) -> StorageUnreachable:
    _log.error("the object store does not answer: %s", first_line(error))
    return StorageUnreachable("the object store of adapters cannot be reached now")


_log = logging.getLogger("lorasmith.api")
