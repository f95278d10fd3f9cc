"""Data modules: tasks, libraries of adapters, batches, relabelling.

Does not live here: losses (training.objectives).
"""
