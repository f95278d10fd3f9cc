"""The schedule of a refinement: its rate, and steps and checks that fit into a budget of seconds.

Never from the clock: the bytes of an adapter are a function of the request.
"""

from collections.abc import Sequence

from generator.refine.training import RefineSettings
from library.base.batches import TokenRow, labelled_and_taught
from library.trainer.shared_prefix import common_beginning

MOST_STEPS = 120  # docs/results/refine-settings.json
FEWEST_STEPS = 30  # half of them is worth up to ten points less
RATE = 1e-3
# Of a start that follows instructions already: more would undo it (docs/results/refine-rates.json).
FEW, FEW_RATE, MANY_RATE = 8, 4e-5, 1e-4
# Trained tokens a second of SmolLM2-135M: two CPU cores (docs/results/refine-time.json), one GPU.
TOKENS_PER_SECOND = {"cpu": 200.0, "cuda": 20_000.0}


def steps_for(rows: Sequence[TokenRow], device: str, budget: float | None) -> int:
    """Steps that suit a number of examples or answers, cut to the budget, but never below 30.

    Four an example from 30 to 120, and as many as there are examples beyond; of examples and a
    teacher's answers, what there is more of counts.
    """
    count = max(map(len, labelled_and_taught(rows)))
    suited = max(FEWEST_STEPS, min(4 * count, MOST_STEPS), count)
    if budget is None:
        return suited
    return min(suited, max(FEWEST_STEPS, int(budget / _step_seconds(rows, device))))


def rate_for(rows: Sequence[TokenRow], instructed: bool) -> float:
    """Peak rate for a number of examples or answers.

    Args:
        rows: of a start.
        instructed: whether it follows the instruction that its prompt holds before any training.
    """
    if not instructed:
        return RATE
    return FEW_RATE if max(map(len, labelled_and_taught(rows))) < FEW else MANY_RATE


def holds_out(
    rows: Sequence[TokenRow],
    sets: Sequence[Sequence[int]],
    settings: RefineSettings,
    device: str,
    budget: float | None,
) -> bool:
    """Whether all, with one adapter more for each set, cost at most twice the budget."""
    seconds = settings.steps * _step_seconds(rows, device) * (1 + len(sets))
    return bool(sets) and (budget is None or seconds <= 2 * budget)


def _step_seconds(rows: Sequence[TokenRow], device: str) -> float:
    """Seconds of a step of one adapter: what the prompts share once, and the rows' own parts.

    Eight rows of each kind, or all if there are fewer.
    """
    shared = len(common_beginning([row.prompt[:-1] for row in rows]))
    tokens = float(shared)
    for kind in labelled_and_taught(rows):
        tokens += min(8, len(kind)) * (sum(map(len, kind)) / len(kind) - shared)
    return tokens / TOKENS_PER_SECOND.get(device, TOKENS_PER_SECOND["cpu"])
