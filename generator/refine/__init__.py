"""Refinement: training on a request's own examples, from any start.

Lives here: starts, settings, the training of a request's adapters. Does not: the trainer itself
(library/trainer) or the choice among finished adapters (generator/strategies).
"""
