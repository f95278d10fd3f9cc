"""A segment: adapters with their vectors, as a snapshot behind FAISS, or added since.

Segments are immutable: what is added or removed makes another one. An adapter's score is the cosine
of the query with its weights' vector; or with that of its main description, or of the mean of all
its descriptions if that is higher.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int64

from index.segments.metadata import Filter, IndexEntry

Vectors: TypeAlias = Float[np.ndarray, "rows d"]
Vector: TypeAlias = Float[np.ndarray, " d"]
Mask: TypeAlias = Bool[np.ndarray, " entries"]
Hits: TypeAlias = list[tuple[float, IndexEntry]]  # scores and adapters, best first
Ranking: TypeAlias = Iterator[tuple[int, float]]  # positions of adapters and scores, best first

SCAN_UP_TO = 20_000  # so many rows or fewer are compared one by one
CACHED_MASKS = 16  # filters


class Segment:
    """Adapters and their vectors.

    Args:
        entries: the adapters.
        vectors: their unit vectors, adapter by adapter.
        faiss: a FAISS index over the same rows, whose ids are positions in `entries`; without one
            every row is compared.
    """

    def __init__(
        self, entries: Sequence[IndexEntry], vectors: Vectors, faiss: Any | None = None
    ) -> None:
        self.entries, self.vectors, self.faiss = entries, vectors, faiss
        self.owners = owners_of(entries)
        self.max_rows = max((entry.rows for entry in entries), default=1)  # of one adapter
        self._masks: dict[Filter, Mask] = {}

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position of each adapter in `entries`, by id."""
        return {entry.id: position for position, entry in enumerate(self.entries)}

    def nearest(self, query: Vector, k: int, live: Mask | None, filter: Filter) -> Hits:
        """The k most similar adapters, best first.

        Args:
            query: a unit vector.
            live: which of the entries still count; None: all.
        """
        mask = live
        if filter.conditions:
            matching = self._matching(filter)
            mask = matching if live is None else matching & live
        rows = self.max_rows * (len(self.entries) if mask is None else int(mask.sum()))
        if self.faiss is None or rows == 0 or (mask is not None and rows <= SCAN_UP_TO):
            ranking = self._scan(query, k, mask)
        else:
            ranking = self._search_faiss(query, k, mask)
        return [(score, self.entries[position]) for position, score in itertools.islice(ranking, k)]

    def _matching(self, filter: Filter) -> Mask:
        """The adapters that match a filter; cached, as the same filters come again and again."""
        mask = self._masks.get(filter)
        if mask is None:
            mask = np.array([filter.matches(entry) for entry in self.entries], dtype=bool)
            if len(self._masks) >= CACHED_MASKS:
                self._masks.clear()
            self._masks[filter] = mask
        return mask

    def _scan(self, query: Vector, k: int, mask: Mask | None) -> Ranking:
        """Every row compared; the best k · max_rows rows belong to at least k adapters."""
        from index.segments.faiss_file import faiss_inner_products

        rows = slice(None) if mask is None else np.flatnonzero(mask[self.owners])
        scores, owners = faiss_inner_products(self.vectors[rows], query), self.owners[rows]
        if len(scores) > k * self.max_rows:
            best = np.argpartition(-scores, k * self.max_rows)[: k * self.max_rows]
            scores, owners = scores[best], owners[best]
        order = np.argsort(-scores, kind="stable")
        return distinct(owners[order], scores[order])

    def _search_faiss(self, query: Vector, k: int, mask: Mask | None) -> Ranking:
        """More rows than k from FAISS, as several may be one adapter's."""
        from index.segments.faiss_file import search_faiss

        rows = len(self.owners)
        fetch = min(rows, k * self.max_rows)
        while True:
            scores, owners = search_faiss(self.faiss, query, fetch, mask)
            ranking = list(distinct(owners, scores))
            if len(ranking) >= k or len(owners) < fetch or fetch == rows:
                return iter(ranking)
            fetch = min(rows, 4 * fetch)


def distinct(owners: Int64[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> Ranking:
    """Each adapter's position with its first score, from rows that are sorted by score."""
    seen: set[int] = set()
    for owner, score in zip(owners.tolist(), scores.tolist(), strict=True):
        if owner not in seen:
            seen.add(owner)
            yield owner, score


def owners_of(entries: Sequence[IndexEntry]) -> Int64[np.ndarray, " rows"]:
    """For every row of vectors the position of the adapter that it describes."""
    counts = [entry.rows for entry in entries]
    return np.repeat(np.arange(len(entries), dtype=np.int64), np.array(counts, dtype=np.int64))
