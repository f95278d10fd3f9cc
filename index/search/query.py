"""A search query as a vector: of a text, an adapter's files, or both.

In the index of descriptions an adapter is represented by its own description; in that of weights a
text is mapped by the weight encoder into the space of the weights. Text and adapter together are
the mean of their unit vectors, in the space of the weights a weighted one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from index.encoders.descriptions import DescriptionEncoder, InvalidDescription, normalise
from index.encoders.weights import WeightEncoder
from index.search.confidence import Kind
from index.search.sources import By, vector_of
from index.segments.segment import Vector
from library.errors import AdapterFileError, LayoutMismatch, LorasmithError, UsageError
from library.peft.config import parse_config
from library.peft.provenance import PROVENANCE_FILE
from library.peft.write import CONFIG_FILE

Files = Mapping[str, bytes]
# Weight of a text beside an adapter's 1: its cosines with weights say that much less. In the
# calibration the log odds rise by 2.9 with a text's cosine, by 15.8 with an adapter's.
TEXT_SHARE = 0.2


class NotSearchable(LorasmithError):
    """An adapter whose weights cannot be compared, and that has no description."""

    code = "not-searchable"
    status = 422


@dataclass(frozen=True)
class EncodedQuery:
    """A query's unit vector, and the kind of calibration for its results' confidence."""

    vector: Vector
    kind: Kind

    @property
    def by(self) -> By:
        return "description" if self.kind == "description" else "weights"


@dataclass(frozen=True)
class QueryEncoder:
    """Encodes queries; an encoder is loaded when it is first needed.

    Attributes:
        descriptions: loads the description encoder.
        weights: loads the weight encoder.
        note: is called when an adapter's description is compared instead of its weights.
    """

    descriptions: Callable[[], DescriptionEncoder]
    weights: Callable[[], WeightEncoder]
    note: Callable[[str], None]

    def encode(self, text: str | None, files: Files | None, by: By | None) -> EncodedQuery:
        """A query by a text, an adapter or both.

        Args:
            by: what is compared; None: descriptions for a text alone, else weights, or the
                adapter's description if its weights cannot be compared.
        Raises:
            UsageError: neither is given, or the text is empty or too long.
            NotSearchable: the adapter cannot be searched by.
        """
        if text is None and files is None:
            raise UsageError("search needs a text, or an adapter")
        if by == "weights":
            return self._by_weights(text, files)
        if files is None or by == "description":
            return self._by_description(text, files)
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
            description = description_in(files)
            if description is None:
                raise NotSearchable(
                    f"the adapter cannot be searched by: its {PROVENANCE_FILE} holds no description"
                )
            texts.append(description)
        return EncodedQuery(_unit_mean([self._embed(text) for text in texts]), "description")

    def _by_weights(self, text: str | None, files: Files | None) -> EncodedQuery:
        """A query to the index of weights."""
        if files is None:
            assert text is not None
            return EncodedQuery(_unit_mean([self._map_text(text)]), "text")
        adapter = self._encode_adapter(files)
        if text is None:
            return EncodedQuery(adapter, "adapter")
        return EncodedQuery(_unit_mean([adapter, TEXT_SHARE * self._map_text(text)]), "both")

    def _encode_adapter(self, files: Files) -> Vector:
        try:
            require_base(files, self.weights())
            return vector_of(files, self.weights())
        except (AdapterFileError, LayoutMismatch) as error:
            raise NotSearchable(f"the adapter's weights cannot be compared: {error}") from error

    def _map_text(self, text: str) -> Vector:
        """A text in the space of the weights."""
        encoder, weights = self.descriptions(), self.weights()
        if encoder.name != weights.info.encoder:
            raise UsageError(
                f"texts are compared with weights through {weights.info.encoder}, "
                f"not {encoder.name}"
            )
        pooled = torch.from_numpy(self._embed(normalise(text)))
        return weights.describe(pooled[None])[0].numpy()  # (1, e) to (1, d)

    def _embed(self, text: str) -> Vector:
        return self.descriptions().vectors([text])[0].double().numpy()


def description_in(files: Files) -> str | None:
    """The description in an adapter's provenance, or None."""
    try:
        return normalise(json.loads(files[PROVENANCE_FILE])["description"])
    except (KeyError, ValueError, TypeError, InvalidDescription):
        return None


def require_base(files: Files, weights: WeightEncoder) -> None:
    """Raise LayoutMismatch if an adapter's config names a base that the encoder is not for."""
    base = base_of(files)
    if base is not None and not weights.is_for(base):
        raise LayoutMismatch(
            f"it is for {base}, and the weight encoder is for {weights.info.base['id']}"
        )


def base_of(files: Files) -> str | None:
    """The base that an adapter's config names, else its provenance; None if neither does.

    Raises AdapterFileError.
    """
    base = parse_config(Path(CONFIG_FILE), files[CONFIG_FILE]).get("base_model_name_or_path")
    if not base:  # an import's config stays as it was
        with suppress(KeyError, ValueError, TypeError):
            base = json.loads(files[PROVENANCE_FILE])["base"]["id"]
    return base if isinstance(base, str) else None


def _unit_mean(vectors: Sequence[Vector]) -> Vector:
    mean = np.mean(vectors, axis=0)  # (n, d) to (d,)
    return (mean / np.linalg.norm(mean)).astype(np.float32)
