"""Search in a library: queries, results with a confidence, the neighbours of a description.

Does not live here: files of an index and their locks (index.segments).
"""
