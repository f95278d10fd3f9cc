"""Descriptions as vectors, and the adapters of a library found by them.

Lives here: the description encoder, which generators share; the index, its files and how it is
changed while it is read; search and its confidence. Does not: generators, training, HTTP.
"""

from index.description_index import DescriptionIndex
from index.encoder import DEFAULT_ENCODER, DescriptionEncoder, Embeddings, normalise
from index.entries import Filter
from index.library_index import build_index, open_index
from index.search import Result, Searcher

__all__ = [
    "DEFAULT_ENCODER",
    "DescriptionEncoder",
    "DescriptionIndex",
    "Embeddings",
    "Filter",
    "Result",
    "Searcher",
    "build_index",
    "normalise",
    "open_index",
]
