"""What a library holds, read from its records: list, find, export, remove, check."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from library.adapter import Adapter
from library.canonical import digest
from library.errors import AdapterFileError, MissingPath, UnknownName, UsageError
from library.folder import ADAPTERS, MANIFEST, PACKED, RECORDS, LibraryFolder
from library.layout import Layout
from library.peft_io import CONFIG_FILE, WEIGHTS_FILE
from library.peft_read import read_peft
from library.provenance import PROVENANCE_FILE, adapter_id

Record = dict[str, Any]
FILES = (CONFIG_FILE, WEIGHTS_FILE, PROVENANCE_FILE)


def open_library(place: str, *, write: bool = False) -> LibraryFolder:
    """The library at a folder or URL; a packed one (library.packed) opens as its unpacked copy.

    Raises:
        MissingPath: there is none.
        UsageError: it is packed, and `write` is meant.
    """
    folder = LibraryFolder(place)
    if not folder.exists(MANIFEST):
        raise MissingPath(f"there is no library at {place}")
    if not folder.exists(PACKED):
        return folder
    if write:
        raise UsageError(f"the library {place} is packed and cannot be changed")
    from library.packed import unpacked

    return LibraryFolder(unpacked(Path(place)))


def records(folder: LibraryFolder) -> list[Record]:
    """Every adapter's record, sorted by task and variant."""
    found = [r for _, r in _every(folder) if r["id"] is not None]
    return sorted(found, key=lambda r: (r["task"], r["variant"], r["id"]))


def find(folder: LibraryFolder, identity: str) -> Record:
    """The record of an adapter, by id or by task. Raises UnknownName."""
    for record in records(folder):
        if identity in (record["id"], record["task"]):
            return record
    raise UnknownName(f"{folder.place} holds no adapter {identity}")


def files_of(folder: LibraryFolder, identity: str) -> dict[str, bytes]:
    """An adapter's three files. Raises AdapterFileError if one is missing."""
    try:
        return {name: folder.read(f"{ADAPTERS}/{identity}/{name}") for name in FILES}
    except FileNotFoundError as error:
        raise AdapterFileError(f"{identity} has lost a file: {error}") from error


def read_adapter(folder: LibraryFolder, identity: str, layout: Layout) -> Adapter:
    """An adapter of a library. Raises AdapterFileError, LayoutMismatch."""
    with tempfile.TemporaryDirectory() as place:
        for name, content in files_of(folder, identity).items():
            (Path(place) / name).write_bytes(content)
        return read_peft(Path(place), layout)


def remove(folder: LibraryFolder, identity: str) -> Record:
    """Take an adapter out: its record first, then its files; return the record.

    Raises UnknownName.
    """
    found = find(folder, identity)
    for name, record in list(_every(folder)):
        if record["id"] == found["id"]:
            folder.remove(name)
    folder.remove(f"{ADAPTERS}/{found['id']}")
    return found


def check(folder: LibraryFolder) -> list[str]:
    """Hash everything again; one sentence for each thing that is damaged or missing."""
    problems = []
    for record in records(folder):
        identity = record["id"]
        try:
            files = files_of(folder, identity)
            config, provenance = (json.loads(files[n]) for n in (CONFIG_FILE, PROVENANCE_FILE))
        except (AdapterFileError, ValueError) as error:
            problems.append(f"{identity} ({record['task']}): {error}")
            continue
        sha256 = digest(files[WEIGHTS_FILE])
        if sha256 != record["sha256"]:
            problems.append(f"{identity} ({record['task']}): the weights have changed")
        elif adapter_id(config, sha256, provenance) != identity:
            problems.append(f"{identity} ({record['task']}): its config or provenance has changed")
    return problems


def _every(folder: LibraryFolder) -> Iterator[tuple[str, Record]]:
    for shard in folder.names(RECORDS):
        for name in folder.names(f"{RECORDS}/{shard}"):
            path = f"{RECORDS}/{shard}/{name}"
            yield path, folder.read_json(path)
