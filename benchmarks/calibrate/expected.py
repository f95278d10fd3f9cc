"""Calibrates `expected`: answers that will be exactly right, from what is known at request time.

    python -m benchmarks.calibrate.expected --fit user-*.json --check heldout-*.json \\
        --file generator/expected.json --out docs/results/expected.json
    python -m benchmarks.calibrate.expected --check reporting-*.json --picture reliability.png
    python -m benchmarks.calibrate.expected --fit docs/results/second-base-user.json \\
        --check docs/results/second-base-reporting.json \\
        --file generator/expected-qwen2.5-coder-0.5b.json \\
        --out docs/results/expected-second-base.json

Reports of `lorasmith evaluate` on tasks that nothing was trained on. Fitted on those of --fit;
those of --check choose nothing; both are of one base. Without --fit the calibration in --file, by
default the one of the default base, is checked as it is. A point is one task under one method,
mode and seed; everything that is fitted on a task's own points is left out when that task is
predicted.
"""

import argparse
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy

import pretrained
from benchmarks.calibrate.points import Point, points_of
from benchmarks.calibrate.reliability import Judged, judged, reliability_picture, reliability_table
from generator.engine import read_generator
from generator.expected import FILE, LEAST_POINTS, ScoreFit, ScoreRange, predicted
from generator.models.base import registered
from generator.strategies.multi_task import MultiTask, shipped_multi_tasks
from index.merge.parents import stated_base
from library.canonical import file_digest
from library.files import write_file
from library.peft.folder import read_adapter_folder
from library.peft.write import WEIGHTS_FILE

LOW, HIGH = 0.1, 0.9


def main() -> None:
    o = _options()
    base_sha256 = json.loads((o.fit or [o.file])[0].read_text())["base_sha256"]
    points, checks = points_of(o.fit, base_sha256), points_of(o.check, base_sha256)
    if o.fit:
        write_file(o.file, (json.dumps(_fitted(points, o.fit), indent=1) + "\n").encode())
    content = json.loads(o.file.read_text())
    fit = content["held_out"] and ScoreFit(**content["held_out"])
    groups = {name: ScoreRange(**group) for name, group in content["groups"].items()}
    left_out = _known([(p, _left_out(p, points)) for p in points])
    fresh = _known([(p, _predict(p, fit, groups)) for p in checks])
    parts = {
        "fitted": left_out,
        "checked": fresh,
        "fitted_with_held_out": [(p, e) for p, e in left_out if p.share is not None],
        "checked_with_held_out": [(p, e) for p, e in fresh if p.share is not None],
    }
    found = {name: judged(part) for name, part in parts.items()}
    if o.out is not None:
        command = " ".join(["python", "-m", "benchmarks.calibrate.expected", *sys.argv[1:]])
        write_file(o.out, (json.dumps({"command": command, **found}, indent=1) + "\n").encode())
    if o.picture is not None:
        reliability_picture(o.picture, {name: part for name, part in parts.items() if part})
    print(reliability_table({name: part for name, part in found.items() if part}))


def _fitted(points: Sequence[Point], paths: Sequence[Path]) -> dict[str, Any]:
    """The calibration file's content."""
    tasks, fit = len({point.task for point in points}), _fit(points)
    base_sha256 = json.loads(paths[0].read_text())["base_sha256"]
    return {
        "held_out": None if fit is None else asdict(fit),
        "groups": {name: asdict(group) for name, group in _groups(points).items()},
        "calibration": f"from {tasks} user-style tasks that nothing was trained on",
        "base_sha256": base_sha256,
        "checkpoints": {
            **_shipped({point.group.split(",")[0] for point in points}),
            MultiTask.name: file_digest(_multi_task(base_sha256) / WEIGHTS_FILE),
        },
        "sources": {path.name: file_digest(path) for path in paths},
    }


def _known(pairs: Sequence[tuple[Point, ScoreRange | None]]) -> Judged:
    """Without the points of which nothing is expected, as nothing like them was fitted."""
    return [(point, expected) for point, expected in pairs if expected is not None]


def _shipped(measured: Collection[str]) -> dict[str, str]:
    """Digests of the shipped checkpoints, which reports of --fit measure, by generator."""
    return {
        name: read_generator(pretrained.folder(name)).digest
        for name in registered()
        if name in measured
    }


def _multi_task(base_sha256: str) -> Path:
    """The folder of the shipped multi-task adapter of a base."""
    for folder in shipped_multi_tasks():
        if stated_base(str(folder), read_adapter_folder(folder))["sha256"] == base_sha256:
            return folder
    sys.exit("no multi-task adapter that ships is for the base of --fit")


def _fit(points: Sequence[Point]) -> ScoreFit | None:
    """Least squares of the score on the held-out share and confidence; spread of the residuals.

    None where fewer than LEAST_POINTS have held-out examples.
    """
    rows = [p for p in points if p.share is not None]
    if len(rows) < LEAST_POINTS:
        return None
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


def _predict(
    point: Point, fit: ScoreFit | None, groups: dict[str, ScoreRange]
) -> ScoreRange | None:
    if point.share is None or point.confidence is None:
        return groups.get(point.group)
    return None if fit is None else predicted(fit, point.share, point.confidence)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fit", type=Path, nargs="+", default=[])
    parser.add_argument("--check", type=Path, nargs="*", default=[])
    parser.add_argument("--file", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.fit and options.file is None:
        parser.error("--fit needs --file, where the calibration goes")
    if not options.fit and not options.check:
        parser.error("--check needs reports where there is no --fit")
    options.file = options.file or FILE
    return options


if __name__ == "__main__":
    main()
