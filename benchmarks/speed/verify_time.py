"""Time every hook on an adapter of the default size, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/speed/verify_time.py --out docs/results/verify-time.json

The adapter has rank 8 and 60 modules (bf16, with provenance, signed), for the packaged base. The
peer is what loading it takes in any case: safetensors' `load_file` and PEFT's
`LoraConfig.from_pretrained`. Both sides read the same folder from a warm file cache, in turn; times
are in milliseconds: medians, wall and the process's own, and the least, as other jobs share the
cores. Building the base's shapes happens once per process and is in `first`. A request pays less,
`in_a_request_ms`: its adapter is in memory and has neither a provenance to compare nor a signature.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from peft import LoraConfig
from safetensors.torch import load_file

from library.adapter import zeros
from library.base.models import load_config, resolve_base
from library.files import write_folder
from library.layout import layout_of
from library.peft.provenance import AdapterFiles, Provenance, finish
from library.peft.write import WEIGHTS_FILE, to_peft
from verification.artifact import SIGNATURE_FILE, Artifact, Context, read_artifact
from verification.checks.signing import sign_artifact
from verification.run import HOOKS, reported, verify_path

Times = dict[str, float]


def milliseconds(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Times]:
    """Times of each call; the calls take turns."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            call()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - cpu_start)
    return {
        name: {
            "wall": round(statistics.median(wall[name]) * 1000, 3),
            "cpu": round(statistics.median(cpu[name]) * 1000, 3),
            "least": round(min(cpu[name]) * 1000, 3),
        }
        for name in calls
    }


def write_adapter(folder: Path) -> tuple[AdapterFiles, Ed25519PrivateKey]:
    """A signed adapter with random weights; gives it, without the signature, and the key."""
    base = resolve_base()
    layout = layout_of(load_config(base), rank=8)
    torch.manual_seed(0)
    adapter = zeros(layout)
    for tensor in adapter.factors():
        tensor.normal_(std=0.02)
    provenance = Provenance(
        "text-to-lora", None, "Add.", 0, "cpu", layout.digest, {"id": base.name}
    )
    files = finish(to_peft(adapter, base_name=base.name), provenance)
    key = Ed25519PrivateKey.generate()
    signature = sign_artifact(Artifact(files.files), key)
    write_folder(folder, {**files.files, SIGNATURE_FILE: signature})
    return files, key


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    adapter_files, key = write_adapter(folder)
    context = Context("vllm", None, key.public_key())
    start = time.perf_counter()
    assert verify_path(folder, context).verdict == "accept"
    first = round((time.perf_counter() - start) * 1000, 1)
    subject = read_artifact(folder)
    _ = subject.header, subject.pairs  # the first hook that asks reads them; here nobody does
    parts: dict[str, Callable[[], Any]] = {
        hook.name: lambda h=hook: h.check(subject, context) for hook in HOOKS
    }
    parts["reading and header"] = lambda: read_artifact(folder).header

    def peer() -> None:
        load_file(folder / WEIGHTS_FILE)
        LoraConfig.from_pretrained(str(folder))

    def our_hooks() -> None:
        verify_path(folder, context)

    def request() -> None:
        reported(adapter_files)

    timings = milliseconds({"ours": our_hooks, "request": request, "peer": peer}, repeats)
    return {
        "ms": timings["ours"],
        "in_a_request_ms": timings["request"],
        "first": first,
        "parts_ms": milliseconds(parts, repeats),
        "peer": "safetensors load_file and peft LoraConfig.from_pretrained",
        "peer_ms": timings["peer"],
        "ratio_cpu": round(timings["ours"]["cpu"] / timings["peer"]["cpu"], 2),
        "bytes": (folder / WEIGHTS_FILE).stat().st_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report = measure(Path(folder) / "adapter", options.repeats)
    load = round(os.getloadavg()[0], 1)
    about = {"threads": 1, "machine": platform.machine(), "processes_waiting": load}
    report = {**about, "repeats": options.repeats, **report}
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
