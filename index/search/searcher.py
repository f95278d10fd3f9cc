"""Search a library's adapters: by text, by an adapter's files, or by both."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from index.encoders.descriptions import DescriptionEncoder
from index.encoders.weights import WeightEncoder, load_weight_encoder
from index.search.confidence import margins, shipped_confidence
from index.search.own_encoders import own_encoder_names, own_source
from index.search.plane import LibraryMap, Point, map_of
from index.search.query import Files, QueryEncoder, base_of
from index.search.sources import By, DescriptionSource, VectorSource, WeightSource
from index.search.sync import OnNote, follow, open_index, quiet
from index.segments.index import VectorIndex
from index.segments.metadata import EVERYTHING, Filter
from index.segments.view import IndexView
from library.errors import AdapterFileError
from library.progress import Progress, no_progress
from library.stages import Stages, untimed
from library.store.open import open_library

MORE = 15  # results looked at beyond k, so that a margin rarely lacks another task


@dataclass(frozen=True)
class Result:
    """A search result.

    Attributes:
        score: cosine with the query.
        confidence: probability that it is the adapter of the described task, or of the same task
            as the query's adapter (index.search.confidence); None for what the library's own weight
            encoder found, as nobody measured that.
        by: what was compared.
    """

    id: str
    task: str
    score: float
    confidence: float | None
    by: By

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Searcher:
    """Search in one library, with indexes that follow the library's records.

    Args:
        location: folder or URL of the library.
        encoder: loads the encoder of descriptions; and
        weights: the weight encoder. Either is loaded when it is first needed, as is an index.
        progress: is called while adapters are encoded.
        note: is called with a sentence about what was repaired, or compared instead.
    Raises:
        MissingPath: there is no library.
    """

    def __init__(
        self,
        location: str,
        encoder: Callable[[], DescriptionEncoder],
        weights: Callable[[], WeightEncoder] = load_weight_encoder,
        *,
        progress: Progress = no_progress,
        note: OnNote = quiet,
    ) -> None:
        self.library, self._location = open_library(location), location
        self._progress, self._note = progress, note
        self._query_encoder = QueryEncoder(cache(encoder), cache(weights), note)
        self._indexes: dict[str, tuple[VectorIndex, VectorSource]] = {}
        self._own: dict[str, WeightSource] = {}
        self._map: tuple[IndexView, LibraryMap] | None = None  # views never change

    def follow(self) -> None:
        """Bring the indexes up to date with the library."""
        for index, source in self._indexes.values():
            follow(index, self.library, source)

    def search(
        self,
        text: str | None = None,
        adapter: Files | None = None,
        *,
        by: By | None = None,
        k: int = 10,
        filter: Filter = EVERYTHING,
        stages: Stages = untimed,
    ) -> list[Result]:
        """The k adapters most similar to a text, an adapter, or the mean of both.

        Args:
            adapter: the content of its files by name (library.peft.folder.read_adapter_folder).
            by: what is compared; see index.search.query.QueryEncoder.encode.
            stages: measures the embedding of the query and the lookup.
        Raises:
            UsageError: neither is given, the text is empty or too long, or k out of range.
            UnknownName: a filter that names nothing.
            NotSearchable: an adapter that cannot be searched by.
            EncoderMismatch, IndexDamaged: the library's own index cannot be used.
        """
        with stages("embed"):
            queries, own = self._query_encoder, self._own_source(adapter, by, filter.base)
            if own is not None:
                encoder = own.encoder
                queries = replace(queries, weights=lambda: encoder)
            query = queries.encode(text, adapter, by)
        own = own if query.by == "weights" else None
        index = self.index(query.by, own)
        with stages("retrieve"):
            hits = index.search(query.vector, k, filter, more=MORE)
        if not len(index.view):
            self._note(f"the library holds no adapter whose {query.by} can be compared")
        scores = [score for score, _ in hits]
        gaps = margins(scores, [entry.task for _, entry in hits])
        shipped = None if own is not None else shipped_confidence(query.kind)
        return [
            Result(entry.id, entry.task, min(score, 1.0), sure, query.by)
            for (score, entry), margin in list(zip(hits, gaps, strict=True))[:k]
            for sure in [shipped and shipped.confidence(score, margin)]
        ]

    def map(self, text: str | None = None) -> tuple[LibraryMap, Point | None]:
        """The library's map by descriptions, and where a text lies on it. Raises as `search`."""
        view = self.index("description").view
        if self._map is None or self._map[0] is not view:
            self._map = view, map_of(view)
        found = self._map[1]
        if text is None:
            return found, None
        return found, found.place(self._query_encoder.encode(text, None, "description").vector)

    def index(self, by: By, own: WeightSource | None = None) -> VectorIndex:
        """One of the library's indexes, opened once. Raises as `open_index` does.

        Args:
            own: of weights: by the library's own encoder in place of the given one.
        """
        key = by if own is None else own.folder
        if key not in self._indexes:
            encoder = self._query_encoder
            source = own or (
                WeightSource(encoder.weights())
                if by == "weights"
                else DescriptionSource(encoder.descriptions())
            )
            index = open_index(self._location, source, self._progress, self._note)
            self._indexes[key] = index, source
        return self._indexes[key][0]

    def _own_source(
        self, adapter: Files | None, by: By | None, base: str | None
    ) -> WeightSource | None:
        """The library's own encoder for an adapter's base, or `base`; None for the given one.

        Without either, a text is compared by an own encoder where the given one knows no adapter.
        """
        names = own_encoder_names(self._location)
        if not names or by == "description" or (adapter is None and by is None):
            return None
        own = {n: self._own.get(n) or own_source(self._location, n) for n in names}
        self._own = own
        if adapter is not None:
            with suppress(AdapterFileError):  # which the query's encoder will say
                base = base_of(adapter)
        elif base is None and not len(self.index("weights").view):
            return own[names[0]]
        if base is None or self._query_encoder.weights().is_for(base):
            return None
        return next((source for source in own.values() if source.encoder.is_for(base)), None)
