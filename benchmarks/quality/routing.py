"""Gates over a library's adapters, on the tasks that the adapters were trained on, mixed.

    python -m benchmarks.quality.routing --tasks TASKS/train --device cuda \\
        --out docs/results/routing.json

Every test row is asked bare and with its task's instruction, twice: in domain, where all adapters
may act, and with its own task's adapter left out. Trained gates, and one LoRA of as many numbers as
all adapters together, have seen train rows of all tasks in either setting; the LoRA has nothing to
leave out. ROUGE-L x 100, the mean over tasks. The report is written after each system, so that what
is stopped has its rows so far.

`active_numbers` are the adapters' numbers that act on a token of a prompt, `gate_numbers` the
gate's own. `ms_a_token` is the time of a batch by the tokens of its answers, prompts included.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

import pretrained
from index.encoders.descriptions import DescriptionEncoder
from index.gate.experts import experts_of
from index.gate.forward import GatedAdapter
from index.gate.prototypes import Prototypes
from index.gate.systems import SYSTEMS, system_named
from index.routing import Router, RouterConfig, embed_inputs
from library.adapter import Adapter
from library.base.decode import answer_text, decode
from library.base.models import fast_dtype, load_base, require_device
from library.base.multi_adapter import MultiAdapter
from library.base.prompts import Mode, prompt_ids, user_turn
from library.files import write_file
from library.tasks.files import Example
from library.tasks.metrics import bootstrap_ci95, rouge_l
from training.data.gates import MODES, GateData
from training.models.gate import GateTraining
from training.models.multi_task import MultiTaskLoRA

NEAREST = 3  # adapters that `retrieve` sums
OTHERS = ("base", "oracle", "uniform", "one-lora", "retrieve")  # beside the table's systems


@dataclass(frozen=True)
class Asked:
    """A test row: its task's number and text, and the prompt."""

    task: int
    row: Example
    turn: str
    ids: list[int]


