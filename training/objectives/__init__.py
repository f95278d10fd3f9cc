"""Objectives: how a generator is trained, through the frozen base or towards known adapters.

Does not live here: the data (training.data), models that are not generators (training.models).
"""
