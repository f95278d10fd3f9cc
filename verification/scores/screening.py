"""Backdoor screening: two scores of an adapter's spectrum, against a bank of one recipe.

The known-kind score is a logistic regression on log singular values, fitted on adapters with and
without planted backdoors, merges among both (after the five statistics of arXiv 2602.15195). It
knows the kinds that it was fitted on and no others. The outlier score is the largest robust
deviation of a module's norm from the library's profile: it sees what was scaled by hand. Both are
scores with a calibration set, never proofs: they miss what an attacker takes care to hide.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from verification.checks.spectrum import log_profile, log_spectrum
from verification.scores.bank import Bank

QUANTILES = torch.linspace(0, 1, 101, dtype=torch.float64)


@dataclass(frozen=True)
class Linear:
    """The known-kind score: bias + Σ weight·(x − centre)/spread."""

    bias: float
    centre: Float[Tensor, " features"]
    spread: Float[Tensor, " features"]
    weight: Float[Tensor, " features"]

    def __call__(self, values: Float[Tensor, "n sites rank"]) -> Float[Tensor, " n"]:
        return (log_spectrum(values) - self.centre) / self.spread @ self.weight + self.bias


@dataclass(frozen=True)
class Profile:
    """The outlier score: max over modules of |x − centre| / spread, x the norms' profile."""

    centre: Float[Tensor, " sites"]
    spread: Float[Tensor, " sites"]

    def deviations(self, values: Float[Tensor, "n sites rank"]) -> Float[Tensor, "n sites"]:
        return ((log_profile(values) - self.centre) / self.spread).abs()

    def __call__(self, values: Float[Tensor, "n sites rank"]) -> Float[Tensor, " n"]:
        return self.deviations(values).amax(dim=-1)


def known_kind(bank: Bank) -> Linear:
    return Linear(bank.bias, bank.centre, bank.spread, bank.weight)


def profile(bank: Bank) -> Profile:
    return Profile(bank.profile_centre, bank.profile_spread)


def fit_linear(
    clean: Float[Tensor, "n sites rank"],
    poisoned: Float[Tensor, "m sites rank"],
    ridge: float = 20.0,
) -> Linear:
    """Logistic regression with an L2 penalty of ridge/2·‖weight‖², both classes weighing the same.

    Newton's method in float64 to convergence, so that the same spectra give the same numbers.
    """
    x = torch.cat([log_spectrum(clean), log_spectrum(poisoned)])
    centre, spread = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
    z = torch.cat([(x - centre) / spread, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    y = torch.cat([torch.zeros(len(clean)), torch.ones(len(poisoned))]).double()
    share = torch.where(y > 0, len(x) / (2 * len(poisoned)), len(x) / (2 * len(clean)))
    penalty = torch.full((z.shape[1],), float(ridge), dtype=z.dtype)
    penalty[-1] = 1e-6  # the bias is free
    weight = torch.zeros_like(penalty)
    for _ in range(50):
        p = torch.sigmoid(z @ weight)
        gradient = z.T @ (share * (p - y)) + penalty * weight
        curvature = (z.T * (share * p * (1 - p))) @ z + torch.diag(penalty)
        step = torch.linalg.solve(curvature, gradient)
        weight = weight - step
        if step.abs().max() < 1e-9:
            break
    return Linear(float(weight[-1]), centre, spread, weight[:-1])


def fit_profile(clean: Float[Tensor, "n sites rank"]) -> Profile:
    """Median, and the distance between the quartiles over that of a standard normal (1.349)."""
    x = log_profile(clean)
    low, high = x.quantile(0.25, dim=0), x.quantile(0.75, dim=0)
    return Profile(x.median(dim=0).values, ((high - low) / 1.349).clamp_min(1e-6))
