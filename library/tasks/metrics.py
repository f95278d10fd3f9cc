"""Scores of an answer against its references, and intervals over tasks."""

import functools
import string
from collections.abc import Sequence
from typing import Any

import torch


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-L F1 in [0, 1], best over references (Lin 2004; the rouge-score package, no stemmer).

    Where a reference is punctuation alone, the raw, trimmed strings are compared.
    """
    return max(_rouge_one(prediction, reference) for reference in references)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if equal to a reference after lower-casing and dropping punctuation, else 0.0."""
    return max(_exact_one(prediction, reference) for reference in references)


def bootstrap_ci95(values: Sequence[float], *, seed: int = 0, draws: int = 2000) -> list[float]:
    """Percentile bootstrap interval of the mean, resampling tasks (Efron 1979)."""
    data = torch.tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(data), (draws, len(data)), generator=generator)
    low, high = torch.quantile(
        data[picks].mean(dim=1), torch.tensor([0.025, 0.975], dtype=torch.float64)
    ).tolist()
    return [low, high]


def _rouge_one(prediction: str, reference: str) -> float:
    if not _normal(reference):
        return float(prediction.strip() == reference.strip())
    return float(_scorer().score(reference, prediction)["rougeL"].fmeasure)


def _exact_one(prediction: str, reference: str) -> float:
    if not _normal(reference):
        return float(prediction.strip() == reference.strip())
    return float(_normal(prediction) == _normal(reference))


def _normal(text: str) -> str:
    kept = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(kept.split())


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)
