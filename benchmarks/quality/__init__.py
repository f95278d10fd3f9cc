"""Measurements of quality: retrieval, screening, behaviour, merging."""
