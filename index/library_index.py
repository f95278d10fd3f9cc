"""The index of a library: where it lies, and how it follows the library's records."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from index.delta import Change
from index.description_index import DescriptionIndex
from index.encoder import DescriptionEncoder
from index.entries import entries_of
from index.index_folder import CURRENT, IndexFolder
from index.parts import Vectors
from index.snapshot import EncoderMismatch, IndexDamaged
from index.state import State
from library.canonical import digest, json_digest
from library.catalogue import open_library, records
from library.errors import OutputError
from library.files import cache_dir
from library.folder import LibraryFolder
from library.records import record_stamps

Progress = Callable[[int, int], None]
Note = Callable[[str], None]
AT_ONCE = 16  # adapters embedded between two steps of the progress bar
MOST_IN_DELTA = 1000  # adapters, or a tenth of the snapshot if that is more


def quiet(*_: object) -> None:
    """Progress and notes that nobody asked for."""


def build_index(
    place: str, encoder: DescriptionEncoder, progress: Progress = quiet, note: Note = quiet
) -> DescriptionIndex:
    """Bring a library's own index up to date, as one snapshot; make it if there is none.

    What is there and fits is kept; only new descriptions are embedded. A damaged index, or one of
    another encoder, is replaced.

    Raises MissingPath, OutputError.
    """
    library, where = open_library(place), own_place(place)
    index = _usable(where, encoder, note)
    change = change_for(index.state, library, encoder, progress)
    if change is None and index.exists and not index.state.has_delta:
        IndexFolder(where).tidy()
        return index
    index.compact(change or Change(records=index.state.records))
    return index


def open_index(
    place: str, encoder: DescriptionEncoder, progress: Progress = quiet, note: Note = quiet
) -> DescriptionIndex:
    """A library's index to search in: its own, else one in the cache; it answers for the records.

    Where neither can be written, what is missing is kept in memory.

    Raises:
        MissingPath: there is no library.
        EncoderMismatch, IndexDamaged: the library's own index cannot be used.
    """
    library, own = open_library(place), own_place(place)
    if (own / CURRENT).exists():
        index = DescriptionIndex(encoder.identity, own, note)
    else:
        try:
            index = _usable(_cached_place(place), encoder, note)
        except OutputError:
            index = DescriptionIndex(encoder.identity)
    follow(index, library, encoder, progress)
    return index


def follow(
    index: DescriptionIndex,
    library: LibraryFolder,
    encoder: DescriptionEncoder,
    progress: Progress = quiet,
) -> None:
    """Take in what was added to a library, changed or removed since the index last looked."""
    index.refresh()
    change = change_for(index.state, library, encoder, progress)
    if change is None:
        return
    try:
        index.apply(change)
        delta = len(index.state.delta.entries)
        if delta > max(MOST_IN_DELTA, len(index.state) // 10):
            index.compact()
    except OutputError:
        index.apply(change, keep=False)


def own_place(place: str) -> Path:
    """LIB/index; for a library that is not a local folder, a folder in the cache."""
    local = LibraryFolder(place).local
    return _cached_place(place) if local is None else local / "index"


def _cached_place(place: str) -> Path:
    return cache_dir() / "indexes" / digest(LibraryFolder(place).url.encode())[:16]


def _usable(where: Path, encoder: DescriptionEncoder, note: Note) -> DescriptionIndex:
    """The index there; an empty one in its place if it cannot be used."""
    try:
        return DescriptionIndex(encoder.identity, where, note)
    except (EncoderMismatch, IndexDamaged) as error:
        note(f"{error}; it is replaced")
        IndexFolder(where).forget()
        return DescriptionIndex(encoder.identity, where, note)


def change_for(
    state: State, library: LibraryFolder, encoder: DescriptionEncoder, progress: Progress = quiet
) -> Change | None:
    """What makes an index answer for a library's records, or None if it does."""
    stamp = json_digest(record_stamps(library))
    if stamp == state.records:
        return None
    wanted = entries_of([r for r in records(library) if r["id"] is not None])
    known = {entry.id: entry for entry in state.entries()}
    new = [pair for identity, pair in wanted.items() if known.get(identity) != pair[0]]
    vectors = np.zeros((0, encoder.dimension), dtype=np.float32)
    if new:
        vectors = np.concatenate(list(_embedded([texts for _, texts in new], encoder, progress)))
    removed = tuple(sorted(known.keys() - wanted.keys()))
    return Change(tuple(entry for entry, _ in new), vectors, removed, stamp)


def _embedded(
    every: Sequence[Sequence[str]], encoder: DescriptionEncoder, progress: Progress
) -> Iterator[Vectors]:
    """For each adapter the vector of its first description and, if it has more, of their mean."""
    for start in range(0, len(every), AT_ONCE):
        part = every[start : start + AT_ONCE]
        flat = encoder.vectors([text for texts in part for text in texts]).double().numpy()
        ends = np.cumsum([len(texts) for texts in part])[:-1]
        yield np.concatenate([_rows(rows) for rows in np.split(flat, ends)])
        progress(start + len(part), len(every))


def _rows(vectors: Vectors) -> Vectors:
    if len(vectors) == 1:
        return vectors.astype(np.float32)
    mean = vectors.mean(axis=0)
    return np.stack([vectors[0], mean / np.linalg.norm(mean)]).astype(np.float32)
