"""A weighted sum of adapters against PEFT's, on one 4096 x 4096 module, K = 4, r = 16, two threads.

    python benchmarks/speed/composition.py --out docs/results/composition.json

Both get the same adapters. PEFT's `svd` forms the dense sum and its full SVD; ours goes through the
QR of the stacked factors. `cat` is the exact sum for both, at the sum of the ranks. PEFT's times
contain what its call does besides: a new adapter in the model. Ours come first and last, and the
slower counts. Errors are relative Frobenius norms against the dense sum, in float64.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "2"
sys.path.insert(0, str(Path(__file__).parents[2]))

import peft
import torch
from torch import nn

from index.merge.methods import Mix, merge
from index.merge.weighted_sum import weighted_sum
from library.adapter import Adapter, from_sites
from library.layout import Layout, Site

THREADS = 2
WEIGHTS = [0.4, 0.3, 0.2, 0.1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--size", type=int, default=4096, help="side of the module")
    parser.add_argument("--rank", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    report = measured(options.size, options.rank)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def measured(size: int, rank: int) -> dict[str, Any]:
    adapters, names = random_adapters(size, rank), [f"a{i}" for i in range(len(WEIGHTS))]
    model = peft_model(adapters, names)
    load = os.getloadavg()[0]
    exact = dense(adapters)

    def our_sum(rank: int | None) -> Callable[[], Adapter]:
        return lambda: weighted_sum(adapters, WEIGHTS, rank)

    def peft_sum(kind: str) -> Callable[[], None]:
        def run() -> None:
            if "merged" in model.peft_config:
                model.delete_adapter("merged")
            model.add_weighted_adapter(names, WEIGHTS, "merged", kind, svd_rank=rank)

        return run

    first = {"svd": seconds(our_sum(rank), 5), "cat": seconds(our_sum(None), 30)}
    peft_cat = seconds(peft_sum("cat"), 30)
    cat_error = relative(model_delta(model), exact)
    peft_sum("linear")()
    linear_error = relative(model_delta(model), exact)
    model.delete_adapter("merged")
    start = time.perf_counter()
    peft_sum("svd")()
    peft_svd = time.perf_counter() - start
    peft_best = model_delta(model)
    ours_s = {
        "svd": max(first["svd"], seconds(our_sum(rank), 5)),
        "cat": max(first["cat"], seconds(our_sum(None), 30)),
    }
    entries = {
        method: once(lambda method=method: merge(method, Mix(adapters, WEIGHTS)))
        for method in ("ties", "dare")
    }
    return {
        "module": [size, size],
        "adapters": len(WEIGHTS),
        "rank": rank,
        "threads": THREADS,
        "cpu": cpu(),
        "load_before": round(load, 2),
        "torch": torch.__version__,
        "peft": peft.__version__,
        "seconds": {
            "ours": ours_s,
            "peft": {"svd": peft_svd, "cat": peft_cat},
            "ours_dense": entries,
        },
        "ratio": {
            "svd": peft_svd / ours_s["svd"],
            "cat_ours_over_peft": ours_s["cat"] / peft_cat,
        },
        "error": {
            "ours_cat": relative(delta_of(our_sum(None)()), exact),
            "peft_cat": cat_error,
            "peft_linear": linear_error,
            "ours_beside_peft_svd": relative(delta_of(our_sum(rank)()), peft_best),
            "ours_svd": relative(delta_of(our_sum(rank)()), exact),
            "peft_svd": relative(peft_best, exact),
        },
    }


def random_adapters(size: int, rank: int) -> list[Adapter]:
    """Seeded, with singular values that fall, as those of trained adapters do."""
    layout = Layout("llama", 1, (Site("layer", size, size, rank),))
    fall = torch.logspace(0, -1, rank)
    adapters = []
    for seed in range(len(WEIGHTS)):
        generator = torch.Generator().manual_seed(seed)
        a = torch.randn(rank, size, generator=generator) / size**0.5
        b = torch.randn(size, rank, generator=generator) * fall
        adapters.append(from_sites(layout, {"layer": (a, b)}))
    return adapters


def peft_model(adapters: list[Adapter], names: list[str]) -> Any:
    """A PEFT model of one linear layer with the same adapters."""
    size, rank = adapters[0].layout.sites[0].in_features, adapters[0].layout.rank
    bare: Any = nn.Sequential()
    bare.add_module("layer", nn.Linear(size, size, bias=False))
    settings = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=["layer"])
    model: Any = peft.get_peft_model(bare, settings, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, settings)
    layer = model.base_model.model.layer
    for name, adapter in zip(names, adapters, strict=True):
        a, b = adapter.site(adapter.layout.sites[0])
        layer.lora_A[name].weight.data.copy_(a[0])
        layer.lora_B[name].weight.data.copy_(b[0])
    return model


def dense(adapters: list[Adapter]) -> torch.Tensor:
    parts = zip(adapters, WEIGHTS, strict=True)
    return torch.stack([delta_of(adapter) * weight for adapter, weight in parts]).sum(0)


def delta_of(adapter: Adapter) -> torch.Tensor:
    a, b = adapter.site(adapter.layout.sites[0])
    return b[0].double() @ a[0].double()


def model_delta(model: Any) -> torch.Tensor:
    layer = model.base_model.model.layer
    a, b = layer.lora_A["merged"].weight, layer.lora_B["merged"].weight
    return b.detach().double() @ a.detach().double() * layer.scaling["merged"]


def relative(value: torch.Tensor, expected: torch.Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Median wall time of `run` after one warm-up."""
    run()
    return statistics.median(once(run) for _ in range(repeats))


def once(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def cpu() -> str:
    """The processor's name, where the system says it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


if __name__ == "__main__":
    main()
