"""Recipes: how one adapter is trained, one class for each family, registered by name.

All end in plain LoRA on the original base. The batched trainer trains those that differ from LoRA
in their settings alone, many adapters at once; PEFT trains the others, one after another.

Does not live here: the training loops (library.trainer).
"""
