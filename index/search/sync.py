"""The indexes of a library: where they lie, and how they follow the library's records."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from index.search.sources import VectorSource, Wanted
from index.segments.change_log import Change
from index.segments.folder import CURRENT, IndexFolder
from index.segments.index import VectorIndex
from index.segments.segment import Vectors
from index.segments.snapshot import EncoderMismatch, IndexDamaged
from index.segments.view import IndexView
from library.canonical import digest, json_digest
from library.errors import OutputError
from library.files import cache_dir
from library.store.catalogue import records
from library.store.folder import LibraryFolder
from library.store.open import open_library
from library.store.records import record_stamps

Progress = Callable[[int, int], None]
Note = Callable[[str], None]
AT_ONCE = 16  # adapters embedded between two steps of the progress bar
MOST_IN_DELTA = 1000  # adapters, or a tenth of the snapshot if that is more


def quiet(*_: object) -> None:
    """Progress and notes that nobody asked for."""


def build_index(
    place: str, contents: VectorSource, progress: Progress = quiet, note: Note = quiet
) -> VectorIndex:
    """Bring one of a library's own indexes up to date, as one snapshot; make it if there is none.

    What is there and fits is kept; only what is new is embedded. A damaged index, or one of
    another encoder, is replaced.

    Raises MissingPath, OutputError.
    """
    library, where = open_library(place), own_place(place, contents)
    index = _usable(where, contents, note)
    change = change_for(index.state, library, contents, progress)
    if change is None and index.exists and not index.state.has_delta:
        IndexFolder(where).tidy()
        return index
    index.compact(change or Change(records=index.state.records))
    return index


def open_index(
    place: str, contents: VectorSource, progress: Progress = quiet, note: Note = quiet
) -> VectorIndex:
    """A library's index to search in: its own, else one in the cache; it answers for the records.

    Where neither can be written, what is missing is kept in memory.

    Raises:
        MissingPath: there is no library.
        EncoderMismatch, IndexDamaged: the library's own index of descriptions cannot be used.
    """
    library, own = open_library(place), own_place(place, contents)
    there = (own / CURRENT).exists()
    if there and not contents.derived:
        index = VectorIndex(contents.identity, own, note)
    else:
        try:
            index = _usable(own if there else _cached_place(place, contents), contents, note)
        except OutputError:
            index = VectorIndex(contents.identity)
    follow(index, library, contents, progress)
    return index


def follow(
    index: VectorIndex,
    library: LibraryFolder,
    contents: VectorSource,
    progress: Progress = quiet,
) -> None:
    """Take in what was added to a library, changed or removed since the index last looked."""
    index.refresh()
    change = change_for(index.state, library, contents, progress)
    if change is None:
        return
    try:
        index.apply(change)
        delta = len(index.state.delta.entries)
        if delta > max(MOST_IN_DELTA, len(index.state) // 10):
            index.compact()
    except OutputError:
        index.apply(change, keep=False)


def own_place(place: str, contents: VectorSource) -> Path:
    """LIB/index; for a library that is not a local folder, a folder in the cache."""
    local = LibraryFolder(place).local
    return _cached_place(place, contents) if local is None else local / "index" / contents.folder


def _cached_place(place: str, contents: VectorSource) -> Path:
    library = digest(LibraryFolder(place).url.encode())[:16]
    return cache_dir() / "indexes" / library / contents.folder


def _usable(where: Path, contents: VectorSource, note: Note) -> VectorIndex:
    """The index there; an empty one in its place if it cannot be used."""
    try:
        return VectorIndex(contents.identity, where, note)
    except (EncoderMismatch, IndexDamaged) as error:
        note(f"{str(error).partition(';')[0]}; it is replaced")
        IndexFolder(where).forget()
        return VectorIndex(contents.identity, where, note)


def change_for(
    state: IndexView, library: LibraryFolder, contents: VectorSource, progress: Progress = quiet
) -> Change | None:
    """What makes an index answer for a library's records, or None if it does."""
    stamp = json_digest(record_stamps(library))
    if stamp == state.records:
        return None
    wanted = contents.entries([r for r in records(library) if r["id"] is not None])
    known = {entry.id: entry for entry in state.entries()}
    new = [pair for identity, pair in wanted.items() if known.get(identity) != pair[0]]
    rows = list(_embedded(library, new, contents, progress))
    added = tuple(entry for (entry, _), own in zip(new, rows, strict=True) if len(own))
    nothing = np.zeros((0, contents.identity.dimension), dtype=np.float32)
    kept = wanted.keys() - {entry.id for entry, _ in new} | {entry.id for entry in added}
    removed = tuple(sorted(known.keys() - kept))
    return Change(added, np.concatenate([nothing, *rows]), removed, stamp)


def _embedded(
    library: LibraryFolder, new: Sequence[Wanted], contents: VectorSource, progress: Progress
) -> Iterator[Vectors]:
    for start in range(0, len(new), AT_ONCE):
        part = new[start : start + AT_ONCE]
        yield from contents.vectors(library, part)
        progress(start + len(part), len(new))
