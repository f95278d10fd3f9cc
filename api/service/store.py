"""Generated adapters: whole folders on disk, records and owners in a database.

Files lie in `adapters/<id>/`, written as one step, or in an object store; the database says who may
see them. One write transaction covers the rows and the files, so that any number of threads and
processes may store or delete the same adapter. Files removed or changed by hand count as absent;
storing the adapter again restores them.
"""

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from api.errors import Conflict, NotFound, QuotaExceeded, StorageFailed
from api.service.adapter_folders import AdapterFolders, file_entries
from api.service.adapter_objects import AdapterObjects
from api.service.database import Database, run
from api.service.quotas import require_room, require_total
from api.service.tables import STORED
from api.service.uses import Uses
from library.errors import OutputError
from library.files import data_dir

LOCAL = "local"  # owner of what is made without a key
UNKNOWN = "there is no such adapter"
GENERATED = "generated/"  # before an id, where names of models have two parts
ADAPTER_ID = re.compile(r"ad_[0-9a-f]{40}")

StoredRecord = dict[str, Any]


class Store:
    """A folder of adapters with owners. Where one may be None, that stands for everybody.

    Args:
        folder: holds everything; created when the first adapter is stored.
        quota_bytes: limit for the files of all adapters together.
        quota_of: gives an owner's own limit, or None; an adapter counts for each of its owners.
        ttl: seconds after which an adapter that its owner has not used may be removed; never if
            None, and never while it is a version of a name.
        clock: the time, in seconds since 1970.
        database: URL of PostgreSQL, in place of a file in the folder.
        objects: URL of an object store for the files, of which the folder then has some.

    Attributes:
        database: with the tables of adapters, owners and names.
    """

    def __init__(
        self,
        folder: Path,
        *,
        quota_bytes: int,
        quota_of: Callable[[str], int | None] = lambda owner: None,
        ttl: int | None = None,
        clock: Callable[[], float] = time.time,
        database: str | None = None,
        objects: str | None = None,
    ) -> None:
        self.folder = folder
        self.quota_bytes, self._quota_of = quota_bytes, quota_of
        self.uses = Uses(ttl, clock)
        files = folder / ("cached" if objects else "adapters")  # what is there alone is no cache
        self._folders = AdapterObjects(files, objects) if objects else AdapterFolders(files)
        file = folder / "owners.sqlite3"
        self.database = Database(file, STORED, "the adapter store", database, version=1)

    def put(
        self,
        owner: str,
        summary: Mapping[str, Any],
        files: Mapping[str, bytes],
        *,
        imported: bool = False,
    ) -> tuple[StoredRecord, bool]:
        """Store an adapter for `owner`.

        Args:
            owner: who may read and delete it.
            summary: its description for clients, with its "id" and the "sha256" of its weights;
                must hold JSON.
            files: its files by name.
            imported: whether somebody sent them. The id does not cover all that they state, so they
                give way to those of the same adapter that is made here.
        Returns:
            The record (the summary and "files": {name: {"sha256", "bytes"}}) and whether it is
            new to this owner. If the adapter is stored already, its first record.
        Raises:
            Conflict: others were imported under its id.
            QuotaExceeded: it does not fit, also without what has expired; and as `quota_of` does.
            StorageFailed: it cannot be written; nothing is left behind.
        """
        try:
            return self._put(owner, summary, files, imported)
        except QuotaExceeded:
            if not self.sweep():
                raise
        return self._put(owner, summary, files, imported)

    def _put(
        self, owner: str, summary: Mapping[str, Any], files: Mapping[str, bytes], imported: bool
    ) -> tuple[StoredRecord, bool]:
        identity, quota = summary["id"], self._quota_of(owner)
        with self.database.transaction() as rows:
            known = run(rows, "SELECT record FROM adapters WHERE id = :id", id=identity).scalar()
            record: StoredRecord = json.loads(known) if known else {}
            new = not record or not self._folders.intact(record)
            sent = record.get("imported", False)
            if not new and sent and imported and record["files"] != file_entries(files):
                raise Conflict(f"{identity} was imported with another provenance or signature")
            replaced = new or (sent and not imported)
            if replaced:
                mark = {"imported": True} if imported else {}
                entries = file_entries(files, summary.get("sha256"))
                record = {**summary, **mark, "files": entries}
                self._insert(rows, record)
            added = run(
                rows,
                "INSERT INTO owners (key, id) VALUES (:owner, :id) ON CONFLICT DO NOTHING",
                owner=owner,
                id=identity,
            )
            self.uses.note(rows, owner, identity)
            if quota is not None and (replaced or added.rowcount):
                require_room(rows, owner, quota)
            if replaced:
                self._write(record, files)  # last: an error undoes the rows
        return record, new or added.rowcount == 1

    def clear_begun(self) -> None:
        """Delete what a killed process had begun to write. Raises StorageFailed."""
        with self.database.transaction():  # under its lock alone adapters are written
            self._folders.clear_begun()

    def get(self, owner: str | None, identity: str) -> StoredRecord:
        """The record of an adapter. Raises NotFound unless it is whole and the owner's."""
        record = self._record(owner, identity)
        if not self._folders.intact(record):
            raise NotFound(f"the files of {identity} were removed or changed; create it again")
        return record

    def page(
        self, owner: str | None, limit: int, after: str = ""
    ) -> tuple[list[StoredRecord], str | None]:
        """Records of an owner's adapters by id, and where the next page goes on, if there is one.

        Files are not looked at. What is stored or deleted meanwhile neither repeats nor hides
        another adapter, as ids stay where they are.

        Args:
            limit: how many at most.
            after: the id that the page before gave.
        """
        records = self._by_id(owner, after, limit + 1)
        return records[:limit], records[limit - 1]["id"] if len(records) > limit else None

    def owned(self, owner: str | None) -> list[StoredRecord]:
        """The records of all adapters of an owner, by id, whether or not their files are whole."""
        return self._by_id(owner, "", sys.maxsize)

    def require(self, owner: str | None, identity: str) -> None:
        """Raise NotFound unless the adapter is the owner's."""
        self._record(owner, identity)

    def read(self, owner: str | None, identity: str, name: str) -> tuple[bytes, str]:
        """A file and its SHA-256. Raises NotFound unless it is as it was stored."""
        files = self._record(owner, identity)["files"]
        if name not in files:
            raise NotFound(f"{identity} has no file of this name")
        content = self._folders.content(identity, name, files[name]["sha256"])
        if content is None:
            raise NotFound(f"{name} of {identity} was removed or changed; create it again")
        return content, files[name]["sha256"]

    def files(self, owner: str | None, record: StoredRecord) -> dict[str, bytes]:
        """What the files of an adapter hold, by name. Raises NotFound as `read` does."""
        return {name: self.read(owner, record["id"], name)[0] for name in record["files"]}

    def delete(self, owner: str | None, identity: str) -> None:
        """Delete an adapter of `owner`; its files go with its last owner.

        Raises NotFound; Conflict if it is a version of a name.
        """
        _require_id(identity)
        self._delete(owner, identity, math.inf)

    def sweep(self) -> int:
        """Delete what has expired, but for versions of names; how many that were.

        A clock that was put back lets nothing live longer than anew. Raises StorageFailed.
        """
        with self.database.connection() as rows:
            since, expired = self.uses.expired(rows)
        swept = 0
        for owner, identity in expired:
            with suppress(NotFound):  # it was used or deleted a moment ago
                try:
                    self._delete(owner, identity, since)
                    swept += 1
                except Conflict:  # to be a version is to be used
                    self._use(owner, identity)
        return swept

    def _delete(self, owner: str | None, identity: str, unused_since: float) -> None:
        """Raises NotFound if it is not there, or was used since; Conflict as `delete` does."""
        with self.database.transaction() as rows:
            try:
                gone = run(
                    rows,
                    "DELETE FROM owners"
                    " WHERE id = :id AND key = coalesce(:owner, key) AND used < :since",
                    id=identity,
                    owner=owner,
                    since=unused_since,
                )
            except IntegrityError as error:
                raise Conflict(
                    f"{identity} is a version of a name; delete the name first"
                ) from error
            if not gone.rowcount:
                raise NotFound(UNKNOWN)
            if run(rows, "SELECT 1 FROM owners WHERE id = :id", id=identity).first() is None:
                run(rows, "DELETE FROM adapters WHERE id = :id", id=identity)
                self._folders.remove(identity)

    def used(self) -> int:
        """The size of all stored adapters, in bytes. Raises StorageFailed."""
        total = "SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM adapters"
        return self.database.query(total)[0][0]

    def path(self, identity: str, name: str = "") -> Path:
        """An adapter's folder or one file in it, whether or not it exists."""
        return self._folders.path(identity, name)

    def _by_id(self, owner: str | None, after: str, limit: int) -> list[StoredRecord]:
        """Records of an owner's adapters with ids above `after`, up to a limit."""
        rows = self.database.query(
            "SELECT record FROM adapters WHERE id > :after AND EXISTS"
            " (SELECT 1 FROM owners WHERE id = adapters.id AND key = coalesce(:owner, key))"
            " ORDER BY id LIMIT :limit",
            owner=owner,
            after=after,
            limit=limit,
        )
        return [json.loads(row[0]) for row in rows]

    def _record(self, owner: str | None, identity: str) -> StoredRecord:
        """Looking at it is a use. Raises NotFound unless the adapter is the owner's."""
        _require_id(identity)
        rows = self.database.query(
            "SELECT record, used FROM adapters JOIN owners USING (id)"
            " WHERE id = :id AND key = coalesce(:owner, key) ORDER BY used",
            id=identity,
            owner=owner,
        )
        if not rows:
            raise NotFound(UNKNOWN)
        record, used = rows[0]
        if self.uses.is_new(used):
            with suppress(StorageFailed):  # who reads needs no disk that can be written
                self._use(owner, identity)
        return json.loads(record)

    def _use(self, owner: str | None, identity: str) -> None:
        """Note a use. Raises StorageFailed."""
        with self.database.connection() as rows:
            self.uses.note(rows, owner, identity)

    def _insert(self, rows: Connection, record: StoredRecord) -> None:
        identity = record["id"]
        size = sum(file["bytes"] for file in record["files"].values())
        require_total(rows, identity, size, self.quota_bytes)
        run(
            rows,
            "INSERT INTO adapters (id, bytes, record) VALUES (:id, :bytes, :record)"
            " ON CONFLICT (id) DO UPDATE SET bytes = :bytes, record = :record",
            id=identity,
            bytes=size,
            record=json.dumps(record),
        )

    def _write(self, record: StoredRecord, files: Mapping[str, bytes]) -> None:
        try:
            self._folders.write(record["id"], files, record["files"])
        except OutputError as error:
            raise self.database.failed(error.__cause__ or error) from error


def local_store() -> Store:
    """The store of this machine's user; quotas are the service's affair."""
    database, objects = (os.environ.get(f"LORASMITH_{name}") for name in ("DATABASE", "OBJECTS"))
    return Store(data_dir(), quota_bytes=sys.maxsize, database=database, objects=objects)


def _require_id(identity: str) -> None:
    if ADAPTER_ID.fullmatch(identity) is None:  # no database encodes lone surrogates
        raise NotFound(UNKNOWN)
