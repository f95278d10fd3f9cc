"""Search in the service's library, which is followed as it changes."""

import time
from collections.abc import Callable

from api.service.metrics import Metrics
from api.service.store import Store
from generator.resources import FOLLOW_SECONDS
from index.encoders.descriptions import DescriptionEncoder
from index.search.plane import LibraryMap, Point
from index.search.searcher import Result, Searcher
from index.search.sources import By
from index.segments.metadata import Filter


class Searching:
    """Finds adapters of a library; the first search opens the index, or makes one.

    For one thread at a time.

    Args:
        library: folder or URL.
        store: holds the adapters that may be searched by.
        metrics: where the stages are measured.
        encoder: gives the description encoder, once it is loaded.
    """

    def __init__(
        self,
        library: str,
        store: Store,
        metrics: Metrics,
        encoder: Callable[[], DescriptionEncoder],
    ) -> None:
        self._library, self._store, self._encoder = library, store, encoder
        self._metrics = metrics
        self._searcher: Searcher | None = None
        self._followed = 0.0

    def search(
        self,
        owner: str | None,
        text: str | None,
        adapter: str | None,
        by: By | None,
        k: int,
        filter: Filter,
    ) -> list[Result]:
        """The adapters that are nearest to a text, an adapter of `owner`'s, or both."""
        stored = None if adapter is None else self._store.get(owner, adapter)
        files = None if stored is None else self._store.files(owner, stored)
        stages = self._metrics.stages("requests")
        return self._current().search(text, files, by=by, k=k, filter=filter, stages=stages)

    def map(self, text: str | None) -> tuple[LibraryMap, Point | None]:
        """The library's map, and where a text lies on it."""
        return self._current().map(text)

    def _current(self) -> Searcher:
        """The searcher, which has followed the library not long ago."""
        now = time.monotonic()
        if self._searcher is None:
            self._searcher = Searcher(self._library, self._encoder)
            self._followed = now
        elif now - self._followed > FOLLOW_SECONDS:
            self._searcher.follow()
            self._followed = now
        return self._searcher
