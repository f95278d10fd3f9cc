"""Do descriptions find adapters by their weights alone, on tasks the encoder never saw?

    python benchmarks/quality/weight_retrieval.py --libraries LIB LIB2 --tasks TASKS/train \
        --out docs/results/weight-encoder.json
    python benchmarks/quality/weight_retrieval.py --libraries LIB --device cuda --out speed.json

The first measures the shipped file on tasks it did not see, the recipe in cross-validation (by
single tasks and by whole categories), other views of the same adapters, kin, and the time of an
encoding beside PEFT's forward over the five prompts of Delta Activations. The second only counts
adapters per second on a device. The second library is another training of the same tasks: training
sees both, and adapters of unseen tasks are looked for in each.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import lightning
import peft
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.quality.retrieval_scores import (
    FOLDS,
    best_ridges,
    folds_of,
    percent,
    ranks_of,
    summary,
)
from benchmarks.quality.signatures import PROMPTS, signatures
from benchmarks.quality.weight_baselines import RIDGES, delta_w, flattened, mapped, spectral
from index.encoders.weights import WeightEncoder, load_weight_encoder
from library.base.models import load_base, resolve_base
from library.base.prompts import prompt_ids
from library.peft.write import target_modules
from library.tasks.files import read_tasks
from training.data.libraries import WeightDataModule, read_stock
from training.models.weight_encoder import WeightEncoderModule

Cosines = Float[Tensor, "definitions adapters"]


class Bench:
    """The libraries, the descriptions, and every method's cosines when some tasks are unseen."""

    def __init__(self, libraries: list[str], tasks: list[Path], checkpoint: Path | None) -> None:
        self.data = WeightDataModule(libraries, [str(path) for path in tasks])
        self.data.setup("fit")
        self.shipped = load_weight_encoder(checkpoint)
        self.stocks = [stock.adapters for stock in self.data.stocks]
        self.names = self.data.stocks[0].tasks
        if any(stock.tasks != self.names for stock in self.data.stocks):
            raise SystemExit("the libraries must hold one adapter each of the same tasks")
        described = [task for path in tasks for task in read_tasks(path)]
        self.categories = {task.name: (task.categories or ("",))[0] for task in described}
        signed = signatures(load_base(resolve_base()), self.stocks[0])
        signed = torch.nn.functional.normalize(signed, dim=-1)
        self.views = {
            "ridge on ΔW": delta_w(self.stocks),
            "ridge on flattened factors": flattened(self.stocks),
            "ridge on spectral statistics": spectral(self.stocks),
            "ridge on signatures": signed @ signed.mT,
        }

    def baselines(self, unseen: Sequence[str]) -> dict[str, Cosines]:
        """Baselines by view and ridge, trained on the adapters of all other tasks."""
        seen = [name for name in self.names if name not in set(unseen)]
        centre = self.data.definitions(seen).mean(dim=0)
        texts = torch.nn.functional.normalize(self.data.definitions(self.names) - centre, dim=-1)
        results = {}
        for view, kernel in self.views.items():
            rows = [row for row in self.data.rows_of(seen) if row < len(kernel)]
            targets = self.data.definitions([self.data.owners[row] for row in rows])
            for ridge in RIDGES:
                results[f"{view}, {ridge}"] = texts @ mapped(kernel, rows, targets, ridge).mT
        return results

    def encoded(self, encoder: WeightEncoder) -> Cosines:
        texts = encoder.describe(self.data.definitions(self.names))
        return (texts @ self.vectors(encoder).mT).float()

    def vectors(self, encoder: WeightEncoder) -> Float[Tensor, "adapters d"]:
        return torch.cat([encoder.encode(adapters) for adapters in self.stocks])

    def trained(self, unseen: Sequence[str]) -> WeightEncoder:
        """The shipped file's recipe without these tasks."""
        self.data.task_names = [name for name in self.names if name not in set(unseen)]
        lightning.seed_everything(0, verbose=False)
        module = WeightEncoderModule()
        lightning.Trainer(
            accelerator="cpu", max_steps=self.data.steps, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        ).fit(module, self.data)  # fmt: skip
        assert module.encoder is not None
        return module.encoder.eval()

    def table(
        self, folds: Sequence[list[str]], by_method: Sequence[dict[str, Cosines]]
    ) -> list[dict[str, Any]]:
        """Recall and MRR over the unseen tasks of all folds, by method and set of candidates."""
        n, rows = len(self.names), []
        for method in by_method[0]:
            for library in range(by_method[0][method].shape[1] // n):
                for direction in ("description to adapter", "adapter to description"):
                    for candidates in ("all", "unseen"):
                        ranks: list[int] = []
                        sizes: list[int] = []
                        for unseen, cosines in zip(folds, by_method, strict=True):
                            correct = torch.tensor([self.names.index(name) for name in unseen])
                            block = cosines[method][:, library * n : (library + 1) * n]
                            block = block if direction[0] == "d" else block.mT
                            ranks += ranks_of(block[correct], correct, candidates == "unseen")
                            sizes += [len(correct) if candidates == "unseen" else n] * len(correct)
                        where = {"method": method, "library": library + 1}
                        kind = {"direction": direction, "candidates": candidates}
                        rows.append({**where, **kind, **summary(ranks, sizes)})
        return best_ridges(rows)

    def reworded(self, encoder: WeightEncoder, unseen: Sequence[str]) -> dict[str, Any]:
        """Paraphrases of unseen tasks look for the adapter among all of the first library."""
        n, vectors = len(self.names), encoder.encode(self.stocks[0])
        ranks: list[int] = []
        for name in unseen:
            texts = encoder.describe(self.data.texts[name][1:])
            correct = torch.full((len(texts),), self.names.index(name))
            ranks += ranks_of(texts @ vectors.mT, correct, False)
        return summary(ranks, [n] * len(ranks))

    def kin(self, encoder: WeightEncoder, unseen: Sequence[str]) -> dict[str, Any]:
        """An unseen task's adapter of the second library looks for its twin and for its kin."""
        n = len(self.names)
        vectors = self.vectors(encoder)
        correct = torch.tensor([self.names.index(name) for name in unseen])
        cosines = vectors[n + correct] @ vectors[:n].mT
        ranks = ranks_of(cosines, correct, False)
        cosines[torch.arange(len(correct)), correct] = -2.0
        kinds = [self.categories[name] for name in self.names]
        nearest = cosines.argmax(dim=1).tolist()
        of_task = [kinds[i] for i in correct.tolist()]
        same = [kinds[j] == kind for j, kind in zip(nearest, of_task, strict=True)]
        chance = [(kinds.count(kind) - 1) / (n - 1) for kind in of_task]
        return {
            "twin": summary(ranks, [n] * len(correct)),
            "nearest_other_of_same_category": percent(same),
            "chance": percent(chance),
        }


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Median wall time of `run` after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def cpu_times(bench: Bench) -> dict[str, Any]:
    """One adapter, one thread: our encoding beside PEFT's forward over the same five prompts."""
    one = bench.stocks[0][[0]]
    base = load_base(resolve_base())
    modules, _ = target_modules(one.layout)
    prompts = [torch.tensor([prompt_ids(base.tokenizer, text)]) for text in PROMPTS]
    model = peft.get_peft_model(base.model, peft.LoraConfig(r=8, target_modules=modules)).eval()

    def peer() -> None:
        with torch.inference_mode():
            for ids in prompts:
                model(input_ids=ids, output_hidden_states=True, logits_to_keep=1)

    encoding = seconds(lambda: bench.shipped.encode(one), 20)
    baseline = seconds(peer, 5)
    name = f"PEFT {peft.__version__}: Delta Activations, five prompts"
    return {"seconds": {"weight encoder": encoding, name: baseline}, "ratio": baseline / encoding}


def device_speed(url: str, checkpoint: Path | None, device: str) -> dict[str, Any]:
    """Adapters per second on a device, with a library's factors there already."""
    stock, _ = read_stock(url)
    encoder, adapters = load_weight_encoder(checkpoint).to(device), stock.adapters.to(device)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    report: dict[str, Any] = {"device": name, "dtype": "float64", "rank": adapters.layout.rank}

    def run() -> None:
        encoder.encode(adapters).sum().item()

    return {**report, "adapters_per_second": len(adapters) / seconds(run, 5)}


def report(options: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(options.libraries, options.tasks, options.checkpoint)
    shipped, note = bench.shipped, lambda text: print(text, file=sys.stderr, flush=True)
    unseen = [name for name in bench.names if name not in set(shipped.info.tasks)]
    note(f"the shipped file has not seen {len(unseen)} of {len(bench.names)} tasks")
    cosines = {"weight encoder": bench.encoded(shipped), **bench.baselines(unseen)}
    result: dict[str, Any] = {
        "checkpoint": shipped.digest,
        "cpu": {"threads": 1, **cpu_times(bench)},
        "shipped": {"unseen": unseen, "rows": bench.table([unseen], [cosines])},
        "paraphrases_shipped": bench.reworded(shipped, unseen),
        "kin_shipped": bench.kin(shipped, unseen),
        "cross_validation": {},
    }
    for by in ("task", "category"):
        folds, scores = folds_of(bench.names, bench.categories, by), []
        for number, fold in enumerate(folds, 1):
            note(f"fold {number} of {FOLDS} by {by}: {len(fold)} tasks unseen")
            encoded = {"weight encoder": bench.encoded(bench.trained(fold))}
            scores.append({**encoded, **bench.baselines(fold)})
        sizes = [len(fold) for fold in folds]
        result["cross_validation"][by] = {"folds": sizes, "rows": bench.table(folds, scores)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libraries", nargs="+", required=True)
    parser.add_argument("--tasks", nargs="+", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="the shipped one by default")
    parser.add_argument("--device", help="only count adapters per second there")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if options.device:
        content = device_speed(options.libraries[0], options.checkpoint, options.device)
    elif options.tasks and len(options.libraries) > 1:
        content = report(options)
    else:
        parser.error("retrieval needs --tasks and two --libraries; or count with --device")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema": 1, **content}, indent=1, ensure_ascii=False) + "\n"
    options.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
