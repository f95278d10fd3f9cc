"""Gates: which adapters of a library act on a token, in which module, and with what share.

One gate with four choices (systems.py), of which each published system is a line. Routers that
name adapters for a whole request, and files for other programs' routers, are in `index.routing`.
"""
