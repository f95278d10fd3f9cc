"""Scores of an answer against its references, and intervals over tasks."""

import functools
import json
import string
from collections.abc import Callable, Sequence
from typing import Any

import torch

DRAWS = 2000  # of the bootstrap
_NOT_JSON = object()


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-L F1 in [0, 1], best over references (Lin 2004; the rouge-score package, no stemmer).

    Where a reference is punctuation alone, the raw, trimmed strings are compared.
    """
    return _best(prediction, references, _rouge)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if equal to a reference after lower-casing and dropping punctuation, else 0.0."""
    return _best(prediction, references, lambda one, other: float(_normal(one) == _normal(other)))


def strict_exact(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the prediction equals a reference after trimming alone, else 0.0."""
    return float(prediction.strip() in {reference.strip() for reference in references})


def valid_json(prediction: str) -> float:
    """1.0 if the prediction is JSON (RFC 8259: without NaN and Infinity), else 0.0."""
    return float(_parsed(prediction) is not _NOT_JSON)


def json_fields(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the prediction is JSON with exactly the keys of a reference, in any order, else 0.0.

    Of an array as many members as the reference's, each with the keys of its counterpart.
    """
    found = _parsed(prediction)
    if found is _NOT_JSON:
        return 0.0
    return float(_fields(found) in [_fields(_parsed(reference)) for reference in references])


def is_structured(text: str) -> bool:
    """Whether a text is a JSON object or array."""
    return isinstance(_parsed(text), dict | list)


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


def _best(prediction: str, references: Sequence[str], score: Callable[[str, str], float]) -> float:
    """The best score over references; raw, trimmed strings where one is punctuation alone."""
    return max(
        score(prediction, reference)
        if _normal(reference)
        else float(prediction.strip() == reference.strip())
        for reference in references
    )


def _rouge(prediction: str, reference: str) -> float:
    return float(_scorer().score(reference, prediction)["rougeL"].fmeasure)


def _normal(text: str) -> str:
    words = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
    return " ".join(words)


def _parsed(text: str) -> Any:
    """The value of a JSON text, or _NOT_JSON."""
    try:
        return json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _fields(value: Any) -> Any:
    """The keys of an object; those of each member of an array; None of any other value."""
    if isinstance(value, dict):
        return frozenset(value)
    return tuple(map(_fields, value)) if isinstance(value, list) else None


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)
