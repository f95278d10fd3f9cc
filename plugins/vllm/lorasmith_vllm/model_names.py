"""Names of models that are adapters of a lorasmith service.

Only names that always mean the same adapter: vLLM keeps what a name once meant, and its prefix
cache knows an adapter by the name alone.
"""

import re
from dataclasses import dataclass

MAX_DESCRIPTION = 8192  # characters, as the service has it
ADAPTER_ID = re.compile(r"ad_[0-9a-f]{40}")
_GENERATED = "generated/"
_VERSION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}@v[1-9][0-9]{0,8}")
_TASK = "task:"


@dataclass(frozen=True)
class Wanted:
    """What a name asks for: a stored adapter, by its id or NAME@vN, or one for a description."""

    adapter: str | None = None
    task: str | None = None


def wanted(name: str) -> Wanted | None:
    """What a model's name asks for; None if it is no name of this plugin's."""
    identity = name.removeprefix(_GENERATED)
    if name.startswith(_GENERATED) and ADAPTER_ID.fullmatch(identity):
        return Wanted(adapter=identity)
    if _VERSION.fullmatch(name):
        return Wanted(adapter=name)
    task = name.removeprefix(_TASK).strip()
    if name.startswith(_TASK) and 0 < len(task) <= MAX_DESCRIPTION:
        return Wanted(task=task)
    return None


def number(adapter: str) -> int:
    """The integer that stands for an adapter's id, from 1 to 2⁶⁰.

    Of the id's digits, which are a SHA-256 of what it contains: Python's hash of a text is another
    one in each process.
    """
    return int(adapter.removeprefix("ad_")[:15], 16) + 1
