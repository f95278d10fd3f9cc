"""Score of an adapter or generator against the number of tasks it was trained on: JSON, picture.

    python -m benchmarks.quality.task_curve --out docs/results/task-curve.json \\
        --picture docs/results/task-curve.png \\
        --point c256 256 1000 0 user=c256-user.json held-out=c256-held.json --point ...

A point is a name, the number of tasks, the steps, the seed, and for each bench a report of
`lorasmith evaluate`, whose method `multi-task`, prompted, is taken, or what `--method` and `--mode`
say. Scores x 100, with 95 % intervals over tasks.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def scores(report: Path, method: str, mode: str) -> dict[str, Any]:
    """Scores x 100 of a method and mode in a report."""
    means = json.loads(report.read_text(encoding="utf-8"))["means"]
    (mean,) = (m for m in means if (m["method"], m["mode"]) == (method, mode))
    return {
        **{name: round(100 * mean[name], 1) for name in ("rouge_l", "strict_exact", "in_labels")},
        "ci95": [round(100 * end, 1) for end in mean["ci95"]],
        "tasks": mean["tasks"],
    }


def point(arguments: list[str], method: str, mode: str) -> dict[str, Any]:
    """A point by name: what it was trained on, and its scores on each bench."""
    name, tasks, steps, seed, *reports = arguments
    benches = dict(report.split("=", 1) for report in reports)
    return {
        "name": name, "tasks": int(tasks), "steps": int(steps), "seed": int(seed),
        **{bench: scores(Path(path), method, mode) for bench, path in benches.items()},
    }  # fmt: skip


def drawn(axis: Any, points: list[dict[str, Any]], bench: str) -> None:
    """A line for each number of steps; `before` apart. Points are moved aside a little."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for each in points:
        label = "shipped before" if each["name"] == "before" else f"{each['steps']:,} steps"
        groups.setdefault(label, []).append(each)
    for i, (label, group) in enumerate(groups.items()):
        seeds = len({each["seed"] for each in group}) > 1
        x = [each["tasks"] * (1 + 0.03 * i + 0.06 * j * seeds) for j, each in enumerate(group)]
        y = [each[bench]["rouge_l"] for each in group]
        ends = zip(*(each[bench]["ci95"] for each in group), strict=True)
        bars = [[abs(end - s) for end, s in zip(side, y, strict=True)] for side in ends]
        axis.errorbar(x, y, bars, fmt="o" if seeds else "o-", label=label, elinewidth=0.7)
    axis.set_xscale("log")
    axis.set(xlabel="different tasks", ylabel="ROUGE-L x 100, 95 % interval", title=bench)
    axis.grid(alpha=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--point", nargs="+", action="append", required=True)
    parser.add_argument("--method", default="multi-task")
    parser.add_argument("--mode", default="prompted")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    o = parser.parse_args()
    points = [point(arguments, o.method, o.mode) for arguments in o.point]
    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for axis, bench in zip(axes, ("user", "held-out"), strict=True):
        drawn(axis, points, bench)
    axes[0].legend(loc="upper left")
    figure.savefig(o.picture, dpi=110)
    command = " ".join(["python", "-m", "benchmarks.quality.task_curve", *sys.argv[1:]])
    o.out.write_text(json.dumps({"command": command, "points": points}, indent=1) + "\n")


if __name__ == "__main__":
    main()
