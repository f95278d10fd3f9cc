"""Pictures and figures of training runs, from Lightning's metrics.csv.

python benchmarks/speed/plot_loss.py --out docs/results/loss.png --figures \
    docs/results/training.json \
    NAME=metrics.csv ...
"""

import argparse
import csv
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def curve(path: Path, column: str) -> tuple[list[int], list[float]]:
    """Steps and values of a column, where it has one."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(column)]
    return [int(row["step"]) for row in rows], [float(row[column]) for row in rows]


def figures(path: Path) -> dict[str, float]:
    """Steps, minutes, tokens/s (without padding) and GPU memory of a run, as of its last row."""
    last = {name: curve(path, name) for name in ("tokens", "seconds", "train_loss", "memory_gb")}
    steps, tokens = last["tokens"]
    seconds = last["seconds"][1][-1]
    result = {
        "steps": steps[-1] + 1,
        "minutes": seconds / 60,
        "tokens": tokens[-1],
        "tokens_per_second": tokens[-1] / seconds,
        "train_loss": last["train_loss"][1][-1],
    }
    memory = last["memory_gb"][1]
    return result | ({"gpu_memory_gb": memory[-1]} if memory else {})


def smooth(values: list[float], width: int = 5) -> list[float]:
    """Running mean over the last `width` values."""
    windows = [values[max(0, i - width + 1) : i + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", help="NAME=metrics.csv")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figures", type=Path, help="JSON of what each run cost")
    options = parser.parse_args()
    runs = {name: Path(path) for name, _, path in (run.partition("=") for run in options.runs)}
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, path in runs.items():
        steps, losses = curve(path, "train_loss")
        (line,) = axes.plot(steps, smooth(losses), label=f"{name}, training rows")
        axes.plot(steps, losses, color=line.get_color(), alpha=0.2, linewidth=0.8)
        steps, losses = curve(path, "val_loss")
        if steps:
            axes.plot(steps, losses, "o--", color=line.get_color(), label=f"{name}, set aside")
    axes.set(xlabel="step", ylabel="loss per answer token (nats)", title="Text-to-LoRA, SFT")
    axes.grid(alpha=0.3)
    axes.legend()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=120)
    if options.figures:
        text = json.dumps({name: figures(path) for name, path in runs.items()}, indent=1)
        options.figures.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
