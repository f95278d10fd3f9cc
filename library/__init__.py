"""Adapters and everything they are made for and from: the lowest layer.

Lives here: the words of the system (layout, adapter, factored algebra, checkpoints, errors, files),
and in folders of their own PEFT folders, the base model, tasks, the trainer of many adapters,
placements of ranks, stored libraries, builds, imports and exports. Does not: encoders of
descriptions, generators, HTTP.
Nothing in here imports another package of this repository.
"""
