"""Procedural families: tasks whose parameters are drawn and whose answers are computed.

registry.FAMILIES names all of them. In each family only the description tells which answer is
meant: the same input has other answers under other parameters.
"""
