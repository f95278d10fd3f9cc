"""Zero-knowledge proofs between two processes: an owner who answers, a verifier who asks.

Does not live here: the proofs (verification.zk).
"""
