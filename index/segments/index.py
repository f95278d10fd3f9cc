"""An index that many threads and processes read while one at a time changes it.

Readers take one reference to an immutable view and never wait. Changes go to the change log and
then into a new view; `compact` writes everything as a new generation, while changes go on, and
swaps at its end.

Locks, in the order in which they are taken; who has one takes none that stands above it:

    1. "build", a file lock    one generation is written at a time, by one thread of all processes;
                               it is held for as long as that takes
    2. `_update`, an RLock     one thread at a time replaces what this object has opened
    3. "write", a file lock    one thread of all processes appends to the log, swaps generations or
                               replaces a FAISS file; it is held for a moment
    4. `_slots`, a semaphore   as many searches at once as there are processors; no other lock is
                               taken inside
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from index.encoders.descriptions import EncoderIdentity
from index.segments.change_log import Change, append_changes, read_changes
from index.segments.faiss_file import build_faiss, factory, read_faiss, to_bytes
from index.segments.folder import Generation, IndexFolder
from index.segments.metadata import EVERYTHING, Filter
from index.segments.segment import Hits, Segment, Vector, owners_of
from index.segments.snapshot import (
    REBUILD,
    EncoderMismatch,
    IndexDamaged,
    Snapshot,
    read_snapshot,
    write_snapshot,
)
from index.segments.view import IndexView
from library.canonical import digest
from library.errors import OutputError
from library.files import write_file

OPEN_ATTEMPTS = 5  # at files that others swap again and again meanwhile


@dataclass(frozen=True)
class _Opened:
    """A view, and how far of which generation's log it was read."""

    view: IndexView
    current: Generation | None = None
    end: int = 0
    version: tuple[int, ...] = ()


