"""The service behind the routes: settings, waiting line, jobs, the store of served adapters.

Does not live here: HTTP (api.http), the command line (api.cli).
"""
