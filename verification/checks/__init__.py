"""Quick hooks, which run on every adapter: format, integrity, base, server, signature, statistics.

Does not live here: what compares an adapter with others (verification.scores).
"""
