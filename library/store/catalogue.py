"""The adapters of a library: list, find, read, remove, check.

A catalogue in SQL answers, or, where SQLAlchemy is not installed, the records themselves.
"""

from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Protocol, runtime_checkable

from library.adapter import Adapter
from library.canonical import digest
from library.errors import AdapterFileError, OutputError, UnknownName
from library.layout import Layout
from library.peft.provenance import PROVENANCE_FILE, adapter_id
from library.peft.read import adapter_of
from library.peft.safetensors_file import parse_object
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE
from library.store.folder import ADAPTERS, RECORDS, LibraryFolder
from library.store.records import (
    Record,
    RecordEntry,
    Selection,
    read_record,
    record_stamps,
    select_records,
)

StoredRecords = dict[str, tuple[str, Record]]  # stamp and content, by path
FILES = (CONFIG_FILE, WEIGHTS_FILE, PROVENANCE_FILE)


@runtime_checkable
class Catalogue(Protocol):
    """Filters and finds a library's adapters. See `library.store.sql.SqlCatalogue`."""

    folder: LibraryFolder
    broken: tuple[str, ...]

    def refresh(self) -> None: ...
    def entries(self, selection: Selection) -> list[RecordEntry]: ...
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

    def entries(self, selection: Selection) -> list[RecordEntry]:
        return select_records(self._records, selection)

    def named(self, identity: str) -> list[RecordEntry]:
        return [e for e in self.entries(Selection()) if identity in (e.id, e.task)]


def open_catalogue(
    folder: LibraryFolder, url: str | None = None, note: Callable[[str], None] | None = None
) -> Catalogue:
    """A library's catalogue, not yet up to date. Arguments and errors are SqlCatalogue's."""
    if find_spec("sqlalchemy") is None:
        return FileCatalogue(folder)
    from library.store.sql import SqlCatalogue, warn

    return SqlCatalogue(folder, url, note or warn)


def records(folder: LibraryFolder) -> list[Record]:
    """Every adapter's record, sorted by task and variant. Raises OutputError for a damaged one."""
    return in_order(read_records(folder))


def read_records(folder: LibraryFolder, known: StoredRecords | None = None) -> StoredRecords:
    """Every record. One that is `known` under its stamp is not read again.

    What is removed meanwhile is left out. Raises OutputError for a damaged one.
    """
    found, known = StoredRecords(), known or {}
    for path, stamp in record_stamps(folder).items():
        if path in known and known[path][0] == stamp:
            found[path] = known[path]
        else:
            with suppress(FileNotFoundError):
                found[path] = stamp, read_record(folder, path)
    return found


def in_order(stored: StoredRecords) -> list[Record]:
    """Those of them that have an adapter, sorted by task and variant."""
    by_path = {path: record for path, (_, record) in stored.items()}
    return [by_path[entry.path] for entry in select_records(by_path.items(), Selection())]


def find(catalogue: Catalogue, identity: str) -> Record:
    """The record of an adapter, by id or by task.

    Raises UnknownName, or OutputError if it may be among records that are damaged.
    """
    for entry in catalogue.named(identity):
        return read_record(catalogue.folder, entry.path)
    if catalogue.broken:
        raise OutputError(catalogue.broken[0])
    raise UnknownName(f"{catalogue.folder.location} holds no adapter {identity}")


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
    """Remove an adapter: its record, then its row, then its files; return the record.

    Raises UnknownName.
    """
    record = find(catalogue, identity)
    for entry in catalogue.named(record["id"]):
        catalogue.folder.remove(entry.path)
    catalogue.refresh()
    catalogue.folder.remove(f"{ADAPTERS}/{record['id']}")
    return record


def check_library(catalogue: Catalogue) -> list[str]:
    """Hash everything again; one sentence for each thing that is damaged or missing."""
    problems = list(catalogue.broken)
    for entry in catalogue.entries(Selection()):
        problem = _damage(catalogue.folder, entry)
        if problem:
            problems.append(f"{entry.id} ({entry.task}): {problem}")
    return problems


def _damage(folder: LibraryFolder, entry: RecordEntry) -> str:
    """A sentence if an adapter's files are not those that its record names, or nothing."""
    try:
        files = files_of(folder, entry.id)
        config, provenance = (parse_object(files[n], n, n) for n in (CONFIG_FILE, PROVENANCE_FILE))
        sha256 = digest(files[WEIGHTS_FILE])
        identity = adapter_id(config, sha256, provenance)
    except (AdapterFileError, ValueError, RecursionError) as error:
        return str(error)
    if (identity, sha256) != (entry.id, entry.sha256):
        return "its weights, config or provenance are not those of its record"
    return ""


def surplus(catalogue: Catalogue) -> list[str]:
    """Notes on files that do not count: adapters without a record, unfinished files.

    A build that was stopped leaves them, or one that is still running has them.
    """
    folder = catalogue.folder
    recorded = {entry.id for entry in catalogue.entries(Selection())}
    shards = [f"{RECORDS}/{shard}" for shard in folder.names(RECORDS)]
    notes = [
        f"{ADAPTERS}/{name} is an orphan: no record names it"
        for name in folder.names(ADAPTERS)
        if name not in recorded
    ]
    for parent in (ADAPTERS, RECORDS, *shards):
        hidden = sorted(name for name in folder.stamps(parent) if name[0] == ".")
        notes += [f"{parent}/{name} is unfinished" for name in hidden]
    return notes
