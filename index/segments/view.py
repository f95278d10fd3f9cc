"""A view: what one search sees from its start to its end, a snapshot and the changes since."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from index.segments.change_log import Change
from index.segments.metadata import EVERYTHING, Filter, IndexEntry, require_known_values
from index.segments.segment import Hits, Mask, Segment, Vector, Vectors
from library.errors import UsageError

MAX_RESULTS = 1000


@dataclass(frozen=True)
class IndexView:
    """An index at one moment; a change makes another view.

    Attributes:
        live: which adapters of the snapshot still count; None: all.
        added: adapters added since the snapshot.
        records: stamp of the library's records that it answers for.
    """

    snapshot: Segment
    live: Mask | None
    added: Segment
    records: str = ""

    @classmethod
    def empty(cls, dimension: int) -> "IndexView":
        nothing = Segment((), np.zeros((0, dimension), dtype=np.float32))
        return cls(nothing, None, nothing)

    def __len__(self) -> int:
        stored = len(self.snapshot.entries) if self.live is None else int(self.live.sum())
        return stored + len(self.added.entries)

    @property
    def rows(self) -> int:
        """Number of vectors."""
        return sum(entry.rows for entry in self.entries())

    @property
    def is_snapshot(self) -> bool:
        """True if nothing was added or removed since the snapshot."""
        return self.live is None and not self.added.entries

    def search(self, query: Vector, k: int, filter: Filter = EVERYTHING, *, more: int = 0) -> Hits:
        """The k most similar adapters, best first; equals by task and id.

        Args:
            query: a unit vector.
            more: how many to return beyond k, if there are.
        Raises UsageError if k is not from 1 to 1,000, UnknownName for a filter that names nothing.
        """
        require_k(k)
        k += more
        hits = [
            *self.snapshot.nearest(query, k, self.live, filter),
            *self.added.nearest(query, k, None, filter),
        ]
        if not hits:
            require_known_values(filter, self.entries())
        return sorted(hits, key=lambda hit: (-hit[0], hit[1].task, hit[1].id))[:k]

    def entries(self) -> Iterator[IndexEntry]:
        """Every adapter."""
        for position, entry in enumerate(self.snapshot.entries):
            if self.live is None or self.live[position]:
                yield entry
        yield from self.added.entries

    def vectors(self) -> Vectors:
        """The vectors of all of them, in the same order."""
        rows = self.snapshot.vectors
        if self.live is not None:
            rows = rows[self.live[self.snapshot.owners]]
        return joined(rows, self.added.vectors)

    def after(self, change: Change) -> "IndexView":
        """The view with adapters added, replaced and removed."""
        gone = {*change.removed, *(entry.id for entry in change.added)}
        # 1. Rows of the snapshot are never moved, only masked.
        positions, live = self.snapshot.positions, self.live
        masked = [positions[identity] for identity in gone if identity in positions]
        if masked:
            live = np.ones(len(positions), dtype=bool) if live is None else live.copy()
            live[masked] = False
        # 2. What was added since is small and is copied.
        entries, vectors = self.added.entries, self.added.vectors
        if gone & self.added.positions.keys():
            keep = np.array([entry.id not in gone for entry in entries], dtype=bool)
            vectors = vectors[keep[self.added.owners]]
            entries = tuple(entry for entry in entries if entry.id not in gone)
        if change.added:
            entries, vectors = (*entries, *change.added), joined(vectors, change.vectors)
        return IndexView(self.snapshot, live, Segment(entries, vectors), change.records)


def joined(
    rows: Float[np.ndarray, "n d"], more: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "total d"]:
    """One behind the other; not copied where one is empty, as both can be large."""
    if len(rows) and len(more):
        return np.concatenate([rows, more])
    return rows if len(rows) else more


def require_k(k: int) -> None:
    """Raise UsageError unless k results may be requested."""
    if not 1 <= k <= MAX_RESULTS:
        raise UsageError(f"k must be from 1 to {MAX_RESULTS:,}, not {k}")
