"""Search a library's adapters: by text, by an adapter's files, or by both."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from index.confidence import margins, shipped
from index.encoder import DescriptionEncoder, InvalidDescription, normalise
from index.entries import EVERYTHING, Filter
from index.library_index import Note, Progress, follow, open_index, quiet
from index.parts import Query
from library.catalogue import open_library
from library.errors import AdapterFileError, MissingPath, UsageError
from library.peft_io import CONFIG_FILE
from library.provenance import PROVENANCE_FILE

MORE = 15  # results looked at beyond those asked for, so that a margin rarely lacks another task


@dataclass(frozen=True)
class Result:
    """An adapter that was found.

    Attributes:
        score: cosine with the query.
        confidence: how likely it is the adapter of the described task (index.confidence).
    """

    id: str
    task: str
    score: float
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Searcher:
    """What answers searches in one library, with an index that follows the library's records.

    Args:
        place: folder or URL of the library.
        encoder: of descriptions.
        progress, note: are told what takes long, and what was mended.
    Raises as index.library_index.open_index does.
    """

    def __init__(
        self,
        place: str,
        encoder: DescriptionEncoder,
        progress: Progress = quiet,
        note: Note = quiet,
    ) -> None:
        self.encoder, self.library = encoder, open_library(place)
        self.index = open_index(place, encoder, progress, note)

    def follow(self) -> None:
        """Take in what changed in the library, or in its index, since."""
        follow(self.index, self.library, self.encoder)

    def search(
        self,
        text: str | None = None,
        adapter: Path | None = None,
        *,
        k: int = 10,
        wanted: Filter = EVERYTHING,
    ) -> list[Result]:
        """The k adapters nearest to a text, an adapter's files, or the mean of both.

        Raises:
            UsageError: neither is given, the text is empty or too long, or k out of range.
            UnknownName: a filter that names nothing.
            MissingPath, AdapterFileError: no adapter there, or none that can be searched by.
        """
        hits = self.index.search(self._query(text, adapter), k, wanted, more=MORE)
        scores = [score for score, _ in hits]
        gaps = margins(scores, [entry.task for _, entry in hits])
        return [
            Result(entry.id, entry.task, min(score, 1.0), shipped().confidence(score, margin))
            for (score, entry), margin in list(zip(hits, gaps, strict=True))[:k]
        ]

    def _query(self, text: str | None, adapter: Path | None) -> Query:
        vectors = [] if text is None else [embed_text(text, self.encoder)]
        if adapter is not None:
            vectors.append(embed_adapter(adapter, self.encoder))
        if not vectors:
            raise UsageError("search needs a text, or an adapter's folder")
        mean = np.mean(vectors, axis=0)
        return (mean / np.linalg.norm(mean)).astype(np.float32)


def embed_text(text: str, encoder: DescriptionEncoder) -> Query:
    """A text as a unit vector. Raises InvalidDescription."""
    return encoder.vectors([normalise(text)])[0].double().numpy()


def embed_adapter(place: Path, encoder: DescriptionEncoder) -> Query:
    """An adapter's files as a unit vector among those of descriptions: its own description's.

    Args:
        place: its folder, or a file in it.
    Raises:
        MissingPath: nothing is there.
        AdapterFileError: it is no adapter, or says nowhere what it is for.
    """
    if not place.exists():
        raise MissingPath(f"there is no adapter at {place}")
    folder = place if place.is_dir() else place.parent
    if not (folder / CONFIG_FILE).is_file():
        raise AdapterFileError(f"{folder} holds no adapter: there is no {CONFIG_FILE}")
    try:
        provenance = json.loads((folder / PROVENANCE_FILE).read_bytes())
        return embed_text(provenance["description"], encoder)
    except (OSError, ValueError, KeyError, TypeError, InvalidDescription) as error:
        raise AdapterFileError(
            f"the adapter in {folder} cannot be searched by: "
            f"its {PROVENANCE_FILE} holds no description"
        ) from error
