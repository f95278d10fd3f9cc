"""Zero-knowledge proofs that committed weights give the claimed outputs, by ezkl.

Does not live here: serving and asking over HTTP (api.zk).
"""
