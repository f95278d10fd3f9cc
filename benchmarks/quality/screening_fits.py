"""Fits of the two screening scores on spectra of clean and poisoned adapters, and their file."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from verification.checks.screening_bank import Bank
from verification.checks.spectrum import log_profile, log_spectrum
from verification.scores.screening import Linear, Profile

DIGITS = 6  # significant ones, in the file
QUANTILES = torch.linspace(0, 1, 101, dtype=torch.float64)


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


def bank_json(bank: Bank) -> str:
    """The file of a bank."""
    return json.dumps(_plain(asdict(bank)), sort_keys=True) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
