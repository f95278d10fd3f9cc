"""Scores of an answer against its references, and intervals over tasks."""

import functools
import string
from collections.abc import Sequence
from typing import Any

import torch

DRAWS = 2000  # of the bootstrap


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-L F1 in [0, 1], best over references (Lin 2004; the rouge-score package, no stemmer).

    Where a reference is punctuation alone, the raw, trimmed strings are compared.
    """
    return max(_rouge_one(prediction, reference) for reference in references)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if equal to a reference after lower-casing and dropping punctuation, else 0.0."""
    return max(_exact_one(prediction, reference) for reference in references)


def strict_exact(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the prediction equals a reference after trimming alone, else 0.0."""
    return float(prediction.strip() in {reference.strip() for reference in references})


def bootstrap_ci95(values: Sequence[float]) -> list[float]:
    """Percentile bootstrap interval of the mean, resampling tasks (Efron 1979).

    scipy.stats.bootstrap draws other samples from a seed, which would change every published
    interval.
    """
    data = torch.tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    samples = data[torch.randint(len(data), (DRAWS, len(data)), generator=generator)]
    quantiles = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return torch.quantile(samples.mean(dim=1), quantiles).tolist()  # samples: (draws, tasks)


def _rouge_one(prediction: str, reference: str) -> float:
    if not _normal(reference):
        return float(prediction.strip() == reference.strip())
    return float(_scorer().score(reference, prediction)["rougeL"].fmeasure)


def _exact_one(prediction: str, reference: str) -> float:
    if not _normal(reference):
        return float(prediction.strip() == reference.strip())
    return float(_normal(prediction) == _normal(reference))


def _normal(text: str) -> str:
    words = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
    return " ".join(words)


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)
