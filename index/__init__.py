"""Descriptions and adapters as vectors, and adapters searched and merged.

Lives here: encoders of descriptions and weights; the FAISS index and its files; search, its
confidence and the neighbours that strategies take; merge methods; gates and routing. Does not:
generators, training, HTTP.
"""
