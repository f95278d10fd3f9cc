"""Generators: a description becomes an adapter.

Lives here: requests, the generators as plain modules, the strategies that generate, look up,
compose or choose, and how an answer becomes files. Does not: how generators are trained
(training), nor how requests arrive (api).
"""
