"""Make index/search/confidence.json: how likely a search result is the right one, by score and
margin.

    python benchmarks/calibrate/confidence.py --tasks TRAIN... --out index/search/confidence.json

Never give it held-out tasks. Stands for many libraries: random ones of 24 tasks up to all, their
index made of definitions alone or of definitions and the mean with half of the paraphrases. Queries
are summaries and the other half of the paraphrases; a quarter is of tasks that the library lacks,
where it lacks any.
A result is right if it is the described task, or one whose definition is the same (cosine above
0.9995), which no search could tell apart. The reliability that is written beside the weights is out
of sample: five folds of tasks, near duplicates (cosine above 0.9) in one fold.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.quality.described import SAME, Described, Rows, described, mean_row
from index.encoders.descriptions import DEFAULT_ENCODER
from index.search.confidence import CONFIDENCE_FEATURES, confidence_features, margins
from library.files import write_file

SIZES = (24, 60, 120, 250, 500)
REPEATS, QUERIES, RESULTS, FOLDS = 4, 2, 5, 5
ABSENT = 0.25  # share of queries whose task the library lacks
NEAR = 0.9
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def families(cosines: Rows, threshold: float) -> np.ndarray:
    """For each task the first of those that are joined to it by cosines above a threshold."""
    family = np.arange(len(cosines))
    for i, j in zip(*np.where(np.triu(cosines > threshold, 1)), strict=True):
        family[family == family[j]] = family[i]
    return family


def cosines_of(queries: Rows, index: list[Rows]) -> Rows:
    """Score of every query with every task: the best of the task's rows."""
    starts = np.cumsum([0, *(len(rows) for rows in index[:-1])])
    return np.maximum.reduceat(queries @ np.concatenate(index).T, starts, axis=1)


def queries_of(tasks: list[Described]) -> tuple[Rows, np.ndarray]:
    rows = [np.concatenate([d.summary, d.queries]) for d in tasks]
    return np.concatenate(rows), np.repeat(np.arange(len(tasks)), [len(r) for r in rows])


def sample(
    scores: Rows, owners: np.ndarray, size: int, same: np.ndarray, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Results of queries to one random library, with whether each is right."""
    count = scores.shape[1]
    present = np.zeros(count, dtype=bool)
    present[rng.choice(count, min(size, count), replace=False)] = True
    picked = [rng.choice(np.flatnonzero(owners == t), QUERIES) for t in np.unique(owners)]
    queries = np.concatenate(picked)
    inside, outside = queries[present[owners[queries]]], queries[~present[owners[queries]]]
    absent = round(len(inside) * ABSENT / (1 - ABSENT))
    outside = rng.permutation(outside)[:absent]
    rows = []
    for query in np.concatenate([inside, outside]):
        masked = np.where(present, scores[query], -1)
        nearest = np.argsort(-masked)[: RESULTS + 10]
        gaps = margins(masked[nearest].tolist(), [str(t) for t in nearest])
        for rank, (column, gap) in enumerate(zip(nearest[:RESULTS], gaps, strict=False)):
            rows.append({
                "features": confidence_features(float(masked[column]), gap), "rank": rank,
                "size": size, "right": bool(same[column] == same[owners[query]]),
                "task": int(owners[query]), "held": bool(present[owners[query]]),
            })  # fmt: skip
    return rows


def fitted(rows: list[dict[str, Any]]) -> LogisticRegression:
    """Without features that would count against a result: it rises with score and margin."""
    inputs, right = np.array([r["features"] for r in rows]), [r["right"] for r in rows]
    used = np.ones(inputs.shape[1])
    while True:
        model = LogisticRegression(C=1e4, max_iter=2000).fit(inputs * used, right)
        if (model.coef_ >= 0).all():
            return model
        used[model.coef_[0] < 0] = 0


def reliability(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """First results by their claim: what was claimed and what came true."""
    top = [r for r in rows if r["rank"] == 0]
    claimed, right = (np.array([r[key] for r in top], dtype=float) for key in ("claim", "right"))
    bins: list[dict[str, Any]] = []
    error = 0.0
    for low, high in itertools.pairwise(BINS):
        inside = (claimed >= low) & (claimed < high if high < 1 else claimed <= 1)
        if inside.any():
            pair = float(claimed[inside].mean()), float(right[inside].mean())
            bins.append({"from": low, "to": high, "n": int(inside.sum()),
                         "claimed": round(pair[0], 3), "right": round(pair[1], 3)})  # fmt: skip
            error += abs(pair[0] - pair[1]) * float(inside.mean())
    brier = float(((claimed - right) ** 2).mean())
    return {"n": len(top), "expected calibration error": round(error, 4),
            "brier": round(brier, 4), "bins": bins}  # fmt: skip


def claim_out_of_sample(rows: list[dict[str, Any]], groups: np.ndarray) -> None:
    """Give each row the claim of a model that saw no query about a task of its group."""
    folds = np.random.default_rng(1).permutation(len(groups))[groups] % FOLDS
    for fold in range(FOLDS):
        model = fitted([r for r in rows if folds[r["task"]] != fold])
        members = [r for r in rows if folds[r["task"]] == fold]
        claims = model.predict_proba(np.array([r["features"] for r in members]))[:, 1]
        for row, claim in zip(members, claims.tolist(), strict=True):
            row["claim"] = claim


def drawn(tasks: list[Described], same: np.ndarray) -> list[dict[str, Any]]:
    """Results of queries to random libraries of all sizes, with either kind of index."""
    queries, owners = queries_of(tasks)
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    with_means = [mean_row(d.definition, d.indexed) for d in tasks]
    for index in ([d.definition for d in tasks], with_means):
        scores = cosines_of(queries, index)
        for size in (*SIZES, len(tasks)):
            for _ in range(max(REPEATS, REPEATS * 120 // size)):
                rows += sample(scores, owners, size, same, rng)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tasks = described(options.tasks)
    definitions = np.concatenate([d.definition for d in tasks])
    same, related = (families(definitions @ definitions.T, limit) for limit in (SAME, NEAR))
    rows = drawn(tasks, same)
    claim_out_of_sample(rows, related)
    final = fitted(rows)
    weights: list[float] = final.coef_.ravel().tolist()
    result = {
        "command": "python benchmarks/calibrate/confidence.py --tasks train train_extra",
        "encoder": DEFAULT_ENCODER,
        "bias": np.ravel(final.intercept_).tolist()[0],
        "weights": dict(zip(CONFIDENCE_FEATURES, weights, strict=True)),
        "tasks": len(tasks),
        "families": len(np.unique(related)),
        "share of queries whose task is absent": ABSENT,
        "reliability": {
            "all": reliability(rows),
            "task in the library": reliability([r for r in rows if r["held"]]),
            "small libraries": reliability([r for r in rows if r["size"] <= 60]),
            "large libraries": reliability([r for r in rows if r["size"] >= 250]),
        },
    }
    write_file(options.out, (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    print(json.dumps(result["reliability"], indent=1))


if __name__ == "__main__":
    main()
