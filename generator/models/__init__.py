"""Generators: one file each, a condition in, an adapter out.

Does not live here: the modules that they are built from (generator.layers), training.
"""
