"""Where a training step's time goes on a GPU: kernels by kind, as JSON.

    lorasmith train fit ... --trainer.profiler.class_path \\
        lightning.pytorch.profilers.PyTorchProfiler \\
        --trainer.profiler.init_args '{dirpath: OUT, filename: profile, export_to_chrome: false,
            record_module_names: false, row_limit: 60, sort_by_key: cuda_time_total}'
    python -m benchmarks.speed.training_profile OUT/fit-profile.txt --steps 3 \\
        --out docs/results/training-profile.json

Reads the table that Lightning's profiler writes of its active steps, three of them unless it is
told otherwise. A table has its longest rows only: what is not listed is `unlisted`.
"""

import argparse
import json
import re
from pathlib import Path

KINDS = {  # a kernel is of the first kind of which its name has a part
    "attention": ("fmha", "flash"),
    "matrix products": ("nvjet", "gemm", "cutlass"),
    "fused by torch.compile": ("triton",),
    "elementwise and softmax": ("at::native",),
}
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def milliseconds(text: str) -> float:
    """A time as torch's tables write it; 0 for what is none."""
    match = re.fullmatch(r"([\d.]+)(us|ms|s)", text)
    return float(match[1]) * UNITS[match[2]] if match else 0.0


def kernels(lines: list[str]) -> dict[str, dict[str, float]]:
    """By kind, milliseconds of each kernel listed: rows with time of the GPU, none of the CPU."""
    found: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    for line in lines:
        cells = re.split(r"\s{2,}", line.strip())
        kind = kind_of(cells[0])
        if len(cells) == 11 and kind and not milliseconds(cells[2]):
            own = found[kind]
            own[cells[0]] = own.get(cells[0], 0.0) + milliseconds(cells[6])
    return found


def kind_of(name: str) -> str | None:
    """The kind of a kernel; None for what is no kernel, such as an operator of torch."""
    return next((k for k, parts in KINDS.items() if any(part in name for part in parts)), None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    lines = o.table.read_text(encoding="utf-8").splitlines()
    (total,) = (line.split()[-1] for line in lines if line.startswith("Self CUDA time total"))
    listed = kernels(lines)
    sums = {kind: sum(own.values()) for kind, own in listed.items()}
    sums["unlisted"] = milliseconds(total) - sum(sums.values())
    report = {
        "steps": o.steps,
        "kernel_ms_a_step": round(milliseconds(total) / o.steps, 1),
        "ms_a_step_by_kind": {kind: round(spent / o.steps, 1) for kind, spent in sums.items()},
        "kernels": {
            kind: {name: round(spent / o.steps, 2) for name, spent in own.items()}
            for kind, own in listed.items()
        },
    }
    o.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
