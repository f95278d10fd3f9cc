"""Batched building of a library against PEFT and transformers' Trainer, one task after another.

    python benchmarks/speed/library_vs_peft.py --tasks TASKS/train --out \
        docs/results/library-vs-peft.json

Same tasks, rows, order, steps, rates and initial A; loading the base is timed on neither side. The
peer runs as its users run it (bf16, the same attention kernel, padded per batch), without saving,
logging or evaluation. `ratio` is its wall time over ours; both sets of adapters are then scored on
the test rows; `difference` is the largest between their factors. `scaling` is our time per adapter
and step with 1 to 64 adapters at once.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import peft
import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from library.adapter import Adapter, stack
from library.base.batches import TokenRow
from library.base.compiled import compile_layers
from library.base.decode import greedy
from library.base.models import BaseModel, fast_dtype, load_base, load_config, resolve_base
from library.base.prompts import prompt_ids
from library.build.plan import tokenised
from library.layout import Layout, layout_of
from library.tasks.files import Task, read_tasks
from library.tasks.metrics import rouge_l
from library.trainer.batched import BatchedTrainer
from library.trainer.optimiser import shared_start
from library.trainer.recipes.recipe import Recipe, TrainingJob
from library.trainer.recipes.registry import RECIPES
from library.trainer.run_state import TrainConfig, shuffled_rows


class InOrder(Trainer):
    """A Trainer that takes its rows as they come: they have been shuffled already."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        return SequentialSampler(rows)


def collate(rows: list[TokenRow], pad: int) -> dict[str, torch.Tensor]:
    """Padded to the longest row of the batch; prompts are not learned."""
    width = max(map(len, rows))
    ids, labels, mask = [], [], []
    for row in rows:
        gap = width - len(row)
        ids.append([*row.prompt, *row.answer, *[pad] * gap])
        labels.append([-100] * len(row.prompt) + row.answer + [-100] * gap)
        mask.append([1] * len(row) + [0] * gap)
    return {
        "input_ids": torch.tensor(ids),
        "labels": torch.tensor(labels),
        "attention_mask": torch.tensor(mask),
    }


def by_peft(
    base: BaseModel, layout: Layout, jobs: list[TrainingJob], recipe: Recipe, config: TrainConfig
) -> list[Adapter]:
    """One task after another; the base's weights stay loaded."""
    start, adapters = shared_start(layout, 0), []
    types = list(dict.fromkeys(site.module_type for site in layout.sites))
    pad = base.tokenizer.pad_token_id
    for job in jobs:
        settings = peft.LoraConfig(
            r=layout.rank, lora_alpha=int(recipe.alpha), target_modules=types
        )
        model: Any = peft.get_peft_model(base.model, settings)
        modules = {s: model.get_submodule(f"base_model.model.{s.name}") for s in layout.sites}
        for site, module in modules.items():
            module.lora_A["default"].weight.data.copy_(start.site(site)[0][0])
        trained = [p for p in model.parameters() if p.requires_grad]
        fused = base.device.type == "cuda"
        optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=0.0, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: recipe.rate(step, config.steps)
        )
        rows = list(itertools.islice(shuffled_rows(job), config.steps * config.rows))
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                max_steps=config.steps,
                per_device_train_batch_size=config.rows,
                bf16=base.device.type == "cuda",
                use_cpu=base.device.type == "cpu",
                max_grad_norm=recipe.clip,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
            )
            InOrder(
                model,
                arguments,
                data_collator=lambda batch: collate(batch, pad),
                train_dataset=rows,  # pyright: ignore[reportArgumentType]
                optimizers=(optimizer, schedule),
            ).train()
        adapters.append(_adapter_of(layout, modules, recipe))
        model.unload()
    return adapters


def _adapter_of(layout: Layout, modules: dict[Any, Any], recipe: Recipe) -> Adapter:
    a, b = {}, {}
    for group in layout.groups:
        pairs = [(modules[s].lora_A["default"], modules[s].lora_B["default"]) for s in group.sites]
        a[group.key] = torch.stack([x.weight.detach().cpu().float() for x, _ in pairs])[None]
        stacked = torch.stack([y.weight.detach().cpu().float() for _, y in pairs])[None]
        b[group.key] = stacked * recipe.scale(group.rank)
    return Adapter(layout, a, b)


