"""Descriptions and adapters as vectors, and adapters found and merged.

Lives here: the description encoder, which generators share, and the weight encoder; the index, its
files and how it is changed while it is read; search and its confidence; the shelf that strategies
take neighbours from; composition. Does not: generators, training, HTTP.
"""

from index.contents import Descriptions, Weights
from index.description_index import DescriptionIndex
from index.encoder import DEFAULT_ENCODER, DescriptionEncoder, Embeddings, normalise
from index.entries import Filter
from index.library_index import build_index, open_index
from index.search import Result, Searcher
from index.weight_encoder import WeightEncoder, load_weight_encoder

__all__ = [
    "DEFAULT_ENCODER",
    "DescriptionEncoder",
    "DescriptionIndex",
    "Descriptions",
    "Embeddings",
    "Filter",
    "Result",
    "Searcher",
    "WeightEncoder",
    "Weights",
    "build_index",
    "load_weight_encoder",
    "normalise",
    "open_index",
]
