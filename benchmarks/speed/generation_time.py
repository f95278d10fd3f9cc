"""Time an adapter's generation on a CPU, one thread: generator alone, with encoder, cold start.

    python benchmarks/speed/generation_time.py --out docs/results/generation-time.json

The peer, in the same run and on the same thread: one step of training a LoRA of the same layout
with PEFT (8 rows of 128 tokens, forward, backward, AdamW). `ratio` is its time over the generator's
with encoder. Times are medians; a command's cold start is a process of its own.
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

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

import peft
import torch

from generator.engine import open_engine, read_generator
from generator.models.base import Condition
from generator.models.text_to_lora import TextToLoRA
from generator.request import Request
from library.base.models import load_base, resolve_base
from library.layout import Layout
from library.peft.write import target_modules

DESCRIPTION = "Decide whether the review is positive or negative. Answer with 'POS' or 'NEG'."


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


def cold_start(checkpoint: Path | None) -> Callable[[], object]:
    """The whole command, from an empty process to an adapter on disk."""
    extra = ["--checkpoint", str(checkpoint)] if checkpoint else []

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "api", "generate", DESCRIPTION, *extra]
            subprocess.run([*command, "--out", f"{folder}/a"], check=True, capture_output=True)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    engine = open_engine([read_generator(options.checkpoint)] if options.checkpoint else [])
    base, request = resolve_base(), Request(DESCRIPTION)
    checkpoint = engine.generated[TextToLoRA.kind].checkpoint
    encoder, module = engine.resources.encoder(checkpoint.info.encoder), checkpoint.module
    embedded = encoder.encode([DESCRIPTION])

    def alone() -> None:
        with torch.inference_mode():
            module(Condition(text=embedded))

    report = {
        "machine": {"cpu": platform.processor() or platform.machine(), "torch": torch.__version__},
        "threads": 1,
        "checkpoint": checkpoint.digest,
        "parameters": sum(p.numel() for p in module.parameters()),
        "seconds": {
            "generator alone": seconds(alone, 20),
            "generator with encoder": seconds(
                lambda: engine.propose(TextToLoRA.kind, request, base), 20
            ),
            "request to finished files": seconds(
                lambda: engine.generate(TextToLoRA.kind, request, base), 20
            ),
            "cold start of the command": seconds(cold_start(options.checkpoint), 3),
            "peer: one PEFT training step, 8 x 128 tokens": seconds(peft_step(module.layout), 2),
        },
    }
    times = report["seconds"]
    peer = times["peer: one PEFT training step, 8 x 128 tokens"]
    report["ratio"] = peer / times["generator with encoder"]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
