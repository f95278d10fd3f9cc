"""The service behind the routes: settings, keys, waiting line, jobs, the store of adapters.

Does not live here: HTTP (api.http), the command line (api.cli).
"""
