"""Time the reading of a description on a CPU, one thread: by the base's states, and by the peer.

    python benchmarks/speed/reading_time.py --reader READER --out docs/results/reading-time.json

READER is made by benchmarks.calibrate.base_states. The peer is the sentence encoder, in the same
run. Both serve in float64. Times are medians; `ratio` is the reader's over the peer's.
"""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from benchmarks.speed.generation_time import seconds
from index.encoders.descriptions import DEFAULT_ENCODER
from index.encoders.texts import text_encoder
from library.base.models import resolve_base

DESCRIPTIONS = (
    "Say red or blue.",
    "Sort notes on parcels into damaged, late, lost or praise. Write one of these words and "
    "nothing else. If none of them fits, write late.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reader", required=True)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    torch.set_num_threads(1)
    encoders = [text_encoder(name, resolve_base()) for name in (o.reader, DEFAULT_ENCODER)]
    rows = []
    for text in DESCRIPTIONS:
        reader, peer = (seconds(partial(e.encode, [text]), o.repeats) for e in encoders)
        row = {"characters": len(text), "reader": reader, "peer": peer, "ratio": reader / peer}
        rows.append(row)
    report = {"reader": encoders[0].name, "torch": torch.__version__, "threads": 1, "rows": rows}
    o.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
