"""What a checkpoint of icm-lora makes of the tasks that it was trained on, and why.

    python benchmarks/quality/icm_study.py --library LIB --tasks TASKS/train --device cuda \
        --checkpoint runs/icm_lora/checkpoint --checkpoint runs/icm_lora/adapted --out study.json

The library needs snapshots. For each checkpoint: cosines of ΔW with the training adapters, through
the posterior and generated; the KL in nats; the variance within a task, of samples and of
snapshots; the distance to the nearest training adapter beside that of copies with noise; and scores
on test rows, bare, by each kind of task vector and with another task's vector. Recovery is the
share of the gain of the tasks' own adapters over the base.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import Tensor

from benchmarks.quality.icm_measures import memorisation, reconstruction, variance
from generator.engine import read_generator
from generator.layers.flattened import flatten, unflatten
from generator.models.base import Condition
from generator.models.icm_lora import ICMLoRA
from library.adapter import Adapter, stack
from library.base.decode import greedy
from library.base.models import fast_dtype, load_base, resolve_base
from library.base.prompts import prompt_ids
from library.base.task_vectors import SHOTS, in_context_prompts, task_vectors
from library.files import write_file
from library.tasks.files import Task
from library.tasks.metrics import exact_match, rouge_l
from training.data.adapters import LibraryDataModule
from training.data.vectors import adapted_vectors, tasks_of

LONGEST = 1024  # tokens of a prompt that is decoded
SWAPPED = "another task's vector"


class Bench:
    """The training adapters of some tasks, their vectors of every kind, and the base's answers."""

    def __init__(self, o: argparse.Namespace) -> None:
        self.o, data = o, LibraryDataModule(o.library, snapshots=True, experts=0)
        data.setup("fit")
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(data.row_tasks):
            rows.setdefault(name, []).append(row)
        names = sorted(rows)[: o.limit]
        if len(names) < 2:
            raise SystemExit("the study needs adapters of two tasks at least")
        self.tasks: list[Task] = list(tasks_of(o.tasks, names, o.library).values())
        self.states = [data.adapters[rows[name]] for name in names]
        self.finals = stack([states[[0]] for states in self.states]).to(o.device)
        means = [flatten(states).mean(dim=0) for states in self.states]
        self.means = unflatten(data.layout, torch.stack(means)).to(o.device)
        reference = resolve_base(o.base)
        base = load_base(reference, device=o.device)
        self.vectors = self._vectors(base)
        dtype = fast_dtype(o.device)
        self.base = base if dtype == torch.float32 else load_base(
            reference, device=o.device, dtype=dtype
        )  # fmt: skip
        self.baselines = self.table(self._baselines())
        for row in self.baselines.values():
            row["recovery"] = self.recovery(row["rouge_l"])

    def _vectors(self, base: Any) -> dict[str, Tensor]:
        """By kind: (tasks, d)."""
        by_kind = {
            kind: [
                in_context_prompts(base.tokenizer, task.definition, task.train[:shots])
                for task in self.tasks
            ]
            for kind, shots in (("description", 0), ("description and examples", SHOTS))
        }
        found = {kind: task_vectors(base, prompts) for kind, prompts in by_kind.items()}
        found["adapted"] = adapted_vectors(base, self.tasks, self.finals)
        return {kind: vectors.to(self.o.device) for kind, vectors in found.items()}

    def _baselines(self) -> dict[str, list[Adapter | None]]:
        """Adapters of each task by method; of `nearest`, the task with the likest vector."""
        n = len(self.tasks)
        vectors = self.vectors["description"]
        standard = torch.nn.functional.normalize(vectors - vectors.mean(dim=0), dim=-1)
        likeness = standard @ standard.T - 2 * torch.eye(n, device=standard.device)
        other = likeness.argmax(dim=1).tolist()
        mean = unflatten(self.finals.layout, flatten(self.finals).mean(dim=0, keepdim=True))
        return {
            "base": [None] * n,
            "oracle": [self.finals[[i]] for i in range(n)],
            "mean of its snapshots": [self.means[[i]] for i in range(n)],
            "nearest other task": [self.finals[[i]] for i in other],
            "mean of all tasks": [mean] * n,
        }

    def table(self, methods: dict[str, list[Adapter | None]]) -> dict[str, Any]:
        """Mean scores over tasks of each method, in per cent, and every task's."""
        found = {}
        for name, adapters in methods.items():
            scores = self._scores(adapters)
            found[name] = {
                "rouge_l": round(statistics.mean(score[0] for score in scores), 2),
                "exact": round(statistics.mean(score[1] for score in scores), 2),
                "by_task": [round(score[0], 1) for score in scores],
            }
            print(name, found[name]["rouge_l"], file=sys.stderr, flush=True)
        return found

    def _scores(self, adapters: Sequence[Adapter | None]) -> list[tuple[float, float]]:
        """ROUGE-L and exact match of each task's first test rows, bare, in per cent."""
        rows = [(i, row) for i, task in enumerate(self.tasks) for row in task.test[: self.o.rows]]
        prompts = [prompt_ids(self.base.tokenizer, row.input)[-LONGEST:] for _, row in rows]
        present = [adapter for adapter in adapters if adapter is not None]
        stacked = stack(present).to(self.base.device) if present else None
        owners = [i for i, _ in rows] if present else None
        answers = greedy(self.base, prompts, stacked, owners, batch_size=self.o.batch_size)
        scores: list[list[tuple[float, float]]] = [[] for _ in self.tasks]
        for (i, row), answer in zip(rows, answers, strict=True):
            scores[i].append((rouge_l(answer, row.outputs), exact_match(answer, row.outputs)))
        return [
            (100 * statistics.mean(s[0] for s in own), 100 * statistics.mean(s[1] for s in own))
            for own in scores
        ]

    @torch.inference_mode()
    def study(self, folder: Path) -> dict[str, Any]:
        """Everything about one checkpoint."""
        checkpoint = read_generator(folder)
        module = checkpoint.module.to(self.o.device)
        if not isinstance(module, ICMLoRA):
            raise SystemExit(f"{folder} is a checkpoint of {checkpoint.kind}, not of icm-lora")
        module.layout.require_same(self.finals.layout, str(folder), self.o.library)
        training = checkpoint.info.training
        kind = training["data"]["vectors"]["kind"]
        own = self.vectors["adapted" if kind == "adapted" else "description"]
        samples = [module(Condition(task=own, seed=seed)) for seed in range(max(2, self.o.samples))]
        return {
            "checkpoint": checkpoint.digest,
            "trained_on_vectors": kind,
            "steps": training["steps"],
            "bytes": sum(file.stat().st_size for file in folder.iterdir()),
            "reconstruction": reconstruction(module, Condition(task=own), self.finals, self.means),
            "variance_within_a_task": variance(module, samples, self.states),
            "nearest_training_adapter": memorisation(stack(samples), self.finals, self.states),
            "scores": {
                name: {**row, "recovery": self.recovery(row["rouge_l"])}
                for name, row in self.table(self._generated(module, own)).items()
            },
        }

    def _generated(self, module: ICMLoRA, own: Tensor) -> dict[str, list[Adapter | None]]:
        """Adapters of each task: by kind of vector and seed, and by the next task's vector."""
        conditions = {
            f"{kind}, seed {seed}": Condition(task=vectors, seed=seed)
            for kind, vectors in self.vectors.items()
            for seed in range(self.o.samples)
        }
        conditions[SWAPPED] = Condition(task=own.roll(-1, dims=0))
        made = {name: module(condition) for name, condition in conditions.items()}
        return {name: [a[[i]] for i in range(len(a))] for name, a in made.items()}

    def recovery(self, score: float) -> float | None:
        """Share of the own adapters' gain over the base; None where these gain nothing."""
        base, oracle = (self.baselines[name]["rouge_l"] for name in ("base", "oracle"))
        return round((score - base) / (oracle - base), 4) if oracle > base else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", required=True)
    parser.add_argument("--checkpoint", type=Path, action="append", required=True)
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--base")
    parser.add_argument("--limit", type=int, help="tasks, the first by name")
    parser.add_argument("--rows", type=int, default=40, help="test rows of each task")
    parser.add_argument("--samples", type=int, default=3, help="seeds that z is drawn by")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    bench = Bench(options)
    cuda = options.device.startswith("cuda")
    report = {
        "schema": 1,
        "command": " ".join(["python", *sys.argv]),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "tasks": [task.name for task in bench.tasks],
        "adapters": sum(map(len, bench.states)),
        "baselines": bench.baselines,
        "checkpoints": [bench.study(folder) for folder in options.checkpoint],
    }
    write_file(options.out, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
