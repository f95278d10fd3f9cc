"""What a library holds: list, find, export, remove, check.

Asked through a catalogue in SQL, or, where SQLAlchemy is not installed, read from the records.
"""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

from library.adapter import Adapter
from library.canonical import digest
from library.errors import AdapterFileError, MissingPath, OutputError, UnknownName, UsageError
from library.layout import Layout
from library.peft.provenance import PROVENANCE_FILE, adapter_id
from library.peft.read import adapter_of
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE
from library.store.folder import ADAPTERS, MANIFEST, PACKED, RECORDS, LibraryFolder
from library.store.records import (
    Record,
    RecordEntry,
    Selection,
    chosen,
    read_record,
    record_stamps,
)

FILES = (CONFIG_FILE, WEIGHTS_FILE, PROVENANCE_FILE)


@runtime_checkable
class Catalogue(Protocol):
    """What can be asked of a library. See `library.store.sql_catalogue.SqlCatalogue`."""

    folder: LibraryFolder
    broken: tuple[str, ...]

    def refresh(self) -> None: ...
    def entries(self, wanted: Selection) -> list[RecordEntry]: ...
    def named(self, identity: str) -> list[RecordEntry]: ...


class FileCatalogue:
    """Answers from the record files themselves, which it reads at every `refresh`."""

    def __init__(self, folder: LibraryFolder) -> None:
        self.folder, self.broken = folder, ()
        self._records: list[tuple[str, Record]] = []

    def refresh(self) -> None:
        broken, self._records = [], []
        for path in record_stamps(self.folder):
            try:
                self._records.append((path, read_record(self.folder, path)))
            except OutputError as error:
                broken.append(str(error))
        self.broken = tuple(broken)

    def entries(self, wanted: Selection) -> list[RecordEntry]:
        return chosen(self._records, wanted)

    def named(self, identity: str) -> list[RecordEntry]:
        return [e for e in self.entries(Selection()) if identity in (e.id, e.task)]


def open_library(place: str, *, write: bool = False) -> LibraryFolder:
    """The library at a folder or URL; a packed one (library.store.packed) opens as its unpacked
    copy.

    Raises:
        MissingPath: there is none.
        UsageError: it is packed, and `write` is meant.
    """
    folder = LibraryFolder(place)
    if not folder.exists(MANIFEST):
        raise MissingPath(f"there is no library at {place}")
    if write:
        require_unpacked(folder)
    if not folder.exists(PACKED):
        return folder
    from library.store.packed import unpacked

    return LibraryFolder(unpacked(Path(place)))


def require_unpacked(folder: LibraryFolder) -> None:
    """Raise UsageError for a packed library, which cannot be changed."""
    if folder.exists(PACKED):
        raise UsageError(f"the library {folder.place} is packed and cannot be changed")


def open_catalogue(
    folder: LibraryFolder, url: str | None = None, note: Callable[[str], None] | None = None
) -> Catalogue:
    """A library's catalogue, not yet up to date. Arguments and errors are SqlCatalogue's."""
    if find_spec("sqlalchemy") is None or find_spec("alembic") is None:
        return FileCatalogue(folder)
    from library.store.sql_catalogue import SqlCatalogue, warn

    return SqlCatalogue(folder, url, note or warn)


def records(folder: LibraryFolder) -> list[Record]:
    """Every adapter's record, sorted by task and variant. Raises OutputError for a damaged one."""
    every = [(path, read_record(folder, path)) for path in record_stamps(folder)]
    by_path = dict(every)
    return [by_path[entry.path] for entry in chosen(every, Selection())]


def find(catalogue: Catalogue, identity: str) -> Record:
    """The record of an adapter, by id or by task.

    Raises UnknownName, or OutputError if it may be among records that are damaged.
    """
    for entry in catalogue.named(identity):
        return read_record(catalogue.folder, entry.path)
    if catalogue.broken:
        raise OutputError(catalogue.broken[0])
    raise UnknownName(f"{catalogue.folder.place} holds no adapter {identity}")


def files_of(folder: LibraryFolder, identity: str) -> dict[str, bytes]:
    """An adapter's three files. Raises AdapterFileError if one is missing."""
    try:
        return {name: folder.read(f"{ADAPTERS}/{identity}/{name}") for name in FILES}
    except FileNotFoundError as error:
        raise AdapterFileError(f"{identity} has lost a file: {error}") from error


def read_adapter(folder: LibraryFolder, identity: str, layout: Layout) -> Adapter:
    """An adapter of a library. Raises AdapterFileError, LayoutMismatch."""
    return adapter_of(files_of(folder, identity), layout)


def remove_adapter(catalogue: Catalogue, identity: str) -> Record:
    """Take an adapter out: its record, then its row, then its files; return the record.

    Raises UnknownName.
    """
    found = find(catalogue, identity)
    for entry in catalogue.named(found["id"]):
        catalogue.folder.remove(entry.path)
    catalogue.refresh()
    catalogue.folder.remove(f"{ADAPTERS}/{found['id']}")
    return found


def check_library(catalogue: Catalogue) -> list[str]:
    """Hash everything again; one sentence for each thing that is damaged or missing."""
    problems = list(catalogue.broken)
    for entry in catalogue.entries(Selection()):
        problem = _damage(catalogue.folder, entry)
        if problem:
            problems.append(f"{entry.id} ({entry.task}): {problem}")
    return problems


def _damage(folder: LibraryFolder, entry: RecordEntry) -> str:
    """What is wrong with an adapter's files, or nothing."""
    try:
        files = files_of(folder, entry.id)
        config, provenance = (json.loads(files[n]) for n in (CONFIG_FILE, PROVENANCE_FILE))
    except (AdapterFileError, ValueError) as error:
        return str(error)
    sha256 = digest(files[WEIGHTS_FILE])
    if sha256 != entry.sha256:
        return "the weights have changed"
    if adapter_id(config, sha256, provenance) != entry.id:
        return "its config or provenance has changed"
    return ""


def surplus(catalogue: Catalogue) -> list[str]:
    """What lies in a library and does not count: adapters without a record, unfinished files.

    A build that was stopped leaves them, or one that is still running has them.
    """
    folder = catalogue.folder
    known = {entry.id for entry in catalogue.entries(Selection())}
    shards = [f"{RECORDS}/{shard}" for shard in folder.names(RECORDS)]
    notes = [
        f"{ADAPTERS}/{name} is an orphan: no record names it"
        for name in folder.names(ADAPTERS)
        if name not in known
    ]
    for where in (ADAPTERS, RECORDS, *shards):
        hidden = sorted(name for name in folder.stamps(where) if name[0] == ".")
        notes += [f"{where}/{name} is unfinished" for name in hidden]
    return notes
