"""Join reports of `lorasmith evaluate` that were made side by side into one.

    python benchmarks/quality/join_reports.py [LABEL=]PART.json... --out report.json [--html ...]

The methods of a part with a label carry it, so that two checkpoints of one generator can stand side
by side: `text-to-lora (reconstruction)`. The parts hold different methods, modes or tasks of one
base and one seed. Means, recovery, pairs and calibration are those of all rows together; with
`--against A,B` the pairs are those with these methods alone. `command` names every part's.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from training.evaluation.page import page
from training.evaluation.report import summaries, table

SAME = ("schema", "base", "base_sha256", "seed", "device")
JOINED = ("similarity", "wrong_description_pairs", "abstentions", "chosen")


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One report of all rows. Exits if parts do not belong together or a cell is there twice."""
    first = parts[0]
    for part in parts[1:]:
        for key in SAME:
            if part[key] != first[key]:
                sys.exit(f"the parts differ in {key}: {first[key]} and {part[key]}")
    rows = [row for part in parts for row in part["rows"]]
    cells = [(row["method"], row["mode"], row["task"]) for row in rows]
    if len(set(cells)) < len(cells):
        sys.exit(f"two parts hold {max(cells, key=cells.count)}")
    report = {key: first[key] for key in SAME}
    for key in JOINED:
        report[key] = {k: v for part in parts for k, v in part.get(key, {}).items()}
    report["command"] = " ; ".join(dict.fromkeys(part["command"] for part in parts))
    report["commit"] = first["commit"]
    report["checkpoint"] = next((p["checkpoint"] for p in parts if p.get("checkpoint")), None)
    report["rows"] = rows
    return report | summaries(rows, report["similarity"])


def labelled(part: dict[str, Any], label: str) -> dict[str, Any]:
    """A report whose methods carry a label, if it is not empty."""
    if not label:
        return part
    rows = [{**row, "method": f"{row['method']} ({label})"} for row in part["rows"]]
    named = {
        key: {f"{method} ({label})": value for method, value in part.get(key, {}).items()}
        for key in JOINED
        if key != "similarity"
    }
    return {**part, **named, "rows": rows}


def read_part(argument: str) -> dict[str, Any]:
    """The report of [LABEL=]PATH."""
    label, _, path = argument.rpartition("=")
    return labelled(json.loads(Path(path).read_text(encoding="utf-8")), label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", metavar="[LABEL=]PART")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--html", type=Path)
    parser.add_argument("--against", default="", metavar="METHODS")
    options = parser.parse_args()
    report = joined([read_part(part) for part in options.parts])
    if options.against:
        named = set(options.against.split(","))
        report["pairs"] = [p for p in report["pairs"] if named & {p["a"], p["b"]}]
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.html is not None:
        options.html.write_text(page(report), encoding="utf-8")
    print(table(report))


if __name__ == "__main__":
    main()
