"""Merging adapters: one file a method, and the table of all of them.

Does not live here: which adapters to merge (generator.strategies).
"""
