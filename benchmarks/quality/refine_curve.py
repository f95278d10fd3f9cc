"""Score against the number of examples, from each start: table and picture of refinement.

    python -m benchmarks.quality.refine_curve docs/results/reporting.json \\
        docs/results/refine-user.json docs/results/refine-heldout.json \\
        --out docs/results/refine-curve.json --picture docs/results/refine-curve.png

Reports hold methods `refine:START:N`, and START alone for no example. ROUGE-L x 100.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from training.evaluation.methods import IN_CONTEXT, SHOTS, parse_methods

Curves = dict[str, dict[int, float]]  # by "start, mode": score by number of examples
COLOURS = {
    "base": "C0",
    IN_CONTEXT: "C1",
    "text-to-lora": "C2",
    "fresh": "C3",
    "multi-task": "C4",
}
DASHES = {"bare": "--", "prompted": "-"}


def point(name: str) -> tuple[str, int] | None:
    """A method's start and number of examples; None if it lies on no curve."""
    (method,) = parse_methods(name)
    if method.head not in COLOURS or method.suffix or method.inputs or method.written:
        return None
    if method.head == IN_CONTEXT:
        return method.head, method.examples or SHOTS
    return (method.head, method.examples) if method.in_full or not method.examples else None


def curves(report: dict[str, Any]) -> Curves:
    """Mean scores of a report by start and mode."""
    lines: Curves = {}
    for mean in report["means"]:
        if (at := point(mean["method"])) is not None:
            line = lines.setdefault(f"{at[0]}, {mean['mode']}", {})
            line[at[1]] = round(100 * mean["rouge_l"], 1)
    return {name: dict(sorted(line.items())) for name, line in lines.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    o = parser.parse_args()
    by_report = {path.stem: curves(json.loads(path.read_text())) for path in o.reports}
    figure, axes = pyplot.subplots(
        1, len(by_report), figsize=(6 * len(by_report), 4.5), layout="constrained", squeeze=False
    )
    for axis, (title, lines) in zip(axes[0], by_report.items(), strict=True):
        for name, line in lines.items():
            start, _, mode = name.partition(", ")
            axis.plot(
                [*line], [*line.values()], DASHES[mode], marker="o", label=name,
                color=COLOURS[start],
            )  # fmt: skip
        axis.set_xscale("symlog", linthresh=2)
        axis.set_xticks([0, 2, 5, 16, 64], ["0", "2", "5", "16", "64"])
        axis.set(xlabel="examples", ylabel="ROUGE-L x 100", title=title)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(o.picture, dpi=110)
    command = " ".join(["python", "-m", "benchmarks.quality.refine_curve", *sys.argv[1:]])
    o.out.write_text(json.dumps({"command": command, **by_report}, indent=1) + "\n")
    print(json.dumps(by_report, indent=1))


if __name__ == "__main__":
    main()
