"""The two kinds of rows that a search looks through: a snapshot's behind FAISS, and the delta's.

Both are immutable: what is added or removed makes another one. An adapter's score is the cosine of
the query with its weights' vector; or with that of its main description, or of the mean of all its
descriptions if that is higher.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int64

from index.segments.metadata import Filter, IndexEntry

Vectors: TypeAlias = Float[np.ndarray, "rows d"]
Query: TypeAlias = Float[np.ndarray, " d"]
Mask: TypeAlias = Bool[np.ndarray, " entries"]
Hits: TypeAlias = list[tuple[float, IndexEntry]]
Found: TypeAlias = Iterator[tuple[int, float]]  # places of adapters and scores, best first

EXACT = 20_000  # so many rows or fewer are compared one by one
REMEMBERED = 16  # filters


class Segment:
    """Adapters and their vectors.

    Args:
        entries: the adapters.
        vectors: their unit vectors, adapter by adapter.
        faiss: a FAISS index over the same rows, whose ids are places in `entries`; without one
            every row is compared.
    """

    def __init__(
        self, entries: Sequence[IndexEntry], vectors: Vectors, faiss: Any | None = None
    ) -> None:
        self.entries, self.vectors, self.faiss = entries, vectors, faiss
        self.owners = owners_of(entries)
        self.most = max((entry.rows for entry in entries), default=1)
        self._masks: dict[Filter, Mask] = {}

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each adapter stands in `entries`, by id."""
        return {entry.id: place for place, entry in enumerate(self.entries)}

    def allowed(self, wanted: Filter) -> Mask:
        """Which adapters a filter lets through; remembered, as it is asked again and again."""
        mask = self._masks.get(wanted)
        if mask is None:
            matching = (wanted.matches(entry) for entry in self.entries)
            mask = np.fromiter(matching, bool, len(self.entries))
            if len(self._masks) >= REMEMBERED:
                self._masks.clear()
            self._masks[wanted] = mask
        return mask

    def nearest(self, query: Query, k: int, live: Mask | None, wanted: Filter) -> Hits:
        """The k adapters that are most alike, best first.

        Args:
            query: a unit vector.
            live: which of the entries are still there; None: all.
        """
        mask = live
        if wanted.conditions:
            allowed = self.allowed(wanted)
            mask = allowed if live is None else allowed & live
        wanted_rows = self.most * (len(self.entries) if mask is None else int(mask.sum()))
        if self.faiss is None or wanted_rows == 0 or (mask is not None and wanted_rows <= EXACT):
            places = self._compared(query, k, mask)
        else:
            places = self._asked(query, k, mask)
        return [(score, self.entries[place]) for place, score in itertools.islice(places, k)]

    def _compared(self, query: Query, k: int, mask: Mask | None) -> Found:
        """The best of every row; so many that they are at least k adapters'."""
        from index.segments.faiss_file import faiss_inner_products

        rows = slice(None) if mask is None else np.flatnonzero(mask[self.owners])
        scores, owners = faiss_inner_products(self.vectors[rows], query), self.owners[rows]
        if len(scores) > k * self.most:
            best = np.argpartition(-scores, k * self.most)[: k * self.most]
            scores, owners = scores[best], owners[best]
        order = np.argsort(-scores, kind="stable")
        return distinct(owners[order], scores[order])

    def _asked(self, query: Query, k: int, mask: Mask | None) -> Found:
        """What FAISS finds: more rows than k, as several may be one adapter's."""
        from index.segments.faiss_file import search_faiss

        rows = len(self.owners)
        fetch = min(rows, k * self.most)
        while True:
            scores, owners = search_faiss(self.faiss, query, fetch, mask)
            found = list(distinct(owners, scores))
            if len(found) >= k or len(owners) < fetch or fetch == rows:
                return iter(found)
            fetch = min(rows, 4 * fetch)


def distinct(owners: Int64[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> Found:
    """Pairs of an adapter's place and its score, from rows that are sorted: the first counts."""
    seen: set[int] = set()
    for owner, score in zip(owners.tolist(), scores.tolist(), strict=True):
        if owner not in seen:
            seen.add(owner)
            yield owner, score


def owners_of(entries: Sequence[IndexEntry]) -> Int64[np.ndarray, " rows"]:
    """For every row of vectors the place of the adapter that it describes."""
    counts = np.fromiter((entry.rows for entry in entries), np.int64, len(entries))
    return np.repeat(np.arange(len(entries), dtype=np.int64), counts)
