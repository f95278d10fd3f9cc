"""Evaluation: every method on every task, scored, compared, reported.

Does not live here: what a score is (library.tasks.metrics).
"""
