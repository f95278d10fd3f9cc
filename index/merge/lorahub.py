"""LoraHub: merge weights from a few examples, without gradients (Huang et al. 2024, 2307.13269).

Weights of up to 20 candidates in [-1.5, 1.5] are searched by Nevergrad for the least loss of the
base on the examples plus an L1 penalty. The sum is one of ΔW; LoraHub's own adds the factors.
First the mean and every candidate alone are looked at, then CMA-ES goes on from the best of them: a
search of a few dozen points in 20 dimensions that starts from nothing seldom comes as far.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from library.errors import UsageError

CANDIDATES = 20
EXAMPLES = 16
BOUND, PENALTY = 1.5, 0.05
BUDGET, POPULATION = 64, 16
SPREAD = 0.3  # of the first generation around the best start

# Weights, one row a trial, to the mean loss on the examples of each.
Trials = Float[Tensor, "trials candidates"]
Losses = Callable[[Trials], Float[Tensor, " trials"]]


@dataclass(frozen=True)
class Mixture:
    """The best weights that were tried, their loss without the penalty, and how many were tried."""

    weights: list[float]
    loss: float
    trials: int


def search_mixture(losses: Losses, count: int, *, seed: int = 0, budget: int = BUDGET) -> Mixture:
    """Weights of `count` adapters with the least penalised loss among `budget` trials.

    Trials are looked at POPULATION at a time, so that one forward pass can serve many.
    Raises UsageError for more candidates than CANDIDATES, or none.
    """
    if not 1 <= count <= CANDIDATES:
        raise UsageError(f"lorahub takes from 1 to {CANDIDATES} adapters, not {count}")
    record = _Record(losses)
    starts = torch.tensor([[1 / count] * count, *torch.eye(count).tolist()], dtype=torch.float64)
    for part in starts[:budget].split(POPULATION):
        record.look(part)
    remaining = budget - record.trials
    if remaining > 0:
        _evolve(record, seed, remaining)
    return Mixture(record.best, record.loss, record.trials)


class _Record:
    """The trials so far, and the best of them."""

    def __init__(self, losses: Losses) -> None:
        self._losses, self._least = losses, float("inf")
        self.best: list[float] = []
        self.loss, self.trials = float("inf"), 0

    def look(self, trials: Trials) -> list[float]:
        """Penalised losses; what is not a number is infinitely bad."""
        losses = self._losses(trials).double().cpu()
        penalised = (losses + PENALTY * trials.abs().mean(1)).nan_to_num(float("inf"))
        best = int(penalised.argmin())
        if not self.best or float(penalised[best]) < self._least:
            self._least = float(penalised[best])
            self.best, self.loss = trials[best].tolist(), float(losses[best])
        self.trials += len(trials)
        return penalised.tolist()


def _evolve(record: _Record, seed: int, budget: int) -> None:
    """Go on from the best so far."""
    import nevergrad

    space = nevergrad.p.Array(init=record.best, lower=-BOUND, upper=BOUND)
    space.set_mutation(sigma=SPREAD)
    space.random_state.seed(seed % 2**32)
    optimizer = nevergrad.optimizers.CMA(space, budget=budget, num_workers=POPULATION)
    for start in range(0, budget, POPULATION):
        candidates = [optimizer.ask() for _ in range(min(POPULATION, budget - start))]
        trials = torch.tensor([[float(w) for w in candidate.value] for candidate in candidates])
        for candidate, value in zip(candidates, record.look(trials.double()), strict=True):
            optimizer.tell(candidate, min(value, 1e6))
