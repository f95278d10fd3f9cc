"""Would choosing the start by a request's own examples pay? Rules of choice, on measured starts.

    python -m benchmarks.quality.start_choice docs/results/refine-user.json \\
        docs/results/refine-heldout.json --out docs/results/start-choice.json

Reports hold methods `refine:START:N` with the losses of held-out examples, before and after
training. For each number of examples: the mean score of every start and mode, of each rule that
chooses one of them a task, and of the best a task (which no rule can know). ROUGE-L x 100.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
EXAMPLES = (5, 16)
RULES: dict[str, Callable[[Row], Any]] = {
    "least held-out loss": lambda held_out: held_out["loss"],
    "most held-out answers right, then least loss": lambda h: (-h["right"], h["loss"]),
    "least loss before training": lambda held_out: held_out["start_loss"],
}


def choices(report: dict[str, Any], count: int) -> dict[str, Any]:
    """Mean scores of the starts with `count` examples, and of choosing among them."""
    by_task: dict[str, list[Row]] = {}
    for row in report["rows"]:
        refined = row["refined"]
        counted = row["method"].startswith("refine:") and row["method"].endswith(f":{count}")
        if counted and refined and refined["held_out"]:
            by_task.setdefault(row["task"], []).append(row)
    most = max(map(len, by_task.values()))
    tasks = [rows for rows in by_task.values() if len(rows) == most]

    def mean(pick: Callable[[list[Row]], Row]) -> float:
        return round(100 * sum(pick(rows)["rouge_l"] for rows in tasks) / len(tasks), 1)

    names = [f"{row['method']}, {row['mode']}" for row in tasks[0]]
    starts = {name: mean(lambda rows, i=i: rows[i]) for i, name in enumerate(names)}
    chosen = {
        name: mean(lambda rows, rule=rule: min(rows, key=lambda r: rule(r["refined"]["held_out"])))
        for name, rule in RULES.items()
    }
    best = mean(lambda rows: max(rows, key=lambda row: row["rouge_l"]))
    return {"tasks": len(tasks), "starts": starts, "chosen by": chosen, "best a task": best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    command = " ".join(["python", "-m", "benchmarks.quality.start_choice", *sys.argv[1:]])
    result: dict[str, Any] = {"command": command}
    for path in o.reports:
        report = json.loads(path.read_text(encoding="utf-8"))
        result[path.stem] = {str(count): choices(report, count) for count in EXAMPLES}
    o.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
