"""Time an adapter's generation on a CPU, one thread, by every generator that ships.

    python benchmarks/speed/generation_time.py --out docs/results/generation-time.json

Of each: the generator alone; with all that it reads (texts encoded, experts looked up, the base's
states); to finished files; and a cold start, the command as a process of its own. Base and library,
the shipped sample, are loaded before all but the last. Times are medians.

The peer, in the same run and on the same thread: one step of training a LoRA of the same layout
with PEFT (8 rows of 128 tokens, forward, backward, AdamW). `ratio` is its time over the generator's
with what it reads.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

import peft
import torch

from generator.engine import Engine, open_engine, shipped_library
from generator.request import Query, Request
from library.base.models import load_base, resolve_base
from library.layout import Layout
from library.peft.write import target_modules

DESCRIPTION = "Decide whether the review is positive or negative. Answer with 'POS' or 'NEG'."
FINISHED = "request to finished files"  # what scores.json says


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Median wall time of `run` after one warm-up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peft_step(layout: Layout) -> Callable[[], object]:
    """One training step of the peer."""
    modules, _ = target_modules(layout)
    base = load_base(resolve_base())
    settings = peft.LoraConfig(r=layout.rank, lora_alpha=16, target_modules=modules)
    model = peft.get_peft_model(base.model, settings)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    ids = torch.randint(100, 40_000, (8, 128), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()

    return step


def cold_start(name: str) -> Callable[[], object]:
    """The whole command, from an empty process to an adapter on disk."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "api", "generate", DESCRIPTION, "--generator", name]
            subprocess.run([*command, "--out", f"{folder}/a"], check=True, capture_output=True)

    return run


def timed(engine: Engine, name: str, repeats: int) -> dict[str, Any]:
    """The times of one generator, and of its peer."""
    base, request = resolve_base(), Request(DESCRIPTION)
    checkpoint, module = engine.generated[name].checkpoint, engine.generated[name].module
    condition = Query(request, base, engine.resources).condition(module, checkpoint.info.encoder)

    def alone() -> None:
        with torch.inference_mode():
            module(condition)

    times = {
        "generator alone": seconds(alone, repeats),
        "generator with what it reads": seconds(
            lambda: engine.propose(name, request, base), repeats
        ),
        FINISHED: seconds(lambda: engine.generate(name, request, base), repeats),
        "cold start of the command": seconds(cold_start(name), 3),
        "peer: one PEFT training step, 8 x 128 tokens": seconds(peft_step(module.layout), 2),
    }
    peer = times["peer: one PEFT training step, 8 x 128 tokens"]
    return {
        "checkpoint": checkpoint.digest,
        "parameters": sum(p.numel() for p in module.parameters()),
        "seconds": times,
        "ratio": peer / times["generator with what it reads"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    engine = open_engine(library=shipped_library())
    report = {
        "machine": {"cpu": platform.processor() or platform.machine(), "torch": torch.__version__},
        "threads": 1,
        "generators": {name: timed(engine, name, options.repeats) for name in engine.generated},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
