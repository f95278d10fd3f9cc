"""Tasks: their files, their reconstruction from Super-NaturalInstructions, scores of answers.

Does not live here: prompts (library.base), synthetic tasks (training).
"""
