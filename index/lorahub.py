"""LoraHub: merge weights from a few examples, without gradients (Huang et al. 2024, 2307.13269).

Weights of up to 20 candidates in [-1.5, 1.5] are searched by Nevergrad for the least loss of the
base on the examples plus an L1 penalty. The sum is one of ΔW; LoraHub's own adds the factors.
The first generations look at the mean and at every candidate alone: a search of a few dozen points
in 20 dimensions would seldom come by them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from library.errors import UsageError

CANDIDATES = 20
EXAMPLES = 16
BOUND, PENALTY = 1.5, 0.05
BUDGET, POPULATION = 64, 16

# Weights, one row a trial, to the mean loss on the examples of each.
Losses = Callable[[Float[Tensor, "trials candidates"]], Float[Tensor, " trials"]]


@dataclass(frozen=True)
class Found:
    """The best weights that were tried, their loss without the penalty, and how many were tried."""

    weights: list[float]
    loss: float
    trials: int


def search(losses: Losses, count: int, *, seed: int = 0, budget: int = BUDGET) -> Found:
    """Weights of `count` adapters with the least penalised loss among `budget` trials.

    Trials are looked at POPULATION at a time, so that one forward pass can serve many.
    Raises UsageError for more candidates than CANDIDATES, or none.
    """
    if not 1 <= count <= CANDIDATES:
        raise UsageError(f"lorahub takes from 1 to {CANDIDATES} adapters, not {count}")
    best = Found([0.0] * count, float("inf"), 0)
    least, tried = float("inf"), 0
    for generation, tell in _generations(count, budget, seed):
        found = losses(generation).double().cpu()
        penalised = found + PENALTY * generation.abs().mean(1)
        penalised[penalised.isnan()] = float("inf")
        tried += len(generation)
        place = int(penalised.argmin())
        if float(penalised[place]) < least:
            least = float(penalised[place])
            best = Found(generation[place].tolist(), float(found[place]), tried)
        tell(penalised.tolist())
    return Found(best.weights, best.loss, tried)


def _generations(
    count: int, budget: int, seed: int
) -> Iterator[tuple[Float[Tensor, "trials candidates"], Callable[[list[float]], None]]]:
    """What to try next, and whom to tell how it went."""
    import nevergrad

    space = nevergrad.p.Array(shape=(count,)).set_bounds(-BOUND, BOUND)
    space.random_state.seed(seed % 2**32)
    optimizer = nevergrad.optimizers.NGOpt(space, budget=budget, num_workers=POPULATION)
    for first in [[1 / count] * count, *torch.eye(count).tolist()][:budget]:
        optimizer.suggest(first)
    for start in range(0, budget, POPULATION):
        asked = [optimizer.ask() for _ in range(min(POPULATION, budget - start))]

        def tell(values: list[float], asked: list = asked) -> None:
            for candidate, value in zip(asked, values, strict=True):
                optimizer.tell(candidate, value)

        yield torch.tensor([[float(w) for w in c.value] for c in asked]).double(), tell
