"""Join reports of one benchmark of recipes, placements or gates whose rows were made in parts.

    python -m benchmarks.quality.join_results PART.json... --out report.json [--against SYSTEM...]

The parts have the same settings. `command` names every part's; paired differences are anew those to
the first row of the first part, so that a row that is in two parts shows how far runs are apart. Of
gates, each in-domain row gets its differences, task by task, to the systems named.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.trained_tasks import less_first, mean


def compare(rows: list[dict[str, Any]], system: str) -> None:
    """Give in-domain rows of gates their differences to a system's of the same mode."""
    theirs = {
        row["mode"]: row["by_task"] for row in rows if row["system"] == system and row["in_domain"]
    }
    for row in rows:
        if row["in_domain"] and row["system"] != system:
            pairs = zip(row["by_task"], theirs[row["mode"]], strict=True)
            less = mean([one - other for one, other in pairs], f"less_{system}")
            row |= {name: value for name, value in less.items() if not name.endswith("_each")}


def joined(parts: list[dict[str, Any]], against: Sequence[str] = ()) -> dict[str, Any]:
    """One report of all rows. Exits if the parts were made with other settings."""
    first = parts[0]
    for part in parts[1:]:
        for key in first.keys() - {"command", "results"}:
            if part.get(key) != first[key]:
                sys.exit(f"the parts differ in {key}: {first[key]} and {part.get(key)}")
    rows = [dict(row) for part in parts for row in part["results"]]
    for row in rows[1:]:
        if "adapters" in row:  # else of a gate
            row |= less_first(row, rows[0], len(first["tasks"]))
    for system in against:
        compare(rows, system)
    command = " ; ".join(dict.fromkeys(part["command"] for part in parts))
    return {**first, "command": command, "results": rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--against", nargs="*", default=[], metavar="SYSTEM")
    options = parser.parse_args()
    parts = [json.loads(part.read_text(encoding="utf-8")) for part in options.parts]
    report = joined(parts, options.against)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
