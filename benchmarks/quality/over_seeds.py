"""Mean scores over several draws of the examples: reports of one evaluation with different seeds.

    python -m benchmarks.quality.over_seeds docs/results/refine-user.json \\
        docs/results/refine-user-seed1.json docs/results/refine-user-seed2.json \\
        --out docs/results/refine-user-seeds.json

A task's score is its mean over the seeds; intervals and pairs of methods are those of
`lorasmith evaluate`, over tasks. Methods and modes that a report lacks are left out.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from training.evaluation.comparison import Row, averaged, by_cell, means, pairs


def drawn_by_all(reports: list[list[Row]]) -> list[Row]:
    """One row for each task, method and mode that all reports have."""
    cells = by_cell([row for rows in reports for row in rows])
    return [averaged(cell) for cell in cells if len(cell) == len(reports)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in o.reports]
    rows = drawn_by_all([report["rows"] for report in reports])
    result: dict[str, Any] = {
        "command": " ".join(["python", "-m", "benchmarks.quality.over_seeds", *sys.argv[1:]]),
        "seeds": [report["seed"] for report in reports],
        "means": means(rows, "method", "mode", "split"),
        "pairs": pairs(rows),
        "by_seed": [
            {"seed": report["seed"], "method": m["method"], "mode": m["mode"],
             "rouge_l": m["rouge_l"], "strict_exact": m["strict_exact"]}
            for report in reports
            for m in report["means"]
            if any((m["method"], m["mode"]) == (row["method"], row["mode"]) for row in rows)
        ],
    }  # fmt: skip
    o.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for m in result["means"]:
        score, exact = 100 * m["rouge_l"], 100 * m["strict_exact"]
        print(f"{m['method']:24}{m['mode']:10}{score:6.1f} {_percent(m['ci95'])} exact {exact:.1f}")
    for p in result["pairs"]:
        difference = f"{100 * p['difference']:.1f} {_percent(p['ci95'])}"
        print(f"{p['a']} - {p['b']}, {p['mode']}: {difference}")


def _percent(interval: tuple[float, float]) -> str:
    return "({:.1f} to {:.1f})".format(*(100 * end for end in interval))


if __name__ == "__main__":
    main()
