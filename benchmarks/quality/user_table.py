"""The table of user-style tasks in the README, and pairs of methods over several benches together.

    python -m benchmarks.quality.user_table --user seed0.json seed1.json seed2.json \\
        --others heldout-seed0.json heldout-seed1.json heldout-seed2.json \\
        --pair auto/best multi-task/prompted --out docs/results/user-table.json

Reports of `lorasmith evaluate`, in any parts: those of --user on the reporting half, those of
--others on tasks that count beside it in pairs. Reports that hold one cell twice are draws of it
(seeds, trainings): a task's score is the mean over its draws. `LABEL=REPORT` puts a label behind
the methods of a report. Intervals resample tasks; a pair is one of two methods, each in a mode of
its own, by the tasks that both have.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.join_reports import read_part
from library.canonical import file_digest
from library.files import write_file
from library.tasks.metrics import bootstrap_ci95
from training.evaluation.comparison import Row, averaged, by_cell, means, pairs
from training.evaluation.report import interval, markdown, percent

TITLES = (
    "method", "mode", "draws", "ROUGE-L", "exact", "exact, classification", "among labels", "JSON",
    "JSON fields",
)  # fmt: skip
PAIRED = {"rouge_l": "ROUGE-L", "strict_exact": "exact"}


def main() -> None:
    o = _options()
    every = [*o.user, *o.others]
    if len(set(every)) < len(every):
        sys.exit("a report is named twice, which would count as two draws")
    reports = {argument: read_part(argument) for argument in every}
    if len({report["base_sha256"] for report in reports.values()}) > 1:
        sys.exit("the reports are of different bases")
    user, others = (drawn([reports[a] for a in part]) for part in (o.user, o.others))
    lines = summary(user)
    benches = {"user": user, **({"user and others": [*user, *others]} if others else {})}
    result = {
        "command": " ".join(["python", "-m", "benchmarks.quality.user_table", *sys.argv[1:]]),
        "sources": {Path(a.rpartition("=")[2]).name: file_digest(_path(a)) for a in every},
        "means": lines,
        "pairs": [p for pair in o.pair for name, rows in benches.items()
                  for p in differences(name, rows, *pair)],
    }  # fmt: skip
    write_file(o.out, (json.dumps(result, indent=1) + "\n").encode())
    print(table(lines))
    if result["pairs"]:
        print(f"\n{pair_table(result['pairs'])}")


def drawn(reports: Sequence[dict[str, Any]]) -> list[Row]:
    """A row for each cell, the mean of its draws. Exits if a method has more of some tasks."""
    cells = by_cell([row for report in reports for row in report["rows"]])
    rows = [{**averaged(cell), "draws": len(cell)} for cell in cells]
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row["method"], row["mode"])
        if counts.setdefault(key, row["draws"]) != row["draws"]:
            sys.exit(f"{key[0]}, {key[1]} was not drawn equally often on all tasks")
    return rows


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean scores by method and mode, with intervals of ROUGE-L and of exact answers.

    `classification` has the exact answers on tasks that have labels.
    """
    lines = []
    for mean in means(rows, "method", "mode"):
        own = [r for r in rows if (r["method"], r["mode"]) == (mean["method"], mean["mode"])]
        scored = [row for row in own if row["strict_exact"] is not None]  # old reports lack some
        exact = [row["strict_exact"] for row in scored]
        labelled = [row["strict_exact"] for row in scored if row["in_labels"] is not None]
        lines.append({
            **mean,
            "draws": own[0]["draws"],
            "strict_exact_ci95": bootstrap_ci95(exact) if exact else None,
            "classification": sum(labelled) / len(labelled) if labelled else None,
            "classification_ci95": bootstrap_ci95(labelled) if labelled else None,
            "classification_tasks": len(labelled),
        })  # fmt: skip
    return lines


def differences(bench: str, rows: Sequence[Row], a: str, b: str) -> list[Row]:
    """The paired difference of METHOD/MODE a less b, for each metric. Exits if one is not there."""
    named = [{**row, "method": f"{row['method']}/{row['mode']}", "mode": "", "split": ""}
             for row in rows]  # fmt: skip
    for name in (a, b):
        if not any(row["method"] == name for row in named):
            known = ", ".join(dict.fromkeys(row["method"] for row in named))
            sys.exit(f"no report has {name}; there are {known}")
    found = []
    for metric in PAIRED:
        scored = [row for row in named if row[metric] is not None]  # old reports lack some
        two = [row for name in (a, b) for row in scored if row["method"] == name]
        for pair in pairs(two, metric):
            kept = ("a", "b", "tasks", "difference", "ci95")
            found.append({"bench": bench, "metric": metric, **{key: pair[key] for key in kept}})
    return found


def table(lines: Sequence[Row]) -> str:
    """The README's table, x 100."""
    return markdown(TITLES, [
        [line["method"], line["mode"], str(line["draws"]),
         _with(line["rouge_l"], line["ci95"]),
         _with(line["strict_exact"], line["strict_exact_ci95"]),
         _with(line["classification"], line["classification_ci95"]),
         *(percent(line[name]) for name in ("in_labels", "valid_json", "json_fields"))]
        for line in lines
    ])  # fmt: skip


def pair_table(found: Sequence[Row]) -> str:
    """Pairs of methods, x 100."""
    return markdown(("pair", "tasks of", "metric", "tasks", "difference"), [
        [f"{p['a']} - {p['b']}", p["bench"], PAIRED[p["metric"]], str(p["tasks"]),
         _with(p["difference"], p["ci95"])]
        for p in found
    ])  # fmt: skip


def _with(score: float | None, ci95: Sequence[float] | None) -> str:
    return percent(score) if ci95 is None else f"{percent(score)} ({interval(ci95)})"


def _path(argument: str) -> Path:
    return Path(argument.rpartition("=")[2])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--user", nargs="+", required=True, metavar="[LABEL=]REPORT")
    parser.add_argument("--others", nargs="+", default=[], metavar="[LABEL=]REPORT")
    parser.add_argument("--pair", nargs=2, action="append", default=[], metavar="METHOD/MODE")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
