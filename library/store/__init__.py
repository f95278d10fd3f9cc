"""A stored library: its folder, one record an adapter, the catalogue, the packed form that ships.

Does not live here: how its adapters are trained (library.build), how they are searched (index).
"""
