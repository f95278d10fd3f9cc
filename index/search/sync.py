"""The indexes of a library: their folders, and how they follow the library's records."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from index.search.sources import VectorSource, WeightSource
from index.segments.change_log import Change
from index.segments.folder import CURRENT, IndexFolder
from index.segments.index import VectorIndex
from index.segments.segment import Vectors
from index.segments.snapshot import EncoderMismatch, IndexDamaged
from index.segments.view import IndexView
from library.canonical import digest, json_digest
from library.errors import OutputError
from library.files import cache_dir
from library.progress import Progress, no_progress
from library.store.catalogue import records
from library.store.folder import LibraryFolder
from library.store.open import open_library
from library.store.records import record_stamps

OnNote: TypeAlias = Callable[[str], None]  # a sentence about something that was repaired
BATCH = 16  # adapters embedded between two steps of the progress bar
MAX_ADDED = 1000  # adapters beside the snapshot, or a tenth of it if that is more


def quiet(sentence: str) -> None:
    """No notes."""


def build_index(
    location: str, source: VectorSource, progress: Progress = no_progress, note: OnNote = quiet
) -> VectorIndex:
    """Bring a library's own index up to date, as one snapshot; make it if there is none.

    Vectors that fit are kept; only new adapters are encoded. A damaged index, or one of another
    encoder, is replaced.

    Raises MissingPath, OutputError.
    """
    library, folder = open_library(location), library_index(location, source.folder)
    index = _open_or_replace(folder, source, note)
    change = change_for(index.view, library, source, progress)
    if change is None and index.exists and index.view.is_snapshot:
        IndexFolder(folder).remove_unfinished()
    else:
        index.compact(change)
    return index


def left_out(index: VectorIndex, library: LibraryFolder, source: WeightSource) -> Counter[str]:
    """The reasons why adapters of a library are not in its index, and of how many."""
    indexed = {entry.id for entry in index.view.entries()}
    others = [r for r in records(library) if r["id"] is not None and r["id"] not in indexed]
    return Counter(source.refusal(library, record) for record in others)


def open_index(
    location: str, source: VectorSource, progress: Progress = no_progress, note: OnNote = quiet
) -> VectorIndex:
    """An index to search in, up to date: the library's own, else one in the cache.

    If neither can be written, what is missing is kept in memory.

    Raises:
        MissingPath: there is no library.
        EncoderMismatch, IndexDamaged: the library's own index of descriptions cannot be used.
    """
    library, folder = open_library(location), library_index(location, source.folder)
    exists = (folder / CURRENT).exists()
    if exists and not source.replaceable:
        index = VectorIndex(source.identity, folder, note)
    else:
        try:
            folder = folder if exists else _cache_root(location) / source.folder
            index = _open_or_replace(folder, source, note)
        except OutputError:
            index = VectorIndex(source.identity)
    follow(index, library, source, progress)
    return index


def follow(
    index: VectorIndex,
    library: LibraryFolder,
    source: VectorSource,
    progress: Progress = no_progress,
) -> None:
    """Bring an index up to date with the library's records and with its own files."""
    index.refresh()
    change = change_for(index.view, library, source, progress)
    if change is None:
        return
    try:
        index.apply(change)
        if len(index.view.added.entries) > max(MAX_ADDED, len(index.view) // 10):
            index.compact()
    except OutputError:
        index.apply(change, persist=False)


def has_own_index(location: str, name: str) -> bool:
    """Whether a library has an index of the source whose `folder` is `name`."""
    return (library_index(location, name) / CURRENT).exists()


def library_index(location: str, name: str) -> Path:
    """The folder of a library's own index, of the source whose `folder` is `name`."""
    return index_root(location) / name


def index_root(location: str) -> Path:
    """LIB/index; for a library that is not a local folder, a folder in the cache."""
    local = LibraryFolder(location).local
    return _cache_root(location) if local is None else local / "index"


def _cache_root(location: str) -> Path:
    return cache_dir() / "indexes" / digest(LibraryFolder(location).url.encode())[:16]


def _open_or_replace(folder: Path, source: VectorSource, note: OnNote) -> VectorIndex:
    """The index in a folder; an empty one if it cannot be used."""
    try:
        return VectorIndex(source.identity, folder, note)
    except (EncoderMismatch, IndexDamaged) as error:
        note(f"{str(error).partition(';')[0]}; it is replaced")
        IndexFolder(folder).invalidate()
        return VectorIndex(source.identity, folder, note)


def change_for(
    view: IndexView, library: LibraryFolder, source: VectorSource, progress: Progress = no_progress
) -> Change | None:
    """The change that brings an index up to date with a library's records; None if it is."""
    stamp = json_digest(record_stamps(library))
    if stamp == view.records:
        return None
    # 1. Compare the records with the index's entries.
    target = source.entries([r for r in records(library) if r["id"] is not None])
    indexed = {entry.id: entry for entry in view.entries()}
    new = [pair for identity, pair in target.items() if indexed.get(identity) != pair[0]]
    # 2. Encode what is new; an adapter without rows cannot be searched for.
    rows: list[Vectors] = []
    for start in range(0, len(new), BATCH):
        rows += source.vectors(library, new[start : start + BATCH])
        progress(len(rows), len(new))
    added = tuple(entry for (entry, _), vectors in zip(new, rows, strict=True) if len(vectors))
    # 3. Everything else goes.
    remaining = target.keys() - {entry.id for entry, _ in new} | {entry.id for entry in added}
    removed = tuple(sorted(indexed.keys() - remaining))
    nothing = np.zeros((0, source.identity.dimension), dtype=np.float32)
    return Change(added, np.concatenate([nothing, *rows]), removed, stamp)