class VectorIndex:
    """Adapters by the vectors of their descriptions, or of their weights.

    Args:
        encoder: the one that makes vectors and queries.
        folder: of its files, present or not yet; None: in memory alone.
        note: is called with a sentence when something was repaired.
    Raises:
        EncoderMismatch: it was made with another encoder.
        IndexDamaged: its files are damaged.
    """

    def __init__(
        self,
        encoder: EncoderIdentity,
        folder: Path | None = None,
        note: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.encoder, self._note, self._persistent = encoder, note, True
        self._folder = None if folder is None else IndexFolder(folder)
        self._opened = _Opened(IndexView.empty(encoder.dimension))
        self._update = threading.RLock()
        # More searches at once than processors only pass Python's lock to and fro.
        self._slots = threading.BoundedSemaphore(os.cpu_count() or 1)
        self.refresh()

    @property
    def view(self) -> IndexView:
        return self._opened.view

    @property
    def location(self) -> str:
        """Its folder, for messages."""
        return "in memory" if self._folder is None else str(self._folder.path)

    @property
    def exists(self) -> bool:
        """True once it was written."""
        return self._opened.current is not None

    def search(self, query: Vector, k: int, filter: Filter = EVERYTHING, *, more: int = 0) -> Hits:
        """See IndexView.search; every call sees one moment."""
        with self._slots:
            return self.view.search(query, k, filter, more=more)

    def refresh(self) -> None:
        """Read what other processes changed. If the lock is taken, keep the current view."""
        if self._folder is None or not self._update.acquire(blocking=not self.exists):
            return
        try:
            self._refresh(self._folder)
        finally:
            self._update.release()

    def apply(self, change: Change, *, persist: bool = True) -> None:
        """Add, replace and remove adapters: on the disk first, then for every later search.

        With `persist` false in memory alone; from then on this object writes nothing more.

        Raises OutputError; then nothing has changed.
        """
        with self._update:
            self._persistent &= persist
            folder = self._folder
            if folder is None or not self._persistent:
                self._opened = replace(self._opened, view=self.view.after(change))
                return
            self._refresh(folder)
            if self.exists:
                with folder.locked("write"):
                    self._refresh(folder)  # others may have written before
                    opened = self._opened
                    assert opened.current is not None
                    log = folder.log(opened.current.generation)
                    end = append_changes(log, [change], opened.end)
                self._opened = replace(opened, view=opened.view.after(change), end=end)
                return
        self.compact(change)  # takes the lock "build", so outside `_update`

    def compact(self, change: Change | None = None) -> None:
        """Write everything, with a change on top, as a new generation; swap.

        Others read and change meanwhile; their changes are included. Raises OutputError.
        """
        folder = self._folder
        if folder is None or not self._persistent:
            raise OutputError("an index that is in memory alone cannot be written")
        with folder.locked("build"):
            # 1. The view to write.
            with self._update:
                self._refresh(folder)
                before = self._opened
            view = before.view if change is None else before.view.after(change)
            # 2. Its files; this takes long, and no lock that others need is held.
            number = folder.last_generation() + 1
            entries, vectors = tuple(view.entries()), view.vectors()
            manifest = write_snapshot(folder.snapshot(number), self.encoder, entries, vectors)
            faiss = to_bytes(build_faiss(vectors, owners_of(entries)))
            generation = Generation(
                number, manifest, factory(len(vectors)), digest(faiss), view.records
            )
            # 3. The swap.
            with self._update, folder.locked("write"):
                self._swap(folder, before, generation, faiss)

    def _swap(
        self, folder: IndexFolder, before: _Opened, generation: Generation, faiss: bytes
    ) -> None:
        """Make a generation the current one, with the changes made since it was begun."""
        keep = {generation.generation}
        # 1. Late changes go from the old log to the new one.
        if before.current is not None:
            keep.add(before.current.generation)
            log = folder.log(before.current.generation)
            late = [change for change, _ in read_changes(log, self.encoder.dimension, before.end)]
            if late:
                append_changes(folder.log(generation.generation), late, 0)
                generation = replace(generation, records=late[-1].records)
        # 2. current.json last: until then the old generation counts.
        write_file(folder.faiss(generation.generation), faiss)
        folder.publish(generation)
        # 3. The view is of the new files; older ones go.
        self._refresh(folder)
        folder.clean(keep)

    def _refresh(self, folder: IndexFolder) -> None:
        """Bring `_opened` up to date with the files; needs `_update`."""
        for _ in range(OPEN_ATTEMPTS):
            version = folder.version()
            try:
                # 1. A new snapshot if generations were swapped.
                opened = self._opened
                if version != opened.version:
                    opened = self._open(folder, version)
                # 2. The rest of the log. 3. One assignment, as others are reading.
                self._opened = self._replayed(folder, opened)
                return
            except FileNotFoundError:  # swapped and cleaned meanwhile
                if folder.version() == version:
                    raise IndexDamaged(f"{folder.path} has lost files; {REBUILD}") from None
        raise IndexDamaged(f"{folder.path} changes too fast to be read")

    def _open(self, folder: IndexFolder, version: tuple[int, ...]) -> _Opened:
        current = folder.current()
        if current is None:
            return self._opened
        snapshot = read_snapshot(folder.snapshot(current.generation), current.manifest_sha256)
        require_same_encoder(snapshot.encoder, self.encoder, folder.path)
        faiss = self._faiss(folder, current, snapshot)
        segment = Segment(snapshot.entries, snapshot.vectors, faiss)
        nothing = IndexView.empty(self.encoder.dimension).added
        return _Opened(IndexView(segment, None, nothing, current.records), current, 0, version)

    def _replayed(self, folder: IndexFolder, opened: _Opened) -> _Opened:
        """The view after what the log has gained since it was last read."""
        if opened.current is None:
            return opened
        view, reached = opened.view, opened.end
        log = folder.log(opened.current.generation)
        for change, end in read_changes(log, self.encoder.dimension, opened.end):
            view, reached = view.after(change), end
        return replace(opened, view=view, end=reached)

    def _faiss(self, folder: IndexFolder, current: Generation, snapshot: Snapshot) -> Any:
        """The FAISS index of a generation; rebuilt if its file is not the one that was written.

        Raises FileNotFoundError if the generation is gone altogether.
        """
        stored = read_faiss(folder.faiss(current.generation), current.faiss_sha256)
        if stored is not None:
            return stored
        rebuilt = build_faiss(snapshot.vectors, owners_of(snapshot.entries))
        self._note(f"{folder.faiss(current.generation)} was missing or changed, and is rebuilt")
        content = to_bytes(rebuilt)
        try:
            with folder.locked("write"):
                if folder.current() == current:
                    write_file(folder.faiss(current.generation), content)
                    if digest(content) != current.faiss_sha256:  # by another FAISS
                        folder.publish(replace(current, faiss_sha256=digest(content)))
        except OutputError as error:
            self._note(f"{error}; it is rebuilt at every start")
        return rebuilt


def require_same_encoder(actual: EncoderIdentity, expected: EncoderIdentity, index: Path) -> None:
    """Raise EncoderMismatch if an index's vectors are of another encoder than expected."""
    if actual != expected:
        raise EncoderMismatch(
            f"{index} was made with encoder {_named(actual)}, not {_named(expected)}; name that "
            f"one with --encoder, or {REBUILD}"
        )


def _named(encoder: EncoderIdentity) -> str:
    prompt = f", prompt {encoder.prompt!r}" if encoder.prompt else ""
    return f"{encoder.name} (revision {encoder.revision[:12]}{prompt})"
