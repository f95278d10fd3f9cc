"""Descriptions as vectors, and adapters merged: what generators and search share.

Lives here: the description encoder, the shelf that finds a library's adapters by it, composition.
Does not: generators, training, HTTP.
"""

from index.encoder import DEFAULT_ENCODER, DescriptionEncoder, Embeddings, normalise

__all__ = ["DEFAULT_ENCODER", "DescriptionEncoder", "Embeddings", "normalise"]
