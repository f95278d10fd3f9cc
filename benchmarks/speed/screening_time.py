"""Time screening, neighbours and agreement, beside spectra of a ΔW that is formed.

    python benchmarks/speed/screening_time.py --library LIB --out docs/results/screening-time.json

On a CPU, one thread: medians over one adapter's files (rank 8, 60 modules), each hook run as a job
runs it, with what it compares with in memory; reading that, once for a process, is timed apart.
Agreement is timed with one sentence as its description, with the library's median definition and
with its longest. The peer, in the same run: torch's svdvals of every ΔW as a dense matrix, what a
scanner without the factored form has to do.
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
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from index.encoders.descriptions import DescriptionEncoder
from index.encoders.weights import load_weight_encoder
from library.adapter import Adapter
from library.base.models import load_base, resolve_base
from library.peft.provenance import PROVENANCE_FILE
from library.store.catalogue import files_of, records
from library.store.folder import LibraryFolder
from library.store.open import open_library
from lorasmith.libraries import SHIPPED_LIBRARY
from verification.artifact import Artifact, Context
from verification.checks.screening_bank import shipped_bank
from verification.run import Policy, run_hooks
from verification.scores.neighbours import read_neighbours
from verification.scores.sources import SlowHooks

SENTENCE = "Say whether the review is positive or negative."


def seconds(run_hooks: Callable[[], object], repeats: int) -> dict[str, float]:
    """After one warm-up: medians of wall time and of the process's own, and its least."""
    run_hooks()
    wall, cpu = [], []
    for _ in range(repeats):
        start, cpu_start = time.perf_counter(), time.process_time()
        run_hooks()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    return {
        "wall": statistics.median(wall),
        "cpu": statistics.median(cpu),
        "cpu_least": min(cpu),
    }


def dense_spectra(adapter: Adapter) -> None:
    for group in adapter.layout.groups:
        for a, b in zip(adapter.A[group.key][0], adapter.B[group.key][0], strict=True):
            torch.linalg.svdvals(b @ a)


def subjects(folder: LibraryFolder) -> tuple[Artifact, Artifact, Artifact]:
    """The adapter with the definition of median length, also with one sentence; the longest's."""
    by_length = sorted(records(folder), key=lambda record: len(record["description"]))
    picks = (by_length[len(by_length) // 2], by_length[-1])
    median, longest = (Artifact(files_of(folder, record["id"])) for record in picks)
    provenance = json.dumps({**(median.provenance or {}), "description": SENTENCE}).encode()
    return Artifact({**median.files, PROVENANCE_FILE: provenance}), median, longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", default=SHIPPED_LIBRARY, help="the sample by default")
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    torch.set_num_threads(1)
    short, median, longest = subjects(open_library(o.library))
    encoder = DescriptionEncoder()
    slow = SlowHooks(SHIPPED_LIBRARY, lambda: encoder, lambda name: resolve_base(name), load_base)

    def job(subject: Artifact, *names: str) -> None:
        run_hooks(Artifact(subject.files), Context(), Policy(names), hooks=slow.hooks())

    hooks = ("screening", "neighbours", "agreement")
    peer, screening = "peer: dense singular values", "screening"
    timings = {
        **{name: seconds(lambda name=name: job(short, name), 30) for name in hooks},
        "agreement, median definition": seconds(lambda: job(median, "agreement"), 30),
        "agreement, longest definition": seconds(lambda: job(longest, "agreement"), 10),
        "all three": seconds(lambda: job(short, *hooks), 30),
        peer: seconds(lambda: dense_spectra(median.adapter), 1),
        "once: reading the bank": seconds(shipped_bank.__wrapped__, 5),
        "once: reading the library of 24": seconds(lambda: read_neighbours(SHIPPED_LIBRARY), 1),
        "once: reading the weight encoder": seconds(load_weight_encoder, 1),
        "once: reading the description encoder": seconds(DescriptionEncoder, 1),
    }
    report = {
        "threads": 1,
        "processes_waiting": os.getloadavg()[0],
        "torch": torch.__version__,
        "characters": [len(s.recorded("description") or "") for s in (short, median, longest)],
        "seconds": timings,
        "ratio": timings[peer]["cpu"] / timings[screening]["cpu"],
    }
    o.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