class Bench:
    """The base, the adapters and the test rows of a run, and its report."""

    def __init__(self, o: argparse.Namespace) -> None:
        self.o = o
        self.data = GateData(
            o.library, o.tasks, o.base, adapters=o.count, steps=o.steps, seed=o.seed
        )
        self.data.setup("fit")
        self.base = load_base(self.data.base, device=o.device, dtype=fast_dtype(o.device))
        self.adapters = self.data.adapters.to(o.device)
        self.asked = {mode: self._asked(mode) for mode in MODES}
        self.report: dict[str, Any] = {
            "command": " ".join(["python", "-m", "benchmarks.quality.routing", *sys.argv[1:]]),
            "base_sha256": self.base.sha256,
            "device": torch.cuda.get_device_name() if o.device != "cpu" else "cpu",
            "tasks": self.data.task_names,
            "rank": self.adapters.layout.rank,
            "results": [],
        }

    def _asked(self, mode: Mode) -> list[Asked]:
        found = []
        for number, task in enumerate(self.data.tasks):
            for row in task.test[: self.o.rows]:
                turn = user_turn(mode, task.definition, row.input)
                found.append(Asked(number, row, turn, prompt_ids(self.base.tokenizer, turn)))
        return found

    def run(self, name: str) -> None:
        """Measure one system in both modes and settings."""
        begin = time.monotonic()
        experts = self._one_lora() if name == "one-lora" else self.adapters
        gate, about = None, dict[str, Any](system=name)
        if name in SYSTEMS:
            experts = experts_of(SYSTEMS[name], self.adapters)
            gate = self._gate(name, experts)
            about["gate_numbers"] = sum(p.numel() for p in gate.parameters())
            about["choices"] = asdict(SYSTEMS[name])
        about["made_in_s"] = round(time.monotonic() - begin, 1)
        for mode in MODES:
            for own in (True, False):
                if own or name not in ("base", "oracle", "one-lora"):
                    line = self._measured(name, gate, experts, mode, own)
                    self.report["results"].append({**about, "mode": mode, "in_domain": own, **line})
                    print(
                        name, mode, "in domain" if own else "held out", line["rouge_l"], flush=True
                    )
        write_file(self.o.out, (json.dumps(self.report, indent=1) + "\n").encode())

    def _measured(
        self, name: str, gate: Any, experts: Adapter, mode: Mode, own: bool
    ) -> dict[str, Any]:
        asked = self.asked[mode]
        weights = self._weights(name, asked, own)
        if gate is None:
            hooks = MultiAdapter(self.base.model, experts.layout)
        else:
            hooks = GatedAdapter(self.base.model, gate, SYSTEMS[name], experts.layout)
        begin = time.monotonic()
        with closing(hooks):
            answers = decode(
                self.base,
                [row.ids for row in asked],
                None if name == "base" else experts,
                weights.tolist(),
                max_new_tokens=self.o.max_new_tokens,
                batch_size=self.o.batch_size,
                hooks=hooks,
            )
            seconds = time.monotonic() - begin
            active = self._active(hooks, experts, asked, weights)
        tokens = sum(map(len, answers))
        scores: list[list[float]] = [[] for _ in self.data.tasks]
        for row, answer in zip(asked, answers, strict=True):
            scores[row.task].append(rouge_l(answer_text(self.base, answer), row.row.outputs))
        by_task = [100 * sum(part) / len(part) for part in scores]
        return {
            "rouge_l": round(sum(by_task) / len(by_task), 2),
            "ci95": [round(x, 2) for x in bootstrap_ci95(by_task)],
            "ms_a_token": round(1000 * seconds / tokens, 3),
            "active_numbers": 0 if name == "base" else active,
            "by_task": [round(x, 1) for x in by_task],
        }

    def _weights(self, name: str, asked: Sequence[Asked], own: bool) -> Tensor:
        """(rows, n): a mixture's weights, or a gate's prior."""
        n = 1 if name == "one-lora" else len(self.adapters)
        weights = torch.ones(len(asked), n)
        owners = torch.tensor([row.task for row in asked])[:, None]
        if name == "oracle":
            return torch.zeros_like(weights).scatter(1, owners, 1.0)
        if not own:
            weights = weights.scatter(1, owners, 0.0)
        if name == "uniform":
            return weights / weights.sum(1, keepdim=True)
        return self._retrieved(asked, weights) if name == "retrieve" else weights

    def _retrieved(self, asked: Sequence[Asked], allowed: Tensor) -> Tensor:
        """The adapters whose descriptions are nearest to the prompt, of those that are allowed."""
        encoder, names = DescriptionEncoder(dtype=torch.float32), self.data.task_names
        described = embed_inputs(encoder, [task.definition for task in self.data.tasks])
        router = Router(RouterConfig(names, described.shape[1], 1, encoder.name))
        router.samples.copy_(described)
        weights, vectors = torch.zeros_like(allowed), embed_inputs(encoder, [a.turn for a in asked])
        for i, row in enumerate(allowed):
            among = [name for name, share in zip(names, row.tolist(), strict=True) if share]
            for name, share in router.nearest(vectors[[i]], among, NEAREST)[0]:
                weights[i, names.index(name)] = share
        return weights

    @torch.inference_mode()
    def _active(
        self, hooks: MultiAdapter, experts: Adapter, asked: Sequence[Asked], weights: Tensor
    ) -> int:
        """Adapters' numbers that act on a token: the mean over the first prompt of each task."""
        sizes = {site.name: site.numbers for site in experts.layout.sites}
        if not isinstance(hooks, GatedAdapter):
            return round(float((weights != 0).sum(1).float().mean()) * sum(sizes.values()))
        total, first = 0.0, {row.task: i for i, row in reversed([*enumerate(asked)])}
        for i in first.values():
            hooks.set_mixture(experts, weights[[i]].to(self.base.device))
            self.base.model(torch.tensor([asked[i].ids], device=self.base.device), use_cache=False)
            for site, (_, shares) in hooks.chosen.items():
                total += sizes[site] * float((shares > 0).sum(-1).float().mean())
        return round(total / len(first))

    def _gate(self, name: str, experts: Adapter) -> Any:
        """Made from the adapters' weights, or trained."""
        if SYSTEMS[name].scores != "learnt":
            return Prototypes(SYSTEMS[name], experts)
        module = GateTraining(name, lr=self.o.lr)
        self._fit(module, self.o.steps)
        return module.gate.to(self.o.device).eval()

    def _one_lora(self) -> Adapter:
        layout = self.adapters.layout
        rank = len(self.adapters) * layout.rank
        module = MultiTaskLoRA(self.o.base, layout.module_types, rank)
        self._fit(module, self.o.one_lora_steps)
        with torch.no_grad():
            return module.adapter().to(self.o.device)

    def _fit(self, module: Any, steps: int) -> None:
        lightning.seed_everything(self.o.seed, verbose=False)
        trainer = lightning.Trainer(
            max_steps=steps,
            accelerator="cpu" if self.o.device == "cpu" else "gpu",
            devices=1,
            gradient_clip_val=1.0,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(module, datamodule=self.data)


def main() -> None:
    bench = Bench(_options())
    for name in bench.o.systems:
        bench.run(name)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", required=True, help="folders of the tasks")
    parser.add_argument("--library", default=str(pretrained.folder("library")))
    parser.add_argument("--base", help="the library's; the default base if none is given")
    parser.add_argument("--systems", nargs="+", default=[*OTHERS, *SYSTEMS])
    parser.add_argument("--count", type=int, default=16, help="adapters, and their tasks")
    parser.add_argument("--rows", type=int, default=20, help="test rows of each task")
    parser.add_argument("--steps", type=int, default=100, help="of each gate, 16 rows a step")
    parser.add_argument("--lr", type=float, default=3e-3, help="of the gates")
    parser.add_argument("--one-lora-steps", type=int, default=400, help="16 rows a step")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    require_device(o.device)
    for name in o.systems:
        if name not in OTHERS:
            system_named(name, [*OTHERS, *SYSTEMS])
    return o


if __name__ == "__main__":
    main()
