"""Sampling of tokens from softmax(logits / temperature), each prompt by numbers of its own."""

import random
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from library.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """Tokens drawn from softmax(logits / temperature), in place of the most likely ones.

    Attributes:
        temperature: above 0; towards 0 answers become the greedy ones.
        generator: torch's, on the CPU; its state decides every draw.
    Raises:
        UsageError: the temperature is not above 0.
    """

    temperature: float
    generator: torch.Generator

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UsageError(f"temperature must be above 0, not {self.temperature}")

    @classmethod
    def seeded(cls, temperature: float, key: str) -> "Sampling":
        """With a generator of its own, whose state is a function of the key."""
        seed = random.Random(key).getrandbits(63)
        return cls(temperature, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Draws:
    """One number from [0, 1) for every token that prompts may draw, and the temperature.

    Numbers are drawn for all prompts at the outset, so that none's depend on how long others are.
    """

    numbers: Float[Tensor, "rows steps"]
    temperature: float

    @classmethod
    def of(cls, sampling: Sampling, rows: int, steps: int) -> "Draws":
        numbers = torch.rand(rows, steps, generator=sampling.generator, dtype=torch.float64)
        return cls(numbers, sampling.temperature)

    def rows(self, keep: Int[Tensor, " kept"]) -> "Draws":
        return Draws(self.numbers[keep], self.temperature)

    def to(self, device: torch.device) -> "Draws":
        return Draws(self.numbers.to(device), self.temperature)

    def tokens(self, logits: Float[Tensor, "rows vocabulary"], step: int) -> Int[Tensor, " rows"]:
        """The tokens at which the distributions' cumulated sums pass the step's numbers."""
        exact = logits.double()
        scaled = (exact - exact.amax(dim=-1, keepdim=True)) / self.temperature
        sums = scaled.softmax(dim=-1).cumsum(dim=-1)  # (rows, vocabulary)
        reached = self.numbers[:, step, None] * sums[:, -1:]  # (rows, 1)
        found = torch.searchsorted(sums, reached, right=True)[:, 0]
        return found.clamp_max(logits.shape[-1] - 1)


def nucleus(
    logits: Float[Tensor, "rows vocabulary"], temperature: float, share: float
) -> Float[Tensor, "rows vocabulary"]:
    """Logits of the fewest likeliest tokens that have this share of the probability together.

    The others are minus infinity (Holtzman et al. 2020, "The Curious Case of Neural Text
    Degeneration"); one token is left in any case.
    """
    exact = logits.double()
    scaled = (exact - exact.amax(dim=-1, keepdim=True)) / temperature
    ordered, order = scaled.softmax(dim=-1).sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered  # of the likelier ones
    outside = torch.zeros_like(logits, dtype=torch.bool)
    outside.scatter_(-1, order, (before >= share) & (before > 0))
    return logits.masked_fill(outside, -torch.inf)
