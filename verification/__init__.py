"""Hooks: what can be said about an adapter, from its bytes to a proof.

Lives here: checks of format, compatibility, integrity, statistics and behaviour, signatures, proofs
of knowledge. Does not: how adapters are made, HTTP.
"""
