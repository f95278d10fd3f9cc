"""The library's map: the plane that keeps most of what tells the vectors apart."""

import numpy as np
import pytest
from vectors import WIDTH, addition, random_adapter

from index.search.plane import LibraryMap, map_of
from index.segments.view import IndexView


def mapped(count: int) -> tuple[LibraryMap, np.ndarray]:
    """The map of random adapters, and their first vectors in its order."""
    adapters = {entry.id: (entry, rows) for entry, rows in map(random_adapter, range(count))}
    found = map_of(IndexView.empty(WIDTH).after(addition(reversed(adapters.values()))))
    assert {entry.id for entry in found.entries} == {*adapters}
    vectors = [adapters[entry.id][1][0] for entry in found.entries]
    return found, np.array(vectors, dtype=np.float64).reshape(count, WIDTH)


def test_the_plane_keeps_as_much_of_the_variance_as_any_can() -> None:
    found, vectors = mapped(40)
    tasks = [(entry.task, entry.id) for entry in found.entries]
    assert tasks == sorted(tasks)
    variances = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False) ** 2
    assert (found.points**2).sum(0) == pytest.approx(variances[:2])
    assert found.explained == pytest.approx(variances[:2].sum() / variances.sum())


def test_a_vector_of_the_library_is_placed_on_its_own_point() -> None:
    found, vectors = mapped(25)
    for vector, point in zip(vectors, found.points, strict=True):
        assert found.place(vector) == pytest.approx(tuple(point))


@pytest.mark.parametrize("count", [0, 1])
def test_without_differences_everything_lies_at_the_origin(count: int) -> None:
    found, _ = mapped(count)
    assert found.points.tolist() == [[0, 0]] * count
    assert found.explained == 0 and found.place(np.ones(WIDTH)) == (0, 0)


def test_equal_vectors_have_a_map_too() -> None:
    entries = [random_adapter(2 * number)[0] for number in range(3)]  # of one vector each
    rows = np.eye(1, WIDTH, dtype=np.float32)
    found = map_of(IndexView.empty(WIDTH).after(addition((entry, rows) for entry in entries)))
    assert found.points == pytest.approx(np.zeros((3, 2))) and found.explained == 0
