"""The base model: finding and loading it, prompts, batches, adapters in its layers, loss, decoding.

Does not live here: anything that trains (library.trainer), or what a task is (library.tasks).
"""
