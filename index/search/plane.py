"""A library's adapters on a plane: the two directions in which their vectors differ most."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from index.segments.metadata import IndexEntry
from index.segments.segment import Vector
from index.segments.view import IndexView

Point = tuple[float, float]


@dataclass(frozen=True)
class LibraryMap:
    """Every adapter of an index as a point, by its principal components.

    Attributes:
        entries: the adapters, by task and id.
        points: where they lie, in the same order; fewer than two lie at the origin.
        explained: share of the vectors' variance that the two directions hold, 0 to 1.
    """

    entries: tuple[IndexEntry, ...]
    points: Float[np.ndarray, "entries 2"]
    explained: float
    _mean: Vector
    _axes: Float[np.ndarray, "2 d"]

    def place(self, vector: Vector) -> Point:
        """Where another vector lies among them."""
        x, y = self._axes @ (vector - self._mean)
        return float(x), float(y)


def map_of(view: IndexView) -> LibraryMap:
    """The map of an index, by the first vector of each adapter, its main description's."""
    entries = tuple(view.entries())
    firsts = np.cumsum([0, *(entry.rows for entry in entries)])[:-1]
    vectors = view.vectors()[firsts].astype(np.float64)  # (entries, d)
    order = sorted(range(len(entries)), key=lambda row: (entries[row].task, entries[row].id))
    entries, vectors = tuple(entries[row] for row in order), vectors[order]
    if len(entries) < 2:
        d = vectors.shape[1]
        return LibraryMap(entries, np.zeros((len(entries), 2)), 0.0, np.zeros(d), np.zeros((2, d)))
    from sklearn.decomposition import PCA

    with np.errstate(invalid="ignore"):  # of equal vectors the shares are 0 / 0
        pca = PCA(n_components=2, svd_solver="full").fit(vectors)
    explained = float(np.nan_to_num(pca.explained_variance_ratio_).sum())
    axes = np.asarray(pca.components_)
    return LibraryMap(entries, pca.transform(vectors), explained, pca.mean_, axes)
