"""What an adapter costs on bases of 135 million to 8 billion weights, trained and generated: JSON.

    python -m benchmarks.speed.sizes --device cuda --out docs/results/sizes.json

The bases have the shapes of published models and random weights: a step takes as long whatever it
learns. Rank 8 on all seven module types. `training`: our trainer with one adapter and with sixteen
at once, eight rows of 128 tokens each; seconds of a step (median of the second half), memory at its
peak. The peer, in the same run: a step of PEFT on such rows, with torch's AdamW and eager kernels.
`generator`: Text-to-LoRA of the architecture and modules that ship, reading the states of this
base, one pass on a single thread of the CPU; `mb_int8` is about what its checkpoint takes.
"""

import argparse
import gc
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

import pretrained
from generator.models.base import Condition
from generator.models.text_to_lora import TextToLoRA
from index.encoders.descriptions import Embeddings
from library.base.batches import TokenRow
from library.base.models import fast_dtype
from library.checkpoint import load_checkpoint
from library.files import write_file
from library.layout import Layout, layout_of
from library.trainer.batched import BatchedTrainer
from library.trainer.recipes.recipe import TrainingJob
from library.trainer.recipes.registry import RECIPES
from library.trainer.run_state import TrainConfig

# Layers, width, heads, key heads, inner width, vocabulary.
SHAPES = {
    "SmolLM2-135M": (30, 576, 9, 3, 1536, 49152),
    "SmolLM2-360M": (32, 960, 15, 5, 2560, 49152),
    "Llama-3.2-1B": (16, 2048, 32, 8, 8192, 128256),
    "SmolLM2-1.7B": (24, 2048, 32, 32, 8192, 49152),
    "Llama-3.2-3B": (28, 3072, 24, 8, 8192, 128256),
    "Llama-3.1-8B": (32, 4096, 32, 8, 14336, 128256),
}
ALL = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
ROWS, LENGTH, ANSWER = 8, 128, 32
WORDS = 48  # of a description


def main() -> None:
    o = _options()
    report: dict[str, Any] = {
        "command": " ".join(["python", "-m", "benchmarks.speed.sizes", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if o.device == "cuda" else "cpu",
        "rank": 8, "rows": ROWS, "tokens_a_row": LENGTH, "bases": [],
    }  # fmt: skip
    for name in o.shapes:
        report["bases"].append({"shape": name, **measured(name, o)})
        print(json.dumps(report["bases"][-1]), flush=True)
        write_file(o.out, (json.dumps(report, indent=1) + "\n").encode())
        gc.collect()
        torch.cuda.empty_cache()


def measured(name: str, o: argparse.Namespace) -> dict[str, Any]:
    """One shape: its base, training and generator."""
    model = random_base(name, o.device)
    layout = layout_of(model.config, ALL, rank=8)
    numbers = sum(site.numbers for site in layout.sites)
    peer = peft_seconds(model, o.steps)
    runs = [trained(model, layout, count, o) | {"adapters": count} for count in o.adapters]
    for run in runs:
        run["tokens_a_second"] = round(run["adapters"] * ROWS * LENGTH / run["seconds_a_step"])
        run["ratio"] = round(run["seconds_a_step"] / run["adapters"] / peer, 3)
    return {
        "weights": sum(p.numel() for p in model.parameters()),
        "adapter_numbers": numbers, "adapter_mb": round(4 * numbers / 1e6, 1),
        "training": runs, "peft_seconds_a_step": round(peer, 4),
        "generator": generator(model.config),
    }  # fmt: skip


def random_base(name: str, device: str) -> Any:
    """A frozen causal LM of the shape, in the dtype that adapters train on."""
    layers, width, heads, key_heads, inner, vocabulary = SHAPES[name]
    config = LlamaConfig(
        num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads,
        num_key_value_heads=key_heads, intermediate_size=inner, vocab_size=vocabulary,
        tie_word_embeddings=name != "Llama-3.1-8B",
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=fast_dtype(device))
    torch.backends.cuda.enable_cudnn_sdp(False)  # as library.base.models does
    return model.requires_grad_(False).eval()


def rows_of(count: int, vocabulary: int) -> list[TokenRow]:
    drawn = random.Random(0)
    ids = [[drawn.randrange(vocabulary) for _ in range(LENGTH)] for _ in range(count)]
    return [TokenRow(0, row[:-ANSWER], row[-ANSWER:]) for row in ids]


def trained(model: Any, layout: Layout, count: int, o: argparse.Namespace) -> dict[str, Any]:
    """Our trainer: seconds of a step of `count` adapters, and memory."""
    rows = tuple(rows_of(2 * ROWS, model.config.vocab_size))
    jobs = [TrainingJob(f"job-{i}", rows, rows[:1]) for i in range(count)]
    # No evaluation but that at the end.
    config = TrainConfig(o.steps + 1, ROWS, count, check_every=o.steps + 1, patience=0)
    begun = [time.perf_counter()]
    if o.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer = BatchedTrainer(model, layout, RECIPES["lora"], config, pad=0)
    for _ in trainer.run(jobs, lambda *_: begun.append(time.perf_counter())):
        pass
    each = [later - before for before, later in itertools.pairwise(begun)]
    peak = torch.cuda.max_memory_allocated() if o.device == "cuda" else None
    seconds = statistics.median(each[len(each) // 2 : -1])  # the last one's has the evaluation
    return {
        "seconds_a_step": round(seconds, 4),
        "peak_gb": None if peak is None else round(peak / 1e9, 2),
    }


def peft_seconds(model: Any, steps: int) -> float:
    """A step of the peer on one adapter; afterwards the base has its own modules back."""
    ids = torch.tensor([[*r.prompt, *r.answer] for r in rows_of(ROWS, model.config.vocab_size)])
    ids = ids.to(model.device)
    labels = torch.cat([torch.full_like(ids[:, :-ANSWER], -100), ids[:, -ANSWER:]], dim=1)
    wrapped: Any = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=ALL))
    optimiser = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        wrapped(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()

    seconds = median_seconds(step, steps, model.device)
    wrapped.unload()
    return seconds


def median_seconds(run: Callable[[], object], times: int, device: torch.device) -> float:
    """Of the second half of the calls."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[times // 2 :])


@torch.inference_mode()
def generator(config: Any) -> dict[str, Any]:
    """Text-to-LoRA of the shipped architecture, reading the states of a base of this width."""
    shipped = load_checkpoint(pretrained.folder("text-to-lora"), TextToLoRA).module
    width, types = config.hidden_size, shipped.layout.module_types
    architecture = replace(shipped.config, embedding_dim=width, words_dim=width)
    module = TextToLoRA(architecture, layout_of(config, types, rank=shipped.layout.rank)).eval()
    drawn = torch.randn(1, WORDS, width)
    condition = Condition(
        Embeddings(drawn[:, 0], drawn, drawn, torch.ones(1, WORDS, dtype=torch.bool))
    )
    parameters = sum(p.numel() for p in module.parameters())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    on_cpu = median_seconds(lambda: module(condition), 8, torch.device("cpu"))
    torch.set_num_threads(threads)
    numbers = sum(site.numbers for site in module.layout.sites)
    return {
        "parameters": parameters, "mb_int8": round(parameters / 1e6, 1),
        "adapter_mb": round(4 * numbers / 1e6, 1), "seconds_on_one_thread": round(on_cpu, 4),
    }  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", nargs="+", choices=[*SHAPES], default=[*SHAPES])
    parser.add_argument("--adapters", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
