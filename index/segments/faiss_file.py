"""FAISS: the index for a number of vectors; build, write, and read if the digest is right.

The file is a cache: it can be rebuilt from the vectors at any time, and a file that anyone could
have changed is never parsed. faiss is imported inside functions.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from library.canonical import digest

EXACT_UP_TO = 50_000  # vectors; above it, an inverted file (lists of similar vectors)
TRAINED_ON = 40  # vectors per list, at most
ROUNDS = 6  # of k-means
PROBED = 32  # lists searched per query, of 4·sqrt(n)


def factory(rows: int) -> str:
    """The factory string for a number of vectors."""
    if rows <= EXACT_UP_TO:
        return "IDMap2,Flat"
    return f"IVF{4 * math.isqrt(rows)},SQfp16"


def build_faiss(vectors: Float[np.ndarray, "rows d"], owners: Int64[np.ndarray, " rows"]) -> Any:
    """A FAISS index of unit vectors by inner product, with `owners` as ids.

    The same on every run of one FAISS: seeded, on one thread.
    """
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(vectors.shape[1], factory(len(vectors)), faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        clusters = faiss.extract_index_ivf(index).cp
        clusters.niter, clusters.seed = ROUNDS, 1
        clusters.max_points_per_centroid = TRAINED_ON
        index.train(vectors)
    index.add_with_ids(vectors, owners)
    return index


def to_bytes(index: Any) -> bytes:
    import faiss

    return faiss.serialize_index(index).tobytes()


def read_faiss(path: Path, sha256: str) -> Any | None:
    """The index in a file, or None if there is no file with this digest."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if digest(content) != sha256:
        return None
    import faiss

    return faiss.deserialize_index(np.frombuffer(content, dtype=np.uint8))


def search_faiss(
    index: Any,
    query: Float[np.ndarray, " d"],
    rows: int,
    mask: Bool[np.ndarray, " owners"] | None = None,
) -> tuple[Float[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Scores and ids of the nearest rows, best first; `mask` holds the ids that count.

    One thread a request: requests run beside each other, and torch needs the cores too.
    """
    import faiss

    faiss.omp_set_num_threads(1)
    selector = None
    if mask is not None:
        bits = np.packbits(mask, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(mask), faiss.swig_ptr(bits))
    batch = query[None].astype(np.float32)  # (1, d)
    scores, ids = index.search(batch, rows, params=_params(index, selector))  # (1, rows) each
    filled = ids[0] >= 0  # FAISS fills up with -1
    return scores[0][filled], ids[0][filled]


def faiss_inner_products(
    vectors: Float[np.ndarray, "n d"], query: Float[np.ndarray, " d"]
) -> Float[np.ndarray, " n"]:
    """`vectors @ query` in float32 on one thread.

    NumPy would wake BLAS threads, which spin, and requests beside each other would crawl.
    """
    import faiss

    rows, x = np.ascontiguousarray(vectors), np.ascontiguousarray(query, dtype=np.float32)
    products = np.empty(len(rows), dtype=np.float32)
    pointers = [faiss.swig_ptr(array) for array in (products, x, rows)]
    untyped: Any = faiss
    untyped.fvec_inner_products_ny(*pointers, rows.shape[1], len(rows))
    return products


def _params(index: Any, selector: Any | None) -> Any:
    """FAISS's search parameters for the kind of index."""
    import faiss

    untyped: Any = faiss  # its keyword arguments are made at run time
    if isinstance(index, faiss.IndexIVF):
        return untyped.SearchParametersIVF(sel=selector, nprobe=PROBED)
    return None if selector is None else untyped.SearchParameters(sel=selector)
