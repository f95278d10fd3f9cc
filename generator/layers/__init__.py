"""Modules that generators are built from.

Does not live here: generators themselves (generator.models).
"""
