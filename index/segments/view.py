"""What one search sees from its start to its end: a snapshot, less what is gone, and the delta."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from index.segments.change_log import Change
from index.segments.metadata import EVERYTHING, Filter, IndexEntry, require_known_values
from index.segments.segment import Hits, Mask, Query, Segment, Vectors
from library.errors import UsageError

MOST = 1000  # results


@dataclass(frozen=True)
class IndexView:
    """An index at one moment; a change makes another one.

    Attributes:
        live: which adapters of the snapshot still count; None: all.
        records: stamp of the library's records that it answers for.
    """

    snapshot: Segment
    live: Mask | None
    delta: Segment
    records: str = ""

    @classmethod
    def empty(cls, dimension: int) -> "IndexView":
        nothing = Segment((), np.zeros((0, dimension), dtype=np.float32))
        return cls(nothing, None, nothing)

    def __len__(self) -> int:
        there = len(self.snapshot.entries) if self.live is None else int(self.live.sum())
        return there + len(self.delta.entries)

    @property
    def rows(self) -> int:
        """How many vectors there are."""
        return sum(entry.rows for entry in self.entries())

    @property
    def has_delta(self) -> bool:
        """Whether anything was added to the snapshot, or removed."""
        return self.live is not None or bool(self.delta.entries)

    def search(self, query: Query, k: int, wanted: Filter = EVERYTHING, *, more: int = 0) -> Hits:
        """The k adapters whose vectors are most alike, best first; equals by task and id.

        Args:
            query: a unit vector.
            more: how many to return beyond k, if there are.
        Raises UsageError if k is not from 1 to 1,000, UnknownName for a filter that names nothing.
        """
        require_k(k)
        k += more
        found = [
            *self.snapshot.nearest(query, k, self.live, wanted),
            *self.delta.nearest(query, k, None, wanted),
        ]
        if not found and wanted.conditions:
            require_known_values(wanted, self.entries())
        return sorted(found, key=lambda hit: (-hit[0], hit[1].task, hit[1].id))[:k]

    def entries(self) -> Iterator[IndexEntry]:
        """Every adapter that is there."""
        for place, entry in enumerate(self.snapshot.entries):
            if self.live is None or self.live[place]:
                yield entry
        yield from self.delta.entries

    def vectors(self) -> Vectors:
        """The vectors of all of them, in the same order."""
        rows = self.snapshot.vectors
        if self.live is not None:
            rows = rows[self.live[self.snapshot.owners]]
        return joined(rows, self.delta.vectors)

    def changed(self, change: Change) -> "IndexView":
        """With adapters added, replaced and removed."""
        gone = {*change.removed, *(entry.id for entry in change.added)}
        return IndexView(
            self.snapshot, self._live_without(gone), self._delta_with(change, gone), change.records
        )

    def _live_without(self, gone: set[str]) -> Mask | None:
        known = self.snapshot.places
        places = [known[identity] for identity in gone if identity in known]
        if not places:
            return self.live
        live = np.ones(len(known), dtype=bool) if self.live is None else self.live.copy()
        live[places] = False
        return live

    def _delta_with(self, change: Change, gone: set[str]) -> Segment:
        entries, vectors = self.delta.entries, self.delta.vectors
        if gone & self.delta.places.keys():
            kept = np.array([entry.id not in gone for entry in entries], dtype=bool)
            vectors = vectors[kept[self.delta.owners]]
            entries = tuple(entry for entry in entries if entry.id not in gone)
        if not change.added:
            return Segment(entries, vectors)
        return Segment((*entries, *change.added), joined(vectors, change.vectors))


def joined(
    rows: Float[np.ndarray, "n d"], more: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "total d"]:
    """One behind the other; not copied where one is empty, as both can be large."""
    if len(rows) and len(more):
        return np.concatenate([rows, more])
    return rows if len(rows) else more


def require_k(k: int) -> None:
    """Raise UsageError unless so many results may be asked for."""
    if not 1 <= k <= MOST:
        raise UsageError(f"k must be from 1 to {MOST:,}, not {k}")
