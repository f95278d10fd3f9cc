"""The REST interface: routes, schemas, problems.

Does not live here: what the routes call (api.service).
"""
