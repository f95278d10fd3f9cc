"""Identity of examples: one digest for the same pairs in the same order."""

from collections.abc import Sequence

from library.canonical import json_digest
from library.tasks.files import Example


def examples_digest(examples: Sequence[Example]) -> str | None:
    """SHA-256 of inputs and first answers in their order, as provenance states it; None of none."""
    pairs = [{"input": example.input, "output": example.output} for example in examples]
    return json_digest(pairs) if pairs else None
