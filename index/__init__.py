"""Descriptions and adapters as vectors, and adapters merged: what generators and search share.

Lives here: the description encoder, the weight encoder, the shelf that finds a library's adapters
by description, composition. Does not: generators, training, HTTP.
"""

from index.encoder import DEFAULT_ENCODER, DescriptionEncoder, Embeddings, normalise
from index.weight_encoder import WeightEncoder, load_weight_encoder

__all__ = [
    "DEFAULT_ENCODER",
    "DescriptionEncoder",
    "Embeddings",
    "WeightEncoder",
    "load_weight_encoder",
    "normalise",
]
