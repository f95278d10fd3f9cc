"""Training many adapters of one base at once, on their own tasks; recipes, also those of PEFT.

Does not live here: which adapters a library shall hold (library.build), generators (training).
"""