def batched(
    base: BaseModel, layout: Layout, jobs: list[TrainingJob], recipe: Recipe, config: TrainConfig
) -> tuple[list[Adapter], BatchedTrainer]:
    """All at once."""
    pad = base.tokenizer.pad_token_id
    trainer = BatchedTrainer(base.model, layout, recipe, config, pad=pad)
    adapters = {done.job.name: done.adapter for done in trainer.run(jobs)}
    return [adapter for job in jobs if (adapter := adapters[job.name]) is not None], trainer


def score(base: BaseModel, tasks: list[Task], adapters: list[Adapter]) -> float:
    """Mean over tasks of ROUGE-L x 100 on the test rows, as the adapters are stored."""
    stored = stack([adapter.to(dtype=torch.bfloat16) for adapter in adapters])
    prompts = [prompt_ids(base.tokenizer, row.input) for task in tasks for row in task.test]
    rows = [i for i, task in enumerate(tasks) for _ in task.test]
    placed = stored.to(base.device, torch.float32)
    answers = iter(greedy(base, prompts, placed, rows, batch_size=512))
    means = [
        sum(rouge_l(next(answers), row.outputs) for row in task.test) / len(task.test)
        for task in tasks
    ]
    return 100 * sum(means) / len(means)


def timed(run: Any) -> tuple[Any, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=320)
    parser.add_argument("--scaling", default="1,4,8,16,32,64")
    parser.add_argument("--base")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    o = parser.parse_args()
    logging.set_verbosity_error()
    cuda = o.device != "cpu"
    reference = resolve_base(o.base)
    base = load_base(reference, device=o.device, dtype=fast_dtype(o.device))
    layout, recipe = layout_of(load_config(reference)), RECIPES["lora"]
    available = read_tasks(o.tasks)
    stride = max(1, len(available) // o.count)
    tasks = available[::stride][: o.count]
    jobs = [TrainingJob(t.name, tokenised(t.train, base.tokenizer, o.max_length)) for t in tasks]
    tasks = [task for task, job in zip(tasks, jobs, strict=True) if job.train]
    jobs = [job for job in jobs if job.train]
    config = TrainConfig(steps=o.steps, rows=o.rows, slots=len(jobs), patience=0)

    by_peft(base, layout, jobs[:1], recipe, replace(config, steps=3))  # both sides are warm
    peers, peer_seconds = timed(lambda: by_peft(base, layout, jobs, recipe, config))
    if o.compile:
        compile_layers(base.model)
    _, warm = timed(lambda: batched(base, layout, jobs, recipe, replace(config, steps=3)))
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    (adapters, trainer), seconds = timed(lambda: batched(base, layout, jobs, recipe, config))
    figures = trainer.figures
    memory = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
    result = {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "tasks": [task.name for task in tasks],
        "steps": o.steps,
        "rows": o.rows,
        "seconds": {
            "batched": seconds,
            "peft and Trainer": peer_seconds,
            "our first 3 steps": warm,
        },
        "ratio": peer_seconds / seconds,
        "tokens_per_second": figures.tokens / seconds,
        "padding": 1 - figures.tokens / figures.cells,
        "gpu_memory_gb": memory,
        "scores": {
            "batched": score(base, tasks, adapters),
            "peft and Trainer": score(base, tasks, peers),
        },
        "difference": max(
            float((a - b).abs().max())
            for adapter, peer in zip(adapters, peers, strict=True)
            for a, b in zip(adapter.factors(), peer.factors(), strict=True)
        ),
        "scaling": {},
    }
    for n in [int(text) for text in o.scaling.split(",")]:
        part = [replace(jobs[i % len(jobs)], name=f"{i}") for i in range(n)]
        short = replace(config, steps=min(o.steps, 40), slots=n)
        batched(base, layout, part, recipe, replace(short, steps=3))
        _, took = timed(lambda part=part, c=short: batched(base, layout, part, recipe, c))
        result["scaling"][str(n)] = took / n / short.steps
    o.out.parent.mkdir(parents=True, exist_ok=True)
    o.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in result.items() if k != "tasks"}, indent=1))


if __name__ == "__main__":
    main()
