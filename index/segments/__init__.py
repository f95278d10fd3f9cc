"""The index over FAISS: immutable segments, a change log, readers that never wait.

Does not live here: what the vectors mean (index.search).
"""
