"""Identity of examples, and of inputs alone: one digest for the same ones in the same order."""

from collections.abc import Sequence

from library.canonical import json_digest
from library.tasks.files import Example


def examples_digest(examples: Sequence[Example]) -> str | None:
    """SHA-256 of inputs and first answers in their order, as provenance states it; None of none."""
    pairs = [{"input": example.input, "output": example.output} for example in examples]
    return json_digest(pairs) if pairs else None


def inputs_digest(inputs: Sequence[str]) -> str:
    """SHA-256 of inputs without answers in their order, as provenance states it."""
    return json_digest(list(inputs))
