"""Calibrate `auto` on train tasks set aside: when to take the nearest adapter, what to expect.

    python benchmarks/calibrate/auto.py --generated docs/results/tuning/recipe-1600-steps.json \
        --retrieved docs/results/auto-set-aside.json --seen docs/results/methods-seen.json \
        --out generator/strategies/calibration.json --report docs/results/auto-calibration.json \
        --picture docs/results/auto-calibration.png

`--generated` and `--retrieved` are reports on the same tasks, which neither the generator's
training nor the library has seen (docs/strategies.md says how they are made); `--seen` measures
each task of a library with its own adapter left out. The threshold is the one with the best mean
score, if it beats always generating when it is chosen without the task that it is applied to.
Else none can be trusted, and only an adapter of the very description that is asked for is taken.
Curves of recovery over similarity are logistic, or constant where that predicts left-out tasks
better.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.quality.described import SAME
from index.encoders.descriptions import DEFAULT_ENCODER
from library.canonical import file_digest
from training.evaluation.comparison import LEAST_GAIN

MODE = "bare"
NEVER = 1.01  # no cosine reaches it
Point = tuple[float, float]
Curve = Callable[[float], float]


def scores(report: dict[str, Any], method: str) -> dict[str, float]:
    """ROUGE-L by task."""
    rows = report["rows"]
    return {r["task"]: r["rouge_l"] for r in rows if (r["method"], r["mode"]) == (method, MODE)}


def best_threshold(points: Sequence[tuple[float, float, float]]) -> float:
    """The similarity from which on to take the nearest, of (similarity, its score, generated).

    Candidates lie midway between similarities; of equally good ones the highest.
    """
    similarities = sorted({similarity for similarity, _, _ in points})
    candidates = [*((a + b) / 2 for a, b in pairwise(similarities)), NEVER]
    return max(candidates, key=lambda t: (round(mean_at(points, t), 12), t))


def mean_at(points: Sequence[tuple[float, float, float]], threshold: float) -> float:
    """Mean score of taking the nearest from a similarity on, else generating."""
    scores = [nearest if s >= threshold else generated for s, nearest, generated in points]
    return sum(scores) / len(points)


def left_out(points: Sequence[tuple[float, float, float]]) -> float:
    """Mean score if the threshold is chosen without the task that it is applied to."""
    rows = list(points)
    total = 0.0
    for i, point in enumerate(rows):
        total += mean_at([point], best_threshold(rows[:i] + rows[i + 1 :]))
    return total / len(rows)


def constant(points: Sequence[Point]) -> Curve:
    mean = sum(y for _, y in points) / len(points)
    return lambda x: mean


def logistic(points: Sequence[Point]) -> Curve:
    """1 / (1 + exp(-(a + b·x))), least squares."""
    from scipy.optimize import least_squares

    x, y = (np.array(values) for values in zip(*points, strict=True))

    def shape(p: Any, similarity: Any) -> Any:
        return 1 / (1 + np.exp(-(p[0] + p[1] * (similarity - 0.7))))

    fit = least_squares(lambda p: shape(p, x) - y, (0.0, 1.0))
    return lambda similarity: float(shape(fit.x, similarity))


def error(fit: Callable[[Sequence[Point]], Curve], points: Sequence[Point]) -> float:
    """Root mean squared error on tasks that were left out, one at a time.

    To six digits: the fit's own tolerance, and processors round differently beyond it.
    """
    rows = list(points)
    squares = [(fit(rows[:i] + rows[i + 1 :])(x) - y) ** 2 for i, (x, y) in enumerate(rows)]
    return round(float(np.sqrt(np.mean(squares))), 6)


def recoveries(
    score: dict[str, float], similarity: dict[str, float], seen: dict[str, Any]
) -> list[Point]:
    """(similarity, recovery) of the tasks whose oracle gains enough, recovery kept in [0, 1]."""
    base, oracle = scores(seen, "base"), scores(seen, "oracle")
    return [
        (similarity[t], min(1.0, max(0.0, (score[t] - base[t]) / (oracle[t] - base[t]))))
        for t in sorted(score.keys() & similarity.keys() & base.keys() & oracle.keys())
        if oracle[t] - base[t] >= LEAST_GAIN
    ]


def fitted(points: Sequence[Point]) -> tuple[Curve, dict[str, Any]]:
    """The curve that predicts left-out tasks better, and what a report says of it."""
    errors = {"constant": error(constant, points), "logistic": error(logistic, points)}
    name = min(errors, key=errors.__getitem__)
    curve = {"constant": constant, "logistic": logistic}[name](points)
    return curve, {"tasks": len(points), "curve": name, "error_left_out": errors, "points": points}


def picture(path: Path, curves: dict[str, tuple[Curve, dict[str, Any]]], threshold: float) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(10, 3.2), layout="constrained")
    grid = np.linspace(0.3, 1, 60)
    for axis, (name, (curve, about)) in zip(axes, curves.items(), strict=True):
        axis.scatter(*zip(*about["points"], strict=True), s=12, alpha=0.5, color="#4a7fb5")
        axis.plot(grid, [curve(x) for x in grid], color="#1c2024")
        axis.axvline(threshold, color="#b5524a", linestyle="--", linewidth=1)
        title = f"{name} ({about['tasks']} tasks, {about['curve']})"
        axis.set(xlabel="similarity of the nearest", ylabel="recovery", title=title)
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("generated", "retrieved", "seen", "out", "report", "picture"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    o = parser.parse_args()
    reports = {"generated": o.generated, "retrieved": o.retrieved, "seen": o.seen}
    read = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in reports.items()}
    generated = scores(read["generated"], "text-to-lora")
    nearest, similarity = scores(read["retrieved"], "nearest"), read["retrieved"]["similarity"]
    tasks = sorted(generated.keys() & nearest.keys() & similarity.keys())
    points = [(similarity[t], nearest[t], generated[t]) for t in tasks]
    fitted_threshold = round(best_threshold(points), 3)
    gain = left_out(points) - mean_at(points, NEVER)
    threshold = fitted_threshold if gain > 0 else SAME
    seen = read["seen"]
    curves = {
        "text-to-lora": fitted(recoveries(generated, similarity, seen)),
        "nearest": fitted(recoveries(scores(seen, "nearest"), seen["similarity"], seen)),
        "compose": fitted(recoveries(scores(seen, "top-k"), seen["similarity"], seen)),
    }
    digests = {name: file_digest(path) for name, path in reports.items()}
    grid = [round(0.05 * i, 2) for i in range(21)]
    calibrated = {
        "format": 1,
        "base": read["seen"]["base"],
        "base_sha256": read["seen"]["base_sha256"],
        "encoder": DEFAULT_ENCODER,
        "calibrated_on": {"tasks": len(tasks), "sha256_of_reports": digests},
        "nearest_from": threshold,
        "recovery": {
            name: [[x, round(curve(x), 3)] for x in grid] for name, (curve, _) in curves.items()
        },
    }
    report = {
        "reports": {name: path.name for name, path in reports.items()},
        "sha256_of_reports": digests,
        "mode": MODE,
        "nearest_from": threshold,
        "fitted_threshold": fitted_threshold,
        "tasks_at_or_above_fitted": sum(s >= fitted_threshold for s, _, _ in points),
        "mean_rouge_l": {
            "text-to-lora": mean_at(points, NEVER),
            "nearest": mean_at(points, -NEVER),
            "auto": mean_at(points, threshold),
            "fitted threshold": mean_at(points, fitted_threshold),
            "fitted threshold, chosen without the task": left_out(points),
            "better of the two, known afterwards": sum(max(n, m) for _, n, m in points)
            / len(points),
        },
        "tasks": [
            {"task": t, "similarity": s, "nearest": n, "text-to-lora": m}
            for t, (s, n, m) in zip(tasks, points, strict=True)
        ],
        "curves": {name: about for name, (_, about) in curves.items()},
    }
    for path, value in ((o.out, calibrated), (o.report, report)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    picture(o.picture, curves, threshold)
    print(json.dumps({"nearest_from": threshold, **report["mean_rouge_l"]}, indent=1))


if __name__ == "__main__":
    main()
