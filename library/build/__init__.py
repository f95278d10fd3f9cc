"""Building a library: the plan, its shards, the workers that train them.

Does not live here: one training step (library.trainer), where results are kept (library.store).
"""
