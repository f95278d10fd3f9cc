"""Calibrates `expected`: answers that will be exactly right, from what is known at request time.

    python -m benchmarks.calibrate.expected --fit user-*.json --check heldout-*.json \\
        --file generator/expected.json --out docs/results/expected.json

Reports of `lorasmith evaluate` on tasks that nothing was trained on. Fitted on those of --fit;
those of --check choose nothing. A point is one task under one method, mode and seed; everything
that is fitted on a task's own points is left out when that task is predicted.
"""

import argparse
import json
import math
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy

import pretrained
from generator.engine import read_generator
from generator.expected import LEAST_POINTS, TRAINED, ScoreFit, ScoreRange, group_of, predicted
from generator.models.base import registered
from generator.strategies.multi_task import MultiTask
from library.canonical import file_digest
from library.files import write_file
from library.peft.write import WEIGHTS_FILE
from training.evaluation.comparison import spearman

LOW, HIGH = 0.1, 0.9
THIRD = 100 / 3


@dataclass(frozen=True)
class Point:
    """A measured adapter: what was known of it, and the share of exact answers x 100."""

    task: str
    group: str
    share: float | None
    confidence: float | None
    score: float


def main() -> None:
    o = _options()
    points, checks = _points(o.fit), _points(o.check)
    fit, groups = _fit(points), _groups(points)
    first = json.loads(o.fit[0].read_text())
    tasks = len({point.task for point in points})
    content = {
        "held_out": asdict(fit),
        "groups": {name: asdict(group) for name, group in groups.items()},
        "calibration": f"from {tasks} user-style tasks that nothing was trained on",
        "base_sha256": first["base_sha256"],
        "checkpoints": {
            **_shipped({point.group.split(",")[0] for point in points}),
            MultiTask.name: file_digest(pretrained.folder(MultiTask.name) / WEIGHTS_FILE),
        },
        "sources": {path.name: file_digest(path) for path in o.fit},
    }
    write_file(o.file, (json.dumps(content, indent=1) + "\n").encode())
    left_out = [(p, _left_out(p, points)) for p in points]
    fresh = [(p, _predict(p, fit, groups)) for p in checks]
    report = {
        "command": " ".join(["python", "-m", "benchmarks.calibrate.expected", *sys.argv[1:]]),
        "fitted": _judged([(p, e) for p, e in left_out if e is not None]),
        "checked": _judged([(p, e) for p, e in fresh if e is not None]),
        "fitted_with_held_out": _judged([(p, e) for p, e in left_out if e and p.share is not None]),
        "checked_with_held_out": _judged([(p, e) for p, e in fresh if e and p.share is not None]),
    }
    write_file(o.out, (json.dumps(report, indent=1) + "\n").encode())
    print(json.dumps({k: v for k, v in report.items() if k != "command"}, indent=1))


def _shipped(measured: Collection[str]) -> dict[str, str]:
    """Digests of the shipped checkpoints, which reports of --fit measure, by generator."""
    return {
        name: read_generator(pretrained.folder(name)).digest
        for name in registered()
        if name in measured
    }


def _points(paths: Sequence[Path]) -> list[Point]:
    """The rows of reports that a strategy's adapter answered, in the prompt it was made for."""
    points = []
    for path in paths:
        for row in json.loads(path.read_text())["rows"]:
            refined, method = row.get("refined"), row["method"]
            name = method.removeprefix("refine:").split(":")[0]
            if method in ("base", "oracle") or name == "in-context":
                continue
            if name == "multi-task" and row["usage"] == "bare" and refined is None:
                continue
            held_out = (refined or {}).get("held_out")
            group = group_of(name, row["usage"]) if refined is None else TRAINED
            share = held_out["right"] / held_out["of"] if held_out else None
            confidence = math.exp(-held_out["loss"]) if held_out else None
            points.append(Point(row["task"], group, share, confidence, 100 * row["strict_exact"]))
    return points


def _fit(points: Sequence[Point]) -> ScoreFit:
    """Least squares of the score on the held-out share and confidence; spread of the residuals."""
    rows = [p for p in points if p.share is not None]
    x = numpy.array([[1.0, p.share or 0.0, p.confidence or 0.0] for p in rows])
    y = numpy.array([p.score for p in rows])
    (intercept, share, confidence), *_ = numpy.linalg.lstsq(x, y, rcond=None)
    residuals = y - x @ numpy.array([intercept, share, confidence])
    low, high = numpy.quantile(residuals, [LOW, HIGH])
    return ScoreFit(*(round(float(v), 3) for v in (intercept, share, confidence, low, high)))


def _groups(points: Sequence[Point]) -> dict[str, ScoreRange]:
    """For what has no held-out examples: quantiles of the scores of its kind."""
    groups: dict[str, list[float]] = {}
    for point in points:
        if point.share is None:
            groups.setdefault(point.group, []).append(point.score)
    ranges = {
        name: (numpy.mean(scores), *numpy.quantile(scores, [LOW, HIGH]))
        for name, scores in groups.items()
        if len(scores) >= LEAST_POINTS
    }
    return {name: ScoreRange(*(round(float(v), 1) for v in ends)) for name, ends in ranges.items()}


def _left_out(point: Point, points: Sequence[Point]) -> ScoreRange | None:
    others = [p for p in points if p.task != point.task]
    return _predict(point, _fit(others), _groups(others))


def _predict(point: Point, fit: ScoreFit, groups: dict[str, ScoreRange]) -> ScoreRange | None:
    if point.share is None or point.confidence is None:
        return groups.get(point.group)
    return predicted(fit, point.share, point.confidence)


def _judged(pairs: Sequence[tuple[Point, ScoreRange]]) -> dict[str, Any]:
    """Rank correlation, coverage, the warning's precision and recall, and a reliability table."""
    if not pairs:
        return {}
    scores, said = [p.score for p, _ in pairs], [e.score for _, e in pairs]
    low = [s < THIRD for s in scores]
    warned = [e < THIRD for e in said]
    hits = sum(a and b for a, b in zip(low, warned, strict=True))
    order = sorted(range(len(pairs)), key=said.__getitem__)
    bins = [part for part in numpy.array_split(numpy.array(order), 6) if len(part)]
    return {
        "points": len(pairs),
        "spearman": round(spearman(said, scores), 3),
        "coverage": round(sum(e.low <= p.score <= e.high for p, e in pairs) / len(pairs), 3),
        "width": round(sum(e.high - e.low for _, e in pairs) / len(pairs), 1),
        "warning_precision": round(hits / max(1, sum(warned)), 3),
        "warning_recall": round(hits / max(1, sum(low)), 3),
        "reliability": [
            {
                "expected": round(float(numpy.mean([said[i] for i in part])), 1),
                "measured": round(float(numpy.mean([scores[i] for i in part])), 1),
                "points": len(part),
            }
            for part in bins
        ],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", type=Path, nargs="+", required=True)
    parser.add_argument("--check", type=Path, nargs="*", default=[])
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
