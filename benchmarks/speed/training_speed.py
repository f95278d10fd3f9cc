"""Tokens a second of a training on one GPU and on several, and by an earlier checkout beside it.

    python -m benchmarks.speed.training_speed --devices 4,2,1 --before CHECKOUT \\
        --out docs/results/training-speed.json -- --config configs/text_to_lora_distilled.yaml ...

What stands behind `--` goes to `lorasmith train fit`. Every run is a process of its own on the last
of the GPUs, the one of the earlier checkout on the last one, beside nothing. Tokens are what the
student reads, without padding, summed over devices; time is that after a third of the steps, when
everything is compiled. Each device takes as many tasks a step whatever their number, so perfect
scaling is N times the tokens a second. `floor` is what matrix products of the base alone take at a
GPU's peak: 2 FLOPs a parameter and token forward, as many backward, and those of the teacher's
forward pass over prompts that are --teacher-tokens times as long.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from library.base.models import load_config, resolve_base
from library.files import write_file
from library.layout import layout_of

ROOT = Path(__file__).parents[2]
MATRICES = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
PEAK = 989e12  # FLOPs a second of an H100 or H200, dense bfloat16


def main() -> None:
    o = _options()
    count = torch.cuda.device_count()
    runs: list[dict[str, Any]] = []
    plan = [(ROOT, int(n)) for n in o.devices.split(",") if n]
    plan += [(o.before, 1)] if o.before else []
    for tree, devices in plan:
        run = measured(tree, devices, count, o.fit)
        run["tree"] = "this" if tree == ROOT else "before"
        runs.append(run)
        print(json.dumps(run), flush=True)
        write_file(o.out, (json.dumps(report(runs, o), indent=1) + "\n").encode())


def measured(tree: Path, devices: int, count: int, fit: list[str]) -> dict[str, Any]:
    """One training: tokens a second, and what it logged last."""
    gpus = ",".join(str(i) for i in range(count - devices, count))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpus}
    with tempfile.TemporaryDirectory() as folder:
        more = [
            "--trainer.devices", str(devices), "--trainer.default_root_dir", folder,
            "--trainer.logger.init_args.save_dir", folder, "--model.out", f"{folder}/out",
        ]  # fmt: skip
        if devices > 1:
            more += ["--trainer.strategy", "ddp"]
        command = [sys.executable, "-m", "api", "train", "fit", *fit, *more]
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"the training on {devices} devices failed:\n{done.stderr[-3000:]}")
        (metrics,) = Path(folder).glob("**/metrics.csv")
        rows = [row for row in csv.DictReader(metrics.open()) if row.get("tokens")]
    first, last = rows[len(rows) // 3], rows[-1]
    seconds, tokens = (float(last[n]) - float(first[n]) for n in ("seconds", "tokens"))
    steps = int(last["step"]) - int(first["step"])
    memory = {"memory_gb": float(last["memory_gb"])} if last.get("memory_gb") else {}
    return {
        "devices": devices, "steps_per_second": steps / seconds, **memory,
        "tokens_per_second": devices * tokens / seconds, "loss": float(last["train_loss"]),
    }  # fmt: skip


def report(runs: list[dict[str, Any]], o: argparse.Namespace) -> dict[str, Any]:
    """All runs so far, with ratios to one GPU and to the time that matrix products need."""
    one = next((r for r in runs if r["devices"] == 1 and r["tree"] == "this"), None)
    sites = layout_of(load_config(resolve_base(None)), MATRICES).sites
    parameters = sum(site.in_features * site.out_features for site in sites)
    least = 2 * parameters * (2 + o.teacher_tokens) / PEAK  # seconds a token
    for run in runs:
        run["floor_share"] = run["tokens_per_second"] * least / run["devices"]
        if one is not None:
            run["times_one"] = run["tokens_per_second"] / one["tokens_per_second"]
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    return {
        "command": " ".join(["python", "-m", "benchmarks.speed.training_speed", *sys.argv[1:]]),
        "device": name, "parameters_of_layers": parameters, "runs": runs,
    }  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", default="1")
    parser.add_argument("--before", type=Path, help="an earlier checkout")
    parser.add_argument("--teacher-tokens", type=float, default=1.4)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("fit", nargs="*", help="for lorasmith train fit")
    return parser.parse_args()


if __name__ == "__main__":
    main()
