"""What is searched by, as a vector: a text, an adapter's files, or both.

In the index of descriptions an adapter stands for its own description; in that of weights a text
goes through the weight encoder's map into the space of the weights. Text and adapter together are
the mean of their unit vectors, in the space of the weights a weighted one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from index.encoders.descriptions import DescriptionEncoder, InvalidDescription, normalise
from index.encoders.weights import WeightEncoder
from index.search.confidence import Kind
from index.search.sources import By, vector_of
from index.segments.segment import Query
from library.errors import (
    AdapterFileError,
    LayoutMismatch,
    LorasmithError,
    UsageError,
)
from library.peft.config import parse_config
from library.peft.provenance import PROVENANCE_FILE
from library.peft.write import CONFIG_FILE

Files = Mapping[str, bytes]
# What a text counts beside an adapter's 1: as much less as its cosines with weights say. In the
# calibration the log odds rise by 2.9 with a text's cosine, by 15.8 with an adapter's.
TEXT_SHARE = 0.2


class NotSearchable(LorasmithError):
    """An adapter that cannot be searched by: its weights cannot be compared, or nothing says what
    it is for.
    """

    code = "not-searchable"
    status = 422


@dataclass(frozen=True)
class EncodedQuery:
    """A query, and which calibration its results' confidence has."""

    vector: Query
    kind: Kind

    @property
    def by(self) -> By:
        return "description" if self.kind == "description" else "weights"


@dataclass(frozen=True)
class QueryEncoder:
    """Makes queries; an encoder is loaded when it is first needed.

    Attributes:
        encoder: of descriptions.
        weights: the weight encoder.
        note: is told when an adapter's description stands in for its weights.
    """

    encoder: Callable[[], DescriptionEncoder]
    weights: Callable[[], WeightEncoder]
    note: Callable[[str], None]

    def ask(self, text: str | None, files: Files | None, by: By | None) -> EncodedQuery:
        """A query by a text, an adapter or both.

        Args:
            by: what is compared; None: descriptions for a text alone, else weights, or the
                adapter's description where its weights cannot be compared.
        Raises:
            UsageError: neither is given, or the text is empty or too long.
            NotSearchable: the adapter cannot be searched by.
        """
        if text is None and files is None:
            raise UsageError("search needs a text, or an adapter")
        if files is None or by is not None:
            ask = self._by_weights if by == "weights" else self._by_description
            return ask(text, files)
        try:
            return self._by_weights(text, files)
        except NotSearchable as error:
            if description_in(files) is None:
                raise NotSearchable(
                    f"{error}, and its {PROVENANCE_FILE} holds no description"
                ) from error
            self.note(f"{error}; its description is compared instead")
            return self._by_description(text, files)

    def _by_description(self, text: str | None, files: Files | None) -> EncodedQuery:
        """A query to the index of descriptions."""
        texts = [] if text is None else [normalise(text)]
        if files is not None:
            own = description_in(files)
            if own is None:
                raise NotSearchable(
                    f"the adapter cannot be searched by: its {PROVENANCE_FILE} holds no description"
                )
            texts.append(own)
        return EncodedQuery(_mean([self._embedded(own) for own in texts]), "description")

    def _by_weights(self, text: str | None, files: Files | None) -> EncodedQuery:
        """A query to the index of weights."""
        if files is None:
            assert text is not None
            return EncodedQuery(_mean([self._into_weights(text)]), "text")
        own = self._adapter(files)
        if text is None:
            return EncodedQuery(own, "adapter")
        return EncodedQuery(_mean([own, TEXT_SHARE * self._into_weights(text)]), "both")

    def _adapter(self, files: Files) -> Query:
        try:
            require_base(files, self.weights())
            return vector_of(files, self.weights())
        except (AdapterFileError, LayoutMismatch) as error:
            raise NotSearchable(f"the adapter's weights cannot be compared: {error}") from error

    def _into_weights(self, text: str) -> Query:
        encoder, weights = self.encoder(), self.weights()
        if encoder.name != weights.info.encoder:
            raise UsageError(
                f"texts are compared with weights through {weights.info.encoder}, "
                f"not {encoder.name}"
            )
        pooled = torch.from_numpy(self._embedded(normalise(text)))
        return weights.describe(pooled[None])[0].numpy()

    def _embedded(self, text: str) -> Query:
        return self.encoder().vectors([text])[0].double().numpy()


def description_in(files: Files) -> str | None:
    """The description in an adapter's provenance, if there is one."""
    try:
        return normalise(json.loads(files[PROVENANCE_FILE])["description"])
    except (KeyError, ValueError, TypeError, InvalidDescription):
        return None


def require_base(files: Files, weights: WeightEncoder) -> None:
    """Raise LayoutMismatch if an adapter's config names a base that the encoder is not for."""
    said = parse_config(Path(CONFIG_FILE), files[CONFIG_FILE]).get("base_model_name_or_path")
    if isinstance(said, str) and not weights.is_for(said):
        raise LayoutMismatch(
            f"it is for {said}, and the weight encoder is for {weights.info.base['id']}"
        )


def _mean(vectors: Sequence[Query]) -> Query:
    mean = np.mean(vectors, axis=0)
    return (mean / np.linalg.norm(mean)).astype(np.float32)
