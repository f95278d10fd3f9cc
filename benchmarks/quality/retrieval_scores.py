"""Ranks of what was looked for, recall and MRR beside chance, and folds of unseen tasks."""

import hashlib
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

FOLDS, ANSWERS = 5, (1, 5, 10)


def ranks_of(cosines: Float[Tensor, "q c"], correct: Tensor, among_own: bool) -> list[int]:
    """The place of each query's own candidate, 1 being the best; ties count against it."""
    if among_own:
        cosines, correct = cosines[:, correct], torch.arange(len(correct))
    return (cosines >= cosines.gather(1, correct[:, None])).sum(dim=1).tolist()


def summary(ranks: Sequence[int], sizes: Sequence[int]) -> dict[str, Any]:
    """In per cent, chance beside it; `sizes` are the numbers of candidates."""
    figures: dict[str, Any] = {"queries": len(ranks)}
    for k in ANSWERS:
        figures[f"recall_{k}"] = percent([rank <= k for rank in ranks])
        figures[f"chance_{k}"] = percent([k / size for size in sizes])
    figures["mrr"] = percent([1 / rank for rank in ranks])
    harmonic = [sum(1 / i for i in range(1, size + 1)) / size for size in sizes]
    return {**figures, "chance_mrr": percent(harmonic)}


def best_ridges(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each baseline's penalty that is best on these very tasks, which favours the baseline."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        name, _, ridge = row["method"].partition(", ")
        row = {**row, "method": name, "ridge": float(ridge) if ridge else None}
        key = (name, row["library"], row["direction"], row["candidates"])
        if key not in best or row["recall_10"] > best[key]["recall_10"]:
            best[key] = row
    return list(best.values())


def percent(values: Sequence[float]) -> float:
    return round(100 * statistics.mean(values), 2)


def folds_of(names: Sequence[str], kinds: dict[str, str], by: str) -> list[list[str]]:
    """Five folds of single tasks or of whole categories, ordered by digest; the smallest grows."""

    def key(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(kinds[name] if by == "category" else name, []).append(name)
    folds: list[list[str]] = [[] for _ in range(FOLDS)]
    for group in sorted(groups, key=lambda group: (-len(groups[group]), key(group))):
        min(folds, key=len).extend(groups[group])
    return folds
