"""How long every hook takes on an adapter of the default size, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/verify_time.py --out docs/results/verify-time.json

The adapter has rank 8 and 60 modules (bf16, with provenance, signed), for the packaged base. The
peer is what loading it takes in any case: safetensors' `load_file` and PEFT's
`LoraConfig.from_pretrained`. Both sides read the same folder from a warm file cache; times are
medians in milliseconds. Building the base's shapes happens once per process and is in `first`.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from peft import LoraConfig
from safetensors.torch import load_file

from library.adapter import zeros
from library.base import load_config, resolve_base
from library.files import write_folder
from library.layout import layout_of
from library.peft_io import WEIGHTS_FILE, to_peft
from library.provenance import Provenance, finish
from verification.findings import verdict
from verification.hooks import HOOKS, verify
from verification.signing import sign
from verification.subject import SIGNATURE_FILE, Context, Subject, read_subject


def milliseconds(call: Callable[[], Any], repeats: int) -> float:
    """The median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1000, 3)


def write_adapter(folder: Path) -> Ed25519PrivateKey:
    """A signed adapter with random weights; gives the key."""
    base = resolve_base()
    layout = layout_of(load_config(base), rank=8)
    torch.manual_seed(0)
    adapter = zeros(layout)
    for tensor in adapter.factors():
        tensor.normal_(std=0.02)
    provenance = Provenance(
        "text-to-lora", None, "Add.", 0, "cpu", layout.digest, {"id": base.name}
    )
    files = finish(to_peft(adapter, base_name=base.name), provenance).files
    key = Ed25519PrivateKey.generate()
    write_folder(folder, {**files, SIGNATURE_FILE: sign(Subject(files), key)})
    return key


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    context = Context("vllm", None, write_adapter(folder).public_key())
    start = time.perf_counter()
    assert verdict(verify(folder, context)) == "accept"
    first = round((time.perf_counter() - start) * 1000, 1)
    subjects = {hook.name: lambda h=hook: h.check(read_subject(folder), context) for hook in HOOKS}
    ours = milliseconds(lambda: verify(folder, context), repeats)

    def peer() -> None:
        load_file(folder / WEIGHTS_FILE)
        LoraConfig.from_pretrained(str(folder))

    theirs = milliseconds(peer, repeats)
    return {
        "ms": ours,
        "first": first,
        "hooks_with_reading": {name: milliseconds(f, repeats) for name, f in subjects.items()},
        "peer": "safetensors load_file and peft LoraConfig.from_pretrained",
        "peer_ms": theirs,
        "ratio": round(ours / theirs, 2),
        "bytes": (folder / WEIGHTS_FILE).stat().st_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        found = measure(Path(place) / "adapter", options.repeats)
    found = {"threads": 1, "machine": platform.machine(), "repeats": options.repeats, **found}
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
