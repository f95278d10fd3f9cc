"""Search a library's adapters: by text, by an adapter's files, or by both."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from index.encoders.descriptions import DescriptionEncoder
from index.encoders.weights import WeightEncoder, load_weight_encoder
from index.search.confidence import margins, shipped_confidence
from index.search.query import Files, QueryEncoder
from index.search.sources import By, DescriptionSource, VectorSource, WeightSource
from index.search.sync import Note, Progress, follow, open_index, quiet
from index.segments.index import VectorIndex
from index.segments.metadata import EVERYTHING, Filter
from library.store.open import open_library

MORE = 15  # results looked at beyond those asked for, so that a margin rarely lacks another task


@dataclass(frozen=True)
class Result:
    """An adapter that was found.

    Attributes:
        score: cosine with the query.
        confidence: how likely it is the adapter of the described task, or of the same task as the
            adapter that was asked by (index.search.confidence).
        by: what was compared.
    """

    id: str
    task: str
    score: float
    confidence: float
    by: By

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Searcher:
    """What answers searches in one library, with indexes that follow the library's records.

    Args:
        place: folder or URL of the library.
        encoder: gives the encoder of descriptions; and
        weights: the weight encoder. Either is asked for when it is first needed, as is an index.
        progress, note: are told what takes long, and what was mended.
    Raises:
        MissingPath: there is no library.
    """

    def __init__(
        self,
        place: str,
        encoder: Callable[[], DescriptionEncoder],
        weights: Callable[[], WeightEncoder] = load_weight_encoder,
        *,
        progress: Progress = quiet,
        note: Note = quiet,
    ) -> None:
        self.library, self._place = open_library(place), place
        self._progress, self._note = progress, note
        self._asker = QueryEncoder(cache(encoder), cache(weights), note)
        self._opened: dict[By, tuple[VectorIndex, VectorSource]] = {}

    def follow(self) -> None:
        """Take in what changed in the library, or in its indexes, since."""
        for index, contents in self._opened.values():
            follow(index, self.library, contents)

    def search(
        self,
        text: str | None = None,
        adapter: Files | None = None,
        *,
        by: By | None = None,
        k: int = 10,
        wanted: Filter = EVERYTHING,
    ) -> list[Result]:
        """The k adapters nearest to a text, an adapter, or the mean of both.

        Args:
            adapter: the content of its files by name (library.peft.folder).
            by: what is compared; see index.search.query.Asker.ask.
        Raises:
            UsageError: neither is given, the text is empty or too long, or k out of range.
            UnknownName: a filter that names nothing.
            NotSearchable: an adapter that cannot be searched by.
            EncoderMismatch, IndexDamaged: the library's own index cannot be used.
        """
        asked = self._asker.ask(text, adapter, by)
        index = self.index(asked.by)
        hits = index.search(asked.vector, k, wanted, more=MORE)
        if not len(index.state):
            self._note(f"the library holds no adapter whose {asked.by} can be compared")
        scores = [score for score, _ in hits]
        gaps = margins(scores, [entry.task for _, entry in hits])
        confidence = shipped_confidence(asked.kind).confidence
        return [
            Result(entry.id, entry.task, min(score, 1.0), confidence(score, margin), asked.by)
            for (score, entry), margin in list(zip(hits, gaps, strict=True))[:k]
        ]

    def index(self, by: By) -> VectorIndex:
        """One of the library's indexes, opened once, or made. Raises as `open_index` does."""
        if by not in self._opened:
            contents = self._contents(by)
            index = open_index(self._place, contents, self._progress, self._note)
            self._opened[by] = index, contents
        return self._opened[by][0]

    def _contents(self, by: By) -> VectorSource:
        if by == "weights":
            return WeightSource(self._asker.weights())
        return DescriptionSource(self._asker.encoder())
