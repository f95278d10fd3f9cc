"""Whether to read descriptions of several requests at once: times, and bytes beside those alone.

    python -m benchmarks.speed.batching --out docs/results/batching.json

On one thread, in float64 as the service computes: descriptions of unlike length go through what
text-to-lora reads them with (the base's first layers), through its network, and through the
sentence encoder, alone and in batches, taking turns. Times are the median of rounds, CPU seconds a
description. `fixed` is a description alone in a batch that is filled up to that size.

`changed` is what batches of eight change among many descriptions: the states of how many are not
those read alone to the last bit, and how many adapters then differ as they are stored.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from generator.engine import open_engine
from generator.models.base import Condition, Generator
from index.encoders.descriptions import Embeddings, join
from library.adapter import Adapter
from library.base.models import resolve_base
from library.files import write_file

TEXTS = [
    "Name the colour.",
    "Say whether the review is positive or negative.",
    "Sort notes on parcels into damaged, late, lost or praise. Write one of these words alone.",
    "Translate the sentence into French, and keep names of people and places as they are.",
]
SIZES = (1, 2, 4, 8)
ROUNDS = 5
DESCRIPTIONS = [f"{text} Number {i}." for i in range(4) for text in TEXTS]
MANY = [f"{text} " * (1 + i % 3) + f"Number {i}." for i in range(40) for text in TEXTS]

Read = Callable[[Sequence[str]], list[Embeddings]]


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU time of this thread."""
    start = time.thread_time()
    run()
    return time.thread_time() - start


def in_batches(rows: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def read_all(read: Read, size: int, texts: Sequence[str] = DESCRIPTIONS) -> list[Embeddings]:
    """A row for each description, read in batches."""
    return [row for some in in_batches(texts, size) for row in read(some)]


def timed(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU seconds a description of each, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 1):
        for name, run in runs.items():
            times[name].append(cpu_seconds(run) / len(DESCRIPTIONS))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def reading_times(read: Read) -> dict[str, float]:
    """By the size of a batch; the last is of a batch that is filled up."""
    runs: dict[str, Callable[[], object]] = {
        str(size): lambda size=size: read_all(read, size) for size in SIZES
    }
    fixed = SIZES[2]
    runs[f"fixed {fixed}"] = lambda: [read([text] * fixed) for text in DESCRIPTIONS]
    return timed(runs)


def changed(read: Read, module: Generator) -> dict[str, int]:
    """What reading many descriptions in batches changes; a network makes an adapter of each."""
    pairs = zip(read_all(read, 1, MANY), read_all(read, SIZES[-1], MANY), strict=True)
    unequal = [pair for pair in pairs if not torch.equal(pair[0].tokens, pair[1].tokens)]
    stored: dict[torch.dtype, int] = {torch.bfloat16: 0, torch.float32: 0}
    for pair in unequal:
        made = [module(Condition(text=row)) for row in pair]
        for dtype in stored:
            factors = [adapter.to(dtype=dtype).factors() for adapter in made]
            stored[dtype] += any(not torch.equal(*both) for both in zip(*factors, strict=True))
    return {
        "descriptions": len(MANY), "states": len(unequal),
        **{f"adapters in {str(dtype)[6:]}": count for dtype, count in stored.items()},
    }  # fmt: skip


@torch.inference_mode()
def measured() -> dict[str, Any]:
    engine, base = open_engine(), resolve_base()
    generated = engine.generated["text-to-lora"]
    module = generated.module
    reader = engine.resources.reader(generated.checkpoint.info.encoder, base)
    sentences = engine.resources.encoder()

    def make(rows: Sequence[Embeddings], size: int) -> list[Adapter]:
        return [module(Condition(text=join(some))) for some in in_batches(rows, size)]

    states = read_all(reader.encode_batch, 1)
    return {
        "cpu_seconds": {
            "reading by the base": reading_times(reader.encode_batch),
            "network": timed({str(size): lambda size=size: make(states, size) for size in SIZES}),
            "sentence encoder": reading_times(sentences.encode_batch),
        },
        "changed": changed(reader.encode_batch, module),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    torch.set_num_threads(1)
    report = {
        "command": " ".join(["python", "-m", "benchmarks.speed.batching", *sys.argv[1:]]),
        "torch": torch.__version__,
        "descriptions": len(DESCRIPTIONS),
        **measured(),
    }
    write_file(o.out, (json.dumps(report, indent=1) + "\n").encode())
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
