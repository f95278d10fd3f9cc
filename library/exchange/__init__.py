"""Adapters into a library and out of it: PEFT folders, LoRA files of image models, other PEFT
types.

Does not live here: the portable profile itself (library.peft).
"""
