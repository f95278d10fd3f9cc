"""Strategies: ways to answer a request, by generating, looking up, composing or choosing among
these.

Does not live here: the generators (generator.models), the files of an answer (generator.request).
"""
