"""Methods of several reports side by side, on one bench of tasks or more: means, pairs and spread.

    python -m benchmarks.quality.side_by_side --bench user S0=S0-user.json V0=V0-user.json \\
        --bench held-out S0=S0-held.json V0=V0-held.json --methods text-to-lora \\
        --pair user "text-to-lora (V0)/bare" "text-to-lora (S0)/bare" --out distillation.json

Labels, draws, means and pairs are those of `benchmarks/quality/user_table.py`; a pair is taken on
the bench that it names. The rows stay in the reports; of each its digest is kept, and its command
without the folders of the machine that it ran on. `--methods` leaves out all others.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.join_reports import read_part
from benchmarks.quality.user_table import differences, drawn, pair_table, summary, table
from library.canonical import file_digest
from library.files import write_file
from training.evaluation.comparison import Row, spread

FOLDERS = re.compile(r"(?<=\s)/\S*?(?=benchmarks/|[^/\s]+(?:\s|$))")  # of an absolute path
KEPT = ("commit", "device", "seed")


def kept_rows(report: dict[str, Any], methods: Sequence[str]) -> dict[str, Any]:
    """A report with the rows of some methods alone, whatever their label, or of all."""
    rows = [r for r in report["rows"] if not methods or r["method"].split(" (")[0] in methods]
    return {**report, "rows": rows}


def source(argument: str) -> dict[str, Any]:
    """Where a report's numbers come from."""
    path = Path(argument.rpartition("=")[2])
    report = json.loads(path.read_text(encoding="utf-8"))
    command = FOLDERS.sub("", report["command"])
    return {"sha256": file_digest(path), **{k: report[k] for k in KEPT}, "command": command}


def bench_of(name: str, rows: Sequence[Row], pairs: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Means of a bench, its pairs, and the spread between paraphrases where it was measured."""
    own = [differences(name, rows, a, b) for bench, a, b in pairs if bench == name]
    return {
        "means": summary(rows),
        "pairs": [p for both in own for p in both],
        "spread": spread(rows),
    }


def main() -> None:
    o = _options()
    methods = o.methods.split(",") if o.methods else ()
    benches: dict[str, dict[str, Any]] = {}
    for name, *arguments in o.bench:
        rows = drawn([kept_rows(read_part(argument), methods) for argument in arguments])
        benches[name] = bench_of(name, rows, o.pair)
        print(name, table(benches[name]["means"]), pair_table(benches[name]["pairs"]), sep="\n")
    every = dict.fromkeys(argument for _, *arguments in o.bench for argument in arguments)
    result = {
        "command": shlex.join(["python", "-m", "benchmarks.quality.side_by_side", *sys.argv[1:]]),
        "benches": benches,
        "sources": {Path(a.rpartition("=")[2]).name: source(a) for a in every},
    }
    write_file(o.out, (json.dumps(result, indent=1) + "\n").encode())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bench", nargs="+", action="append", required=True,
                        metavar=("NAME", "[LABEL=]REPORT"))  # fmt: skip
    parser.add_argument("--pair", nargs=3, action="append", default=[],
                        metavar=("BENCH", "METHOD/MODE", "METHOD/MODE"))  # fmt: skip
    parser.add_argument("--methods", default="", metavar="METHODS")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
