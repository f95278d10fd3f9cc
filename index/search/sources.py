"""The vectors of an index: of the descriptions of a library's adapters, or of their weights."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from index.encoders.descriptions import DescriptionEncoder, EncoderIdentity
from index.encoders.weights import WeightEncoder
from index.segments.metadata import IndexEntry, entries_of, entries_of_weights
from index.segments.segment import Vectors
from library.errors import AdapterFileError, LayoutMismatch, OutputError
from library.peft.read import adapter_of
from library.peft.write import WEIGHTS_FILE
from library.store.catalogue import files_of
from library.store.folder import LibraryFolder
from library.store.records import Record

By = Literal["description", "weights"]
DescribedEntry: TypeAlias = tuple[IndexEntry, list[str]]  # an adapter, and the texts of its vectors


@runtime_checkable
class VectorSource(Protocol):
    """The two sources' interface.

    Attributes:
        folder: of its index, inside the folder of a library's indexes.
        replaceable: whether an index of another encoder is simply replaced.
        identity: of the encoder.
    """

    folder: str
    replaceable: bool
    identity: EncoderIdentity

    def entries(self, records: Sequence[Record]) -> dict[str, DescribedEntry]:
        """The adapters that may have vectors, by id."""
        ...

    def vectors(self, library: LibraryFolder, adapters: Sequence[DescribedEntry]) -> list[Vectors]:
        """The rows of each adapter; none for one that cannot be encoded."""
        ...


class DescriptionSource:
    """An adapter's rows are its first description's and, if it has more, their mean's."""

    folder, replaceable = "", False

    def __init__(self, encoder: DescriptionEncoder) -> None:
        self.encoder, self.identity = encoder, encoder.identity

    def entries(self, records: Sequence[Record]) -> dict[str, DescribedEntry]:
        return entries_of(records)

    def vectors(self, library: LibraryFolder, adapters: Sequence[DescribedEntry]) -> list[Vectors]:
        flat = self.encoder.vectors([text for _, texts in adapters for text in texts])  # (texts, d)
        ends = np.cumsum([len(texts) for _, texts in adapters])[:-1]
        return [_first_and_mean(rows) for rows in np.split(flat.double().numpy(), ends)]


WEIGHTS = "weights"  # folder of the index by the shipped encoder


class WeightSource:
    """An adapter's row is its weights' encoding, whatever its record says."""

    replaceable = True

    def __init__(self, encoder: WeightEncoder, folder: str = WEIGHTS) -> None:
        self.encoder, self.folder = encoder, folder
        self.identity = EncoderIdentity(
            WeightEncoder.kind, encoder.digest, "", encoder.config.dimension
        )

    def entries(self, records: Sequence[Record]) -> dict[str, DescribedEntry]:
        fitting = [record for record in records if self.encoder.is_for(record["base_model"])]
        return {entry.id: (entry, []) for entry in entries_of_weights(fitting)}

    def vectors(self, library: LibraryFolder, adapters: Sequence[DescribedEntry]) -> list[Vectors]:
        return [self._rows(library, entry.id) for entry, _ in adapters]

    def refusal(self, library: LibraryFolder, record: Record) -> str:
        """Why an adapter has no row; empty if it has one."""
        if not self.encoder.is_for(record["base_model"]):
            return f"the weight encoder is for {self.encoder.info.base['id']}"
        try:
            vector_of(files_of(library, record["id"]), self.encoder)
        except (AdapterFileError, LayoutMismatch, OutputError) as error:
            return str(error)
        return ""

    def _rows(self, library: LibraryFolder, identity: str) -> Vectors:
        try:
            return vector_of(files_of(library, identity), self.encoder)[None]  # (1, d)
        except (AdapterFileError, LayoutMismatch, OutputError):
            return np.zeros((0, self.identity.dimension), dtype=np.float32)


def vector_of(files: Mapping[str, bytes], encoder: WeightEncoder) -> Float32[np.ndarray, " d"]:
    """An adapter, by the content of its files, as a unit vector.

    Raises:
        AdapterFileError: it is damaged, not plain LoRA, or changes nothing.
        LayoutMismatch: it has no module that the encoder knows.
    """
    if WEIGHTS_FILE not in files:
        raise AdapterFileError(f"the adapter has no {WEIGHTS_FILE}")
    vector = encoder.encode(adapter_of(files, leave_extras=True))[0].numpy()
    if not np.linalg.norm(vector) > 0.5:  # 0, or not a number
        raise AdapterFileError("the adapter changes nothing: its ΔW is zero, or not finite")
    return vector.astype(np.float32)


def _first_and_mean(vectors: Float[np.ndarray, "texts d"]) -> Vectors:
    """The first vector, and the unit mean of all if there are more: `(1, d)` or `(2, d)`."""
    if len(vectors) == 1:
        return vectors.astype(np.float32)
    mean = vectors.mean(axis=0)
    return np.stack([vectors[0], mean / np.linalg.norm(mean)]).astype(np.float32)
