"""Time a token of the base under each gate, beside the base alone and one LoRA of as many numbers.

    python -m benchmarks.speed.gate_time --device cpu --out docs/results/gate-time.json

Adapters of the sample that ships, an untrained gate over them (what it chooses costs the same), and
prompts of random tokens: every system reads the same prompts and then answers with as many tokens.
`prompt_ms` and `answer_ms` are the time of the batch by its tokens, `request_ms` by its prompts,
and `times_one_lora` is that over the time of one LoRA, as wide as all adapters together.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pretrained
from index.gate.experts import experts_of
from index.gate.forward import GatedAdapter
from index.gate.learnt import Gate, GateConfig
from index.gate.prototypes import Prototypes
from index.gate.systems import SYSTEMS
from library.adapter import Adapter, stack, summed
from library.base.models import BaseModel, fast_dtype, load_base, resolve_base
from library.base.multi_adapter import MultiAdapter
from library.files import write_file
from library.store.catalogue import read_adapter, records
from library.store.open import open_library

OTHERS = ("base", "one-lora")


@contextmanager
def system_on(base: BaseModel, name: str, adapters: Adapter, batch: int) -> Iterator[None]:
    """The base under a system, inside the `with` block; of one-lora the factors side by side."""
    if name == "base":
        yield
        return
    if name == "one-lora":
        one = reduce(summed, [adapters[[i]] for i in range(len(adapters))])
        with closing(MultiAdapter(base.model, one.layout)) as hooks:
            hooks.set(one, torch.zeros(batch, dtype=torch.long, device=base.device))
            yield
        return
    system = SYSTEMS[name]
    experts = experts_of(system, adapters)
    gate: Any = Prototypes(system, experts)
    if system.scores == "learnt":
        config = GateConfig(name, [], [], len(experts), base.model.config.hidden_size)
        gate = Gate(config, adapters.layout).to(base.device).eval()
        gate.admit(experts)
    with closing(GatedAdapter(base.model, gate, system, experts.layout)) as hooks:
        hooks.set_mixture(experts, torch.ones(batch, len(experts), device=base.device))
        yield


@torch.inference_mode()
def timed(base: BaseModel, prompts: Tensor, answer: int) -> tuple[float, float]:
    """Seconds of the prompts and of the answers' tokens."""
    begun = time.perf_counter()
    out = base.model(prompts, use_cache=True)
    token = out.logits[:, -1:].argmax(-1)
    float(token.sum())  # waits for the device
    read = time.perf_counter()
    for _ in range(answer):
        out = base.model(token, past_key_values=out.past_key_values, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)
    float(token.sum())
    return read - begun, time.perf_counter() - read


def measured(
    base: BaseModel, name: str, adapters: Adapter, o: argparse.Namespace
) -> dict[str, Any]:
    """The medians of some runs after one that warms up, in milliseconds a token."""
    torch.manual_seed(0)
    prompts = torch.randint(100, 40_000, (o.batch, o.prompt)).to(base.device)
    with system_on(base, name, adapters, o.batch):
        runs = [timed(base, prompts, o.answer) for _ in range(o.repeats + 1)][1:]
    medians = [statistics.median(seconds) for seconds in zip(*runs, strict=True)]
    read, answered = (1000 * seconds / o.batch for seconds in medians)
    return {
        "system": name, "prompt_ms": round(read / o.prompt, 4),
        "answer_ms": round(answered / o.answer, 4), "request_ms": round(read + answered, 2),
    }  # fmt: skip


def main() -> None:
    o = _options()
    folder = open_library(str(pretrained.folder("library")))
    base = load_base(resolve_base(), device=o.device, dtype=fast_dtype(o.device))
    layout = folder.plan().layout
    first = records(folder)[: o.count]
    adapters = stack([read_adapter(folder, r["id"], layout) for r in first]).to(o.device)
    rows = [measured(base, name, adapters, o) for name in (*OTHERS, *SYSTEMS)]
    (one,) = (row["request_ms"] for row in rows if row["system"] == "one-lora")
    for row in rows:
        row["times_one_lora"] = round(row["request_ms"] / one, 2)
        print(json.dumps(row), flush=True)
    report = {
        "command": " ".join(["python", "-m", "benchmarks.speed.gate_time", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if o.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(), "batch": o.batch, "prompt_tokens": o.prompt,
        "answer_tokens": o.answer, "adapters": len(adapters), "rank": layout.rank, "results": rows,
    }  # fmt: skip
    write_file(o.out, (json.dumps(report, indent=1) + "\n").encode())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--count", type=int, default=16, help="adapters")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=96, help="tokens")
    parser.add_argument("--answer", type=int, default=32, help="tokens")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
