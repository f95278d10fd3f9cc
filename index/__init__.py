"""Descriptions and adapters as vectors, and adapters found and merged.

Lives here: the description encoder, which generators share, and the weight encoder; the indexes of
both, their files and how they are changed while they are read; search and its confidence; the shelf
that strategies take neighbours from; composition. Does not: generators, training, HTTP.
"""

from index.contents import Descriptions, Weights
from index.encoder import DEFAULT_ENCODER, DescriptionEncoder, Embeddings, normalise
from index.entries import Filter
from index.library_index import build_index, open_index
from index.search import Result, Searcher
from index.vector_index import VectorIndex
from index.weight_encoder import WeightEncoder, load_weight_encoder

__all__ = [
    "DEFAULT_ENCODER",
    "DescriptionEncoder",
    "Descriptions",
    "Embeddings",
    "Filter",
    "Result",
    "Searcher",
    "VectorIndex",
    "WeightEncoder",
    "Weights",
    "build_index",
    "load_weight_encoder",
    "normalise",
    "open_index",
]
