"""`python -m api`: the `lorasmith` command without its console script."""

from api import entry

entry()
