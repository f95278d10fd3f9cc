"""Do weights agree with their description? The hook's calibration, and how well it tells.

    python benchmarks/quality/agreement.py --libraries LIB LIB2 --tasks TASKS/train \
        --held-out TASKS/public_heldout --calibration verification/scores/agreement.json \
        --out docs/results/agreement.json

The first library's adapters of tasks that the weight encoder has not seen make the calibration:
right pairs are an adapter and a description of its task, wrong ones an adapter and a description of
another of these tasks. The report has the area under the curve of right against wrong there, in the
second library (another training of the same tasks), and for adapters that the shipped text-to-lora
generates from the definitions of these tasks and of the held-out ones, which took no part in any
choice.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.quality.described import Described, described
from benchmarks.quality.thresholds import area_under_curve
from generator.engine import Engine, open_engine
from generator.models.text_to_lora import TextToLoRA
from generator.request import Request
from index.encoders.weights import WeightEncoder, load_weight_encoder
from library.adapter import stack
from library.base.models import resolve_base
from training.data.libraries import read_stock
from verification.scores.agreement import AgreementCalibration

DIGITS = 4
Vectors = Float[Tensor, "n d"]


class Pairs:
    """Adapters of some tasks, and every description of these tasks, in the common space."""

    def __init__(self, encoder: WeightEncoder, tasks: Sequence[Described], adapters: Vectors):
        self.tasks = tasks
        self.texts = [
            encoder.describe(
                torch.cat([torch.from_numpy(x) for x in (t.definition, t.summary, t.paraphrases)])
            )
            for t in tasks
        ]
        self.adapters = adapters

    def quantiles(self, right: bool) -> tuple[float, ...]:
        """Quantiles of the cosines of right or of wrong pairs; each task counts for one."""
        scores, weights = [], []
        for i, texts in enumerate(self.texts):
            cosines = texts @ self.adapters.mT
            same_task = torch.arange(len(self.tasks)) == i
            values = cosines[:, same_task if right else ~same_task].flatten()
            scores.append(values)
            weights.append(torch.full_like(values, 1 / len(texts)))
        ordered, order = torch.cat(scores).sort()
        mass = torch.cat(weights)[order].cumsum(dim=0)
        grid = torch.linspace(0, 1, 101, dtype=mass.dtype) * mass[-1]
        places = torch.searchsorted(mass, grid - 1e-9).clamp_max(len(ordered) - 1)
        return tuple(round(score, DIGITS) for score in ordered[places].tolist())

    def figures(self, threshold: float) -> dict[str, Any]:
        """Figures of how well a task's definition, or its last description, tells right from wrong.

        Warned: the share of pairs below the threshold.
        """
        kinds = [(task.task.categories or ("",))[0] for task in self.tasks]
        related = torch.tensor([[one == other for one in kinds] for other in kinds])
        same_task, figures = torch.eye(len(kinds), dtype=torch.bool), {}
        for name, index in (("definition", 0), ("paraphrase", -1)):
            cosines = torch.stack([texts[index] for texts in self.texts]) @ self.adapters.mT
            right, wrong, strange = (cosines[mask] for mask in (same_task, ~same_task, ~related))
            figures[name] = {
                "auc": area_under_curve(right.tolist(), wrong.tolist()),
                "auc_of_other_categories": area_under_curve(right.tolist(), strange.tolist()),
                "right_median": float(right.median()),
                "wrong_median": float(wrong.median()),
                "right_warned": float((right < threshold).double().mean()),
                "wrong_warned": float((wrong < threshold).double().mean()),
            }
        return {"tasks": len(kinds), **figures}


def generated(encoder: WeightEncoder, engine: Engine, tasks: Sequence[Described]) -> Vectors:
    """Adapters that text-to-lora generates for each definition, encoded."""
    base, adapters = resolve_base(), []
    for task in tasks:
        request = Request(task.task.definition)
        adapters.append(engine.propose(TextToLoRA.kind, request, base).adapter)
    return encoder.encode(stack(adapters))


def stored(encoder: WeightEncoder, url: str, tasks: Sequence[Described]) -> Vectors:
    stock, _ = read_stock(url)
    rows = [stock.tasks.index(task.task.name) for task in tasks]
    return encoder.encode(stock.adapters[rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libraries", nargs=2, required=True)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    torch.set_num_threads(1)
    encoder, engine = load_weight_encoder(), open_engine()
    checkpoint = engine.generated[TextToLoRA.kind].checkpoint
    taught = set(checkpoint.info.tasks)
    unseen = [d for d in described([o.tasks]) if d.task.name not in set(encoder.info.tasks)]
    held_out = described([o.held_out])
    pairs = Pairs(encoder, unseen, stored(encoder, o.libraries[0], unseen))
    limits = AgreementCalibration(
        checkpoint=encoder.digest,
        recipe="oracle:lora",
        tasks=len(unseen),
        descriptions=sum(len(texts) for texts in pairs.texts),
        right=pairs.quantiles(True),
        wrong=pairs.quantiles(False),
    )
    o.calibration.write_text(json.dumps(asdict(limits), sort_keys=True) + "\n", encoding="utf-8")
    second = Pairs(encoder, unseen, stored(encoder, o.libraries[1], unseen))
    test_pairs = Pairs(encoder, unseen, generated(encoder, engine, unseen))
    new = Pairs(encoder, held_out, generated(encoder, engine, held_out))
    report = {
        "checkpoint": encoder.digest,
        "text_to_lora": checkpoint.digest,
        "threshold": limits.threshold,
        "calibration": {"tasks": limits.tasks, "descriptions": limits.descriptions},
        "trained": pairs.figures(limits.threshold),
        "trained, second library": second.figures(limits.threshold),
        "generated": test_pairs.figures(limits.threshold),
        "generated_tasks_that_text_to_lora_saw": sum(d.task.name in taught for d in unseen),
        "generated, held-out tasks": new.figures(limits.threshold),
    }
    o.out.write_text(json.dumps(_rounded(report), indent=1) + "\n", encoding="utf-8")
    print(json.dumps(_rounded(report), indent=1))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
