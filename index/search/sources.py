"""What an index is made of: the descriptions of a library's adapters, or their weights."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float32

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
Wanted: TypeAlias = tuple[IndexEntry, list[str]]  # an adapter, and the texts of its vectors


@runtime_checkable
class VectorSource(Protocol):
    """One of the two.

    Attributes:
        folder: of its index, inside the folder of a library's indexes.
        derived: whether an index of another encoder may be replaced without asking.
    """

    folder: str
    derived: bool

    @property
    def identity(self) -> EncoderIdentity:
        """What the vectors depend on, beside the adapters."""
        ...

    def entries(self, records: Sequence[Record]) -> dict[str, Wanted]:
        """The adapters that may have vectors, by id."""
        ...

    def vectors(self, library: LibraryFolder, wanted: Sequence[Wanted]) -> list[Vectors]:
        """The rows of each adapter; no row for one that cannot have any."""
        ...


class DescriptionSource:
    """An adapter's rows are its first description's and, if it has more, their mean's."""

    folder, derived = "", False

    def __init__(self, encoder: DescriptionEncoder) -> None:
        self.encoder = encoder

    @property
    def identity(self) -> EncoderIdentity:
        return self.encoder.identity

    def entries(self, records: Sequence[Record]) -> dict[str, Wanted]:
        return entries_of(records)

    def vectors(self, library: LibraryFolder, wanted: Sequence[Wanted]) -> list[Vectors]:
        flat = self.encoder.vectors([text for _, texts in wanted for text in texts])
        ends = np.cumsum([len(texts) for _, texts in wanted])[:-1]
        return [_rows(rows) for rows in np.split(flat.double().numpy(), ends)]


class WeightSource:
    """An adapter's row is what the weight encoder makes of it, whatever its record says."""

    folder, derived = "weights", True

    def __init__(self, encoder: WeightEncoder) -> None:
        self.encoder = encoder

    @property
    def identity(self) -> EncoderIdentity:
        return EncoderIdentity(
            WeightEncoder.kind, self.encoder.digest, "", self.encoder.config.dimension
        )

    def entries(self, records: Sequence[Record]) -> dict[str, Wanted]:
        fitting = [record for record in records if self.encoder.is_for(record["base_model"])]
        return {entry.id: (entry, []) for entry in entries_of_weights(fitting)}

    def vectors(self, library: LibraryFolder, wanted: Sequence[Wanted]) -> list[Vectors]:
        return [self._rows(library, entry.id) for entry, _ in wanted]

    def _rows(self, library: LibraryFolder, identity: str) -> Vectors:
        try:
            return vector_of(files_of(library, identity), self.encoder)[None]
        except (AdapterFileError, LayoutMismatch, OutputError):
            return np.zeros((0, self.encoder.config.dimension), dtype=np.float32)


def vector_of(files: Mapping[str, bytes], encoder: WeightEncoder) -> Float32[np.ndarray, " d"]:
    """An adapter, by the content of its files, as a unit vector.

    Raises:
        AdapterFileError: it is damaged, not plain LoRA, or changes nothing.
        LayoutMismatch: its modules are not those that the encoder knows.
    """
    if WEIGHTS_FILE not in files:
        raise AdapterFileError(f"the adapter has no {WEIGHTS_FILE}")
    vector = encoder.encode(adapter_of(files))[0].numpy()
    if not np.linalg.norm(vector) > 0.5:  # 0, or not a number
        raise AdapterFileError("the adapter changes nothing: its ΔW is zero, or not finite")
    return vector.astype(np.float32)


def _rows(vectors: Vectors) -> Vectors:
    if len(vectors) == 1:
        return vectors.astype(np.float32)
    mean = vectors.mean(axis=0)
    return np.stack([vectors[0], mean / np.linalg.norm(mean)]).astype(np.float32)
