"""The command line: one file a command.

Does not live here: the service (api.service), HTTP (api.http).
"""
