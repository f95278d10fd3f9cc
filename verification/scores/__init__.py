"""Slow hooks, which compare an adapter with a library, an encoder or the base's answers.

Does not live here: quick checks of files (verification.checks), proofs (verification.zk).
"""
