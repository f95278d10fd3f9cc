"""Seconds and memory of training one adapter on a handful of examples, beside PEFT in the same run.

    python -m benchmarks.speed.refine_time --tasks benchmarks/user_tasks --task parcel_notes \\
        --examples 5,16,40 --out docs/results/refine-time.json

Ours is `lorasmith.refine` as it stands: its own number of steps, held-out training included. PEFT
is a plain loop of torch's AdamW over padded batches of eight rows, the loss on the answers alone;
five steps of it are timed. The ratio is of a step of one adapter; both run the base in float32.
"""

import argparse
import itertools
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

import lorasmith
from generator.refine.training import example_rows
from library.base.batches import grouped
from library.base.loss import answer_logits, token_losses
from library.base.models import BaseModel, load_base, resolve_base
from library.files import write_file
from library.tasks.files import Example, read_tasks

TIMED = 5  # steps of PEFT


def main() -> None:
    o = _options()
    (task,) = [task for task in read_tasks(o.tasks) if task.name == o.task]
    rows = []
    for count in o.examples:
        examples = task.train[:count]
        ours = _ours(examples, o.device)
        base = load_base(resolve_base(), device=o.device)
        peft = _peft_step_seconds(base, examples)
        rows.append(
            {
                "examples": len(examples),
                **ours,
                "peft_seconds_a_step": round(peft, 3),
                "ratio": round(ours["seconds_a_step"] / peft, 3),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    report = {
        "command": " ".join(["python", "-m", "benchmarks.speed.refine_time", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if o.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "rows": rows,
    }
    write_file(o.out, (json.dumps(report, indent=1) + "\n").encode())


def _ours(examples: tuple[Example, ...], device: str) -> dict[str, Any]:
    """`lorasmith.refine` from nothing, with the base loaded and a first training before."""
    pairs = [(example.input, example.output) for example in examples]
    lorasmith.refine(pairs[:1], steps=1, device=device)
    begun = time.perf_counter()
    refined = lorasmith.refine(pairs, device=device).summary["refined"]
    seconds = time.perf_counter() - begun
    held_out = refined["held_out"]
    adapters = 1 if held_out is None else 3 if len(examples) <= 8 else 2
    return {
        "steps": refined["steps"],
        "adapters": adapters,
        "seconds": round(seconds, 1),
        "seconds_a_step": round(seconds / refined["steps"] / adapters, 3),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _peft_step_seconds(base: BaseModel, examples: tuple[Example, ...]) -> float:
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    model: Any = get_peft_model(base.model, config)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    stream = itertools.cycle(example_rows(base, examples))
    seconds = []
    for _ in range(TIMED + 1):  # the first warms up
        begun = time.perf_counter()
        drawn = list(itertools.islice(stream, 8))
        (batch,) = grouped(drawn, base.tokenizer.pad_token_id, 1)
        batch = batch.to(base.device)
        logits = answer_logits(model.get_base_model(), batch.ids, batch.answer)
        losses, _ = token_losses(logits, batch.ids, batch.answer)
        losses.mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        float(losses.detach().sum())  # waits for the device
        seconds.append(time.perf_counter() - begun)
    return sum(seconds[1:]) / TIMED


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--examples", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
