"""What can be trained on, examples and inputs without answers: limits, each in one sentence."""

from collections.abc import Sequence

from library.errors import UsageError
from library.tasks.files import Example

MAX_EXAMPLES = 200
MAX_INPUTS = MAX_EXAMPLES  # without answers
MAX_STEPS = 2000
DEFAULT_BUDGET = 60.0  # seconds
MAX_BUDGET = 3600.0
UNDESCRIBED = (
    "inputs without answers need a description of the task, for the teacher that answers them"
)


def require_trainable(
    examples: Sequence[Example],
    steps: int | None,
    inputs: Sequence[str] = (),
    write_inputs: int = 0,
) -> None:
    """Raise UsageError for examples, inputs or steps that nothing can be trained with."""
    if len(examples) > MAX_EXAMPLES or not (examples or inputs or write_inputs):
        raise UsageError(f"1 to {MAX_EXAMPLES} examples are needed, not {len(examples)}")
    if len(inputs) > MAX_INPUTS:
        raise UsageError(f"1 to {MAX_INPUTS} inputs are needed, not {len(inputs):,}")
    if not all(text.strip() for text in inputs):
        raise UsageError("an input is empty")
    if any(not example.output.strip() for example in examples):
        raise UsageError("an example has an empty answer")
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise UsageError(f"steps must be from 1 to {MAX_STEPS}, not {steps}")
    answers: dict[str, str] = {}
    for example in examples:
        if answers.setdefault(example.input, example.output) != example.output:
            raise UsageError(f"two examples answer one input differently: {example.input[:80]!r}")
