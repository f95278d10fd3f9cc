"""Distances to a library as scores of planted backdoors: nearest cosine and E-DIEM."""

from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.screening_data import FOLDS, Pool, fold
from benchmarks.quality.thresholds import area_under_curve
from verification.scores.neighbours import distances, e_diem, squared_norms

CHUNK = 8


def distances_to(pool: Pool, clean: Pool, norms: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine `[n, m]` and distance by module `[n, m, sites]` of a pool's adapters to clean ones."""
    starts = range(0, len(pool.tasks), CHUNK)
    measured = [distances(pool.adapters[s : s + CHUNK], clean.adapters, norms) for s in starts]
    return torch.cat([f.cosine for f in measured]), torch.cat([f.by_module for f in measured])


def neighbour_scores(clean: Pool, poisoned: Pool) -> dict[str, list[Tensor]]:
    """Scores of clean and of poisoned adapters, by score; references are of other folds alone."""
    norms = squared_norms(clean.adapters)
    of_clean = distances_to(clean, clean, norms)
    groups = [(clean, *of_clean), (poisoned, *distances_to(poisoned, clean, norms))]
    scores: dict[str, list[list[Tensor]]] = {"distant": [[], []], "e-diem": [[], []]}
    for k in range(FOLDS):
        rest = torch.tensor([row for row, task in enumerate(clean.tasks) if fold(task) != k])
        pairs = of_clean[1][rest][:, rest][~torch.eye(len(rest), dtype=torch.bool)]
        mean, spread = pairs.mean(dim=0), pairs.std(dim=0)
        for side, (pool, cosine, by_module) in enumerate(groups):
            rows = torch.tensor([row for row, task in enumerate(pool.tasks) if fold(task) == k])
            nearest, column = cosine[rows][:, rest].max(dim=1)
            distance = by_module[rows, rest[column]]
            scores["distant"][side].append(-nearest)
            scores["e-diem"][side].append(e_diem(distance, mean, spread).amax(dim=1))
    return {name: [torch.cat(parts) for parts in sides] for name, sides in scores.items()}


def neighbour_rows(clean: Pool, poisoned: Pool) -> list[dict[str, Any]]:
    """AUC of each score; above 0.5, the poisoned ones are farther."""
    return [
        {
            "kind": "trigger",
            "against": "clean",
            "score": f"nearest neighbour, {name}",
            "auc": area_under_curve(of_poisoned, of_clean),
        }
        for name, (of_clean, of_poisoned) in neighbour_scores(clean, poisoned).items()
    ]
