"""An index that many threads and processes read while one at a time changes it.

Readers take one reference to an immutable state and never wait. Changes go to the delta's log and
then into a new state; `compact` writes all that is there as a new generation, while changes go on,
and swaps at its end.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from index.encoders.descriptions import EncoderIdentity
from index.segments import change_log, faiss_file
from index.segments.change_log import Change
from index.segments.folder import Current, IndexFolder
from index.segments.metadata import EVERYTHING, Filter
from index.segments.segment import Hits, Query, Segment, owners_of
from index.segments.snapshot import (
    AGAIN,
    EncoderMismatch,
    IndexDamaged,
    Snapshot,
    read_snapshot,
    write_snapshot,
)
from index.segments.view import IndexView
from library.canonical import digest
from library.errors import OutputError

NO_CHANGE = Change()
TRIES = 5  # to open what is swapped again and again meanwhile


@dataclass(frozen=True)
class _Opened:
    """A state, and up to where of which generation it was read."""

    state: IndexView
    current: Current | None = None
    end: int = 0
    stamp: tuple[int, ...] = ()


class VectorIndex:
    """Adapters by the vectors of their descriptions, or of their weights.

    Args:
        encoder: by which vectors and queries are made.
        folder: where it lies, or will lie; None: in memory alone.
        note: is told what was mended.
    Raises:
        EncoderMismatch: it was made with another encoder.
        IndexDamaged: its files are.
    """

    def __init__(
        self,
        encoder: EncoderIdentity,
        folder: Path | None = None,
        note: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.encoder, self._note, self._keeps = encoder, note, True
        self._folder = None if folder is None else IndexFolder(folder)
        self._writing, self._opened = threading.RLock(), _Opened(IndexView.empty(encoder.dimension))
        # More searches at once than processors only hand Python's lock to and fro.
        self._seats = threading.BoundedSemaphore(os.cpu_count() or 1)
        self.refresh()

    @property
    def state(self) -> IndexView:
        return self._opened.state

    @property
    def place(self) -> str:
        """Where it lies, for a person."""
        return "in memory" if self._folder is None else str(self._folder.path)

    @property
    def exists(self) -> bool:
        """Whether it was ever written."""
        return self._opened.current is not None

    def search(self, query: Query, k: int, wanted: Filter = EVERYTHING, *, more: int = 0) -> Hits:
        """See State.search; every call sees one moment."""
        with self._seats:
            return self._opened.state.search(query, k, wanted, more=more)

    def refresh(self) -> None:
        """Take in what other processes changed. Who cannot have the lock is served as it was."""
        if self._folder is None or not self._writing.acquire(blocking=not self.exists):
            return
        try:
            self._refresh(self._folder)
        finally:
            self._writing.release()

    def apply(self, change: Change, *, keep: bool = True) -> None:
        """Add, replace and remove adapters: on the disk first, then for every later search.

        With `keep` false in memory alone; from then on this object writes nothing more.

        Raises OutputError; then nothing has changed.
        """
        with self._writing:
            self._keeps &= keep
            folder = self._folder
            if folder is None or not self._keeps:
                self._opened = replace(self._opened, state=self.state.changed(change))
                return
            self._refresh(folder)
            if self.exists:
                with folder.locked("write"):
                    self._append(folder, change)
                return
        self.compact(change)

    def _append(self, folder: IndexFolder, change: Change) -> None:
        self._refresh(folder)  # others may have been faster
        opened = self._opened
        assert opened.current is not None
        end = change_log.append_changes(folder.log(opened.current.generation), [change], opened.end)
        self._opened = replace(opened, state=opened.state.changed(change), end=end)

    def compact(self, change: Change = NO_CHANGE) -> None:
        """Write everything that is there, with a change on top, as a new generation; swap.

        Others read and change meanwhile; their changes are taken along. Raises OutputError.
        """
        folder = self._folder
        if folder is None or not self._keeps:
            raise OutputError("an index that is in memory alone cannot be written")
        with folder.locked("build"):
            with self._writing:
                self._refresh(folder)
                before = self._opened
            state = before.state if change is NO_CHANGE else before.state.changed(change)
            generation = folder.last_generation() + 1
            entries, vectors = tuple(state.entries()), state.vectors()
            manifest = write_snapshot(folder.snapshot(generation), self.encoder, entries, vectors)
            content = faiss_file.to_bytes(faiss_file.build_faiss(vectors, owners_of(entries)))
            kind = faiss_file.factory(len(vectors))
            made = Current(generation, manifest, kind, digest(content), state.records)
            with self._writing, folder.locked("write"):
                self._swap(folder, before, made, content)

    def _swap(self, folder: IndexFolder, before: _Opened, made: Current, content: bytes) -> None:
        """Make a generation the current one, with what was changed since it was begun."""
        old = before.current
        late = [] if old is None else self._changes(folder, old, before.end)
        if late:
            change_log.append_changes(folder.log(made.generation), late, 0)
            made = replace(made, records=late[-1].records)
        folder.write_faiss(made.generation, content)
        folder.publish(made)
        self._refresh(folder)
        folder.clean({made.generation} | ({old.generation} if old else set()))

    def _changes(self, folder: IndexFolder, current: Current, start: int) -> list[Change]:
        log = folder.log(current.generation)
        return [change for change, _ in change_log.read_changes(log, self.encoder.dimension, start)]

    def _refresh(self, folder: IndexFolder) -> None:
        for _ in range(TRIES):
            stamp = folder.stamp()
            try:
                opened = self._opened
                if stamp != opened.stamp:
                    opened = self._open(folder, stamp)
                self._opened = self._replayed(folder, opened)  # once: others are reading it
                return
            except FileNotFoundError:
                if folder.stamp() == stamp:
                    raise IndexDamaged(f"{folder.path} has lost files; {AGAIN}") from None
        raise IndexDamaged(f"{folder.path} changes too fast to be read")

    def _open(self, folder: IndexFolder, stamp: tuple[int, ...]) -> _Opened:
        current = folder.current()
        if current is None:
            return self._opened
        snapshot = read_snapshot(folder.snapshot(current.generation), current.manifest_sha256)
        require_same(snapshot.encoder, self.encoder, folder.path)
        faiss = self._faiss(folder, current, snapshot)
        part = Segment(snapshot.entries, snapshot.vectors, faiss)
        nothing = IndexView.empty(self.encoder.dimension).delta
        return _Opened(IndexView(part, None, nothing, current.records), current, 0, stamp)

    def _replayed(self, folder: IndexFolder, opened: _Opened) -> _Opened:
        """With what the log says since it was last read."""
        if opened.current is None:
            return opened
        state, reached = opened.state, opened.end
        log = folder.log(opened.current.generation)
        for change, end in change_log.read_changes(log, self.encoder.dimension, opened.end):
            state, reached = state.changed(change), end
        return replace(opened, state=state, end=reached)

    def _faiss(self, folder: IndexFolder, current: Current, snapshot: Snapshot) -> Any:
        """The FAISS index of a generation; made again if its file is not the one that was written.

        Raises FileNotFoundError where the generation is gone altogether.
        """
        found = faiss_file.read_faiss(folder.faiss(current.generation), current.faiss_sha256)
        if found is not None:
            return found
        made = faiss_file.build_faiss(snapshot.vectors, owners_of(snapshot.entries))
        self._note(f"{folder.faiss(current.generation)} was not as it was written; made again")
        content = faiss_file.to_bytes(made)
        try:
            with folder.locked("write"):
                if folder.current() == current:
                    folder.write_faiss(current.generation, content)
                    if digest(content) != current.faiss_sha256:
                        folder.publish(replace(current, faiss_sha256=digest(content)))
        except OutputError as error:
            self._note(f"{error}; it is made again at every start")
        return made


def require_same(theirs: EncoderIdentity, ours: EncoderIdentity, place: Path) -> None:
    """Raise EncoderMismatch if an index's vectors are not of our encoder."""
    if theirs != ours:
        raise EncoderMismatch(
            f"{place} was made with encoder {_named(theirs)}, not {_named(ours)}; name that one "
            f"with --encoder, or {AGAIN}"
        )


def _named(encoder: EncoderIdentity) -> str:
    prompt = f", prompt {encoder.prompt!r}" if encoder.prompt else ""
    return f"{encoder.name} (revision {encoder.revision[:12]}{prompt})"
