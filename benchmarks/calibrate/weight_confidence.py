"""Make index/search/weight_confidence.json: how likely a result that was found by weights is right.

    python benchmarks/calibrate/weight_confidence.py --libraries LIB LIB2 --tasks TRAIN \
        --out index/search/weight_confidence.json

As benchmarks/calibrate/confidence.py, for queries to the index of weights: by text (definitions,
summaries and paraphrases), by an adapter of the other library, which is another training of the
same tasks, and by both. Queries are of tasks that the weight encoder has not seen, and so is every
adapter of half of the random libraries; the others, of up to 200, hold seen tasks too. A
quarter of the queries is of tasks that the library lacks. Never give it held-out tasks.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.calibrate.confidence import (
    ABSENT,
    NEAR,
    claim_out_of_sample,
    families,
    fitted,
    reliability,
    sample,
)
from benchmarks.quality.described import SAME, Rows, described
from index.encoders.weights import WeightEncoder, load_weight_encoder
from index.search.confidence import CONFIDENCE_FEATURES
from index.search.query import TEXT_SHARE
from index.search.sources import WeightSource
from index.search.sync import open_index
from library.files import write_file

OF_UNSEEN, OF_ALL = (24, 40), (60, 120, 200)  # adapters in a random library
DRAWS = {OF_UNSEEN: 60, OF_ALL: 40}  # libraries of each size


@dataclass(frozen=True)
class Queries:
    """Unit vectors in the space of the weights, and the place of each one's task."""

    vectors: Rows
    owners: np.ndarray


def vectors_of(url: str, names: list[str], encoder: WeightEncoder) -> Rows:
    """A library's weights as its index holds them, one row a task."""
    state = open_index(url, WeightSource(encoder)).view
    rows = dict(zip((e.task for e in state.entries()), state.vectors(), strict=True))
    return np.stack([rows[name] for name in names])


def texts_of(tasks: list[Any], unseen: np.ndarray, encoder: WeightEncoder) -> Queries:
    rows = [np.concatenate([d.definition, d.summary, d.paraphrases]) for d in tasks]
    flat = torch.from_numpy(np.concatenate([rows[index] for index in unseen]))
    owners = np.repeat(unseen, [len(rows[index]) for index in unseen])
    return Queries(encoder.describe(flat).numpy(), owners)


def both(texts: Queries, adapters: Rows, share: float = TEXT_SHARE) -> Queries:
    mean = share * texts.vectors + adapters[texts.owners]
    return Queries(mean / np.linalg.norm(mean, axis=1, keepdims=True), texts.owners)


def twins_found(texts: Queries, library: Rows, other: Rows) -> dict[str, float]:
    """Recall@1 of an adapter's twin by what a text of its task counts beside it."""
    shares = {}
    for share in (0.0, TEXT_SHARE, 0.5, 1.0):
        queries = both(texts, other, share)
        first = (queries.vectors @ library.T).argmax(axis=1) == queries.owners
        shares[str(share)] = round(float(first.mean()), 3)
    return shares


def drawn(
    queries: Queries, library: Rows, unseen: np.ndarray, same: np.ndarray, seed: int
) -> list[dict[str, Any]]:
    """Results in random libraries of unseen tasks, and in such that hold others too."""
    rng, rows = np.random.default_rng(seed), []
    scores = queries.vectors @ library.T
    column_of = {task: number for number, task in enumerate(unseen.tolist())}
    owners = np.array([column_of[task] for task in queries.owners.tolist()])
    for size in OF_UNSEEN:
        for _ in range(DRAWS[OF_UNSEEN]):
            drawn_rows = sample(scores[:, unseen], owners, size, same[unseen], rng)
            rows += [{**row, "task": int(unseen[row["task"]])} for row in drawn_rows]
    for size in OF_ALL:
        for _ in range(DRAWS[OF_ALL]):
            rows += sample(scores, queries.owners, size, same, rng)
    return rows


def calibrated(rows: list[dict[str, Any]], related: np.ndarray) -> dict[str, Any]:
    claim_out_of_sample(rows, related)
    final = fitted(rows)
    weights: list[float] = final.coef_.ravel().tolist()
    return {
        "bias": np.ravel(final.intercept_).tolist()[0],
        "weights": dict(zip(CONFIDENCE_FEATURES, weights, strict=True)),
        "reliability": {
            "all": reliability(rows),
            "task in the library": reliability([r for r in rows if r["held"]]),
            "task not in the library": reliability([r for r in rows if not r["held"]]),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libraries", nargs=2, required=True)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    encoder = load_weight_encoder()
    stored = {
        e.task for e in open_index(options.libraries[0], WeightSource(encoder)).view.entries()
    }
    tasks = [d for d in described(options.tasks) if d.task.name in stored]
    names = [d.task.name for d in tasks]
    seen = set(encoder.info.tasks)
    unseen = np.array([index for index, name in enumerate(names) if name not in seen])
    definitions = np.concatenate([d.definition for d in tasks])
    same, related = (families(definitions @ definitions.T, limit) for limit in (SAME, NEAR))
    stocks = [vectors_of(index, names, encoder) for index in options.libraries]
    texts = texts_of(tasks, unseen, encoder)
    rows: dict[str, list[dict[str, Any]]] = {"text": [], "adapter": [], "both": []}
    for seed, (library, other) in enumerate((stocks, stocks[::-1])):
        kinds = {"text": texts, "adapter": Queries(other[unseen], unseen)}
        for kind, queries in {**kinds, "both": both(texts, other)}.items():
            rows[kind] += drawn(queries, library, unseen, same, seed)
    result = {
        "command": "python benchmarks/calibrate/weight_confidence.py --libraries LIB LIB2 "
        "--tasks train",
        "weight encoder": encoder.digest,
        "tasks": len(tasks),
        "unseen tasks": len(unseen),
        "families of unseen tasks": len(np.unique(related[unseen])),
        "share of queries whose task is absent": ABSENT,
        "recall@1 of twins by share of the text": twins_found(texts, *stocks),
        **{kind: calibrated(drawn_rows, related) for kind, drawn_rows in rows.items()},
    }
    write_file(options.out, (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    print(json.dumps({kind: result[kind]["reliability"] for kind in rows}, indent=1))


if __name__ == "__main__":
    main()
