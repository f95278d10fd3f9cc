"""Random adapters for an index, and the right results of a search, computed plainly."""

import hashlib
from collections.abc import Iterable

import numpy as np

from index.encoders.descriptions import EncoderIdentity
from index.segments.change_log import Change
from index.segments.metadata import EVERYTHING, Filter, IndexEntry

WIDTH = 16
ENCODER = EncoderIdentity("tiny", "0" * 64, "", WIDTH)
Adapters = dict[str, tuple[IndexEntry, np.ndarray]]  # by id, with their vectors


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def random_adapter(
    number: int, *, version: int = 0, tag: str = ""
) -> tuple[IndexEntry, np.ndarray]:
    """An adapter with one or two vectors; another version has other vectors."""
    name = f"{number}.{version}"
    rows = 1 + number % 2
    entry = IndexEntry(
        id=f"ad_{number:040}",
        task=f"task{number // 3}",
        base=f"base{number % 2}",
        layout="layout",
        recipe=f"recipe{number % 5}",
        licenses=("permissive", "MIT"),
        tags=(tag or f"tag{number % 7}", "any"),
        texts=tuple(f"{name}.{row}" for row in range(rows)),
    )
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return entry, unit(np.random.default_rng(seed).normal(size=(rows, WIDTH)))


def addition(adapters: Iterable[tuple[IndexEntry, np.ndarray]], *, removed: tuple[str, ...] = ()):
    pairs = list(adapters)
    rows = [vectors for _, vectors in pairs] or [np.zeros((0, WIDTH), dtype=np.float32)]
    return Change(tuple(entry for entry, _ in pairs), np.concatenate(rows), removed)


def by_id(adapters: Iterable[tuple[IndexEntry, np.ndarray]]) -> Adapters:
    return {entry.id: (entry, vectors) for entry, vectors in adapters}


def nearest_ids(
    adapters: Adapters, query: np.ndarray, k: int, filter: Filter = EVERYTHING
) -> list[str]:
    """Ids, best first."""
    scored = [
        (-float((vectors @ query).max()), identity)
        for identity, (entry, vectors) in adapters.items()
        if filter.matches(entry)
    ]
    return [identity for _, identity in sorted(scored)[:k]]


def random_queries(count: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, WIDTH)))
