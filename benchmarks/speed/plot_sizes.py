"""Picture of a report of benchmarks.speed.sizes: seconds and memory against a base's weights.

python -m benchmarks.speed.plot_sizes docs/results/sizes.json --out docs/results/sizes.png
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def drawn(report: dict[str, Any], out: Path) -> None:
    """Left the seconds, right the gigabytes, both axes logarithmic."""
    bases = report["bases"]
    weights = [base["weights"] for base in bases]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    left.plot(weights, [base["peft_seconds_a_step"] for base in bases], "o--", label="PEFT")
    for number, run in enumerate(bases[0]["training"]):
        count, runs = run["adapters"], [base["training"][number] for base in bases]
        label = f"{count} at once" if count > 1 else "one adapter"
        each = [one["seconds_a_step"] / count for one in runs]
        left.plot(weights, each, "o-", label=f"ours, {label}")
        right.plot(weights, [one["peak_gb"] for one in runs], "o-", label=f"training, {label}")
    made = [base["generator"] for base in bases]
    seconds = [one["seconds_on_one_thread"] for one in made]
    left.plot(weights, seconds, "s:", label="Text-to-LoRA: an adapter, one CPU thread")
    for key, label in (("mb_int8", "Text-to-LoRA's checkpoint"), ("adapter_mb", "its adapter")):
        right.plot(weights, [one[key] / 1000 for one in made], "s:", label=label)
    left.set(ylabel="seconds a step and adapter", title="Time")
    right.set(ylabel="GB", title="Memory and files")
    for axis in (left, right):
        axis.set(xscale="log", yscale="log", xlabel="weights of the base")
        axis.set_xticks(weights, [base["shape"].split("-")[-1] for base in bases])
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    drawn(json.loads(o.report.read_text(encoding="utf-8")), o.out)


if __name__ == "__main__":
    main()
