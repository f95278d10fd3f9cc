"""What examples can be trained on: limits, each in one sentence."""

from collections.abc import Sequence

from library.errors import UsageError
from library.tasks.files import Example

MAX_EXAMPLES = 200
MAX_STEPS = 2000
DEFAULT_BUDGET = 60.0  # seconds
MAX_BUDGET = 3600.0


def require_trainable(examples: Sequence[Example], steps: int | None) -> None:
    """Raise UsageError for examples or steps that nothing can be trained with."""
    if not 1 <= len(examples) <= MAX_EXAMPLES:
        raise UsageError(f"1 to {MAX_EXAMPLES} examples are needed, not {len(examples)}")
    if any(not example.output.strip() for example in examples):
        raise UsageError("an example has an empty answer")
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise UsageError(f"steps must be from 1 to {MAX_STEPS}, not {steps}")
    answers: dict[str, str] = {}
    for example in examples:
        if answers.setdefault(example.input, example.output) != example.output:
            raise UsageError(f"two examples answer one input differently: {example.input[:80]!r}")
