"""How long screening takes on a CPU, one thread, beside spectra of a ΔW that is formed.

    python benchmarks/screening_time.py --adapter LIB --out docs/results/screening-time.json

Times are medians over one adapter of rank 8 (60 modules), bank and library in memory, as in a job;
reading them, once for a process, is timed apart. The peer, in the same run: torch's svdvals of
every ΔW as a dense matrix, what a scanner without the factored form has to do.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

import pretrained
from library.adapter import Adapter
from library.catalogue import open_library, read_adapter, records
from library.folder import MANIFEST
from library.plan import Plan
from verification.bank import shipped
from verification.neighbours import read_neighbours
from verification.screening_hook import Subject, check_neighbours, check_spectra

SAMPLE = str(Path(pretrained.__file__).parent / "library")


def seconds(run: Callable[[], object], repeats: int) -> dict[str, float]:
    """Medians after one warm-up: wall time, and the process's own, which a busy machine leaves."""
    run()
    wall, cpu = [], []
    for _ in range(repeats):
        start, own = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - own)
    return {"wall": statistics.median(wall), "cpu": statistics.median(cpu)}


def dense_spectra(adapter: Adapter) -> None:
    for group in adapter.layout.groups:
        for a, b in zip(adapter.A[group.key][0], adapter.B[group.key][0], strict=True):
            torch.linalg.svdvals(b @ a)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", required=True, help="a library; its first adapter is taken")
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    torch.set_num_threads(1)
    folder = open_library(o.adapter)
    layout = Plan.from_dict(folder.read_json(MANIFEST)).layout
    adapter = read_adapter(folder, records(folder)[0]["id"], layout)
    bank, neighbours = shipped(), read_neighbours(SAMPLE)
    subject = Subject(bank.recipe, bank.base_sha256)
    spectra, near = "spectra: screening and statistics", "neighbours: 24 adapters and E-DIEM"
    peer = "peer: dense singular values"
    found = {
        spectra: seconds(lambda: check_spectra(adapter, subject, bank), 30),
        near: seconds(lambda: check_neighbours(adapter, neighbours), 30),
        peer: seconds(lambda: dense_spectra(adapter), 1),
        "once: reading the bank": seconds(shipped, 5),
        "once: reading the library of 24": seconds(lambda: read_neighbours(SAMPLE), 1),
    }
    report = {
        "threads": 1,
        "processes_waiting": os.getloadavg()[0],
        "torch": torch.__version__,
        "seconds": found,
        "all hooks": {kind: found[spectra][kind] + found[near][kind] for kind in ("wall", "cpu")},
        "ratio": found[peer]["cpu"] / found[spectra]["cpu"],
    }
    o.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
