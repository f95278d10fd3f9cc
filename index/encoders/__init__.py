"""Vectors: of descriptions by sentence-transformers, of adapters by what their weights do.

Does not live here: how encoders are trained (training.models).
"""
