"""Placements on the same tasks, out of one budget of trained numbers: JSON.

    python -m benchmarks.quality.placement --tasks tasks/train --device cuda --compile \\
        --targets q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj \\
        --out docs/results/placement.json

Every placement looks at the tasks, plain LoRA trains an adapter for each of them at the ranks that
it gives, and the tune rows are scored; `rouge_l_less_first` is the paired difference to the first,
uniform. `probe_s` is what the choice took, on a base that is loaded. `agreement` is the share of
the budget that another seed's choice (other rows, other start) spends on the same modules, `chance`
what two choices would share that spend the same sums on modules drawn at random.
"""

import argparse
import random
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.quality.trained_tasks import TrainedTasks, add_options
from library.layout import Layout
from library.placement.probe import Probe
from library.placement.registry import PLACEMENTS, placed, placement_named
from library.trainer.recipes.registry import RECIPES

DRAWS = 200  # of modules at random


def shares(layout: Layout) -> dict[str, float]:
    """What each module gets of the trained numbers."""
    spent = {site.name: site.numbers for site in layout.sites}
    return {name: numbers / sum(spent.values()) for name, numbers in spent.items()}


def overlap(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Σ min: 1 for equal shares, 0 where no module is in both."""
    return sum(min(share, other.get(name, 0.0)) for name, share in one.items())


def chance(whole: Layout, one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The mean overlap after the modules of `other` changed places within their type."""
    drawn, total = random.Random(0), 0.0
    for _ in range(DRAWS):
        moved: dict[str, float] = {}
        for kind in whole.module_types:
            names = [site.name for site in whole.sites if site.module_type == kind]
            places = drawn.sample(names, len(names))
            moved |= {
                there: other.get(name, 0.0) for name, there in zip(names, places, strict=True)
            }
        total += overlap(one, moved)
    return total / DRAWS


def summed(layout: Layout, key: str) -> dict[str, int]:
    """The ranks of a layout, summed by depth or by module type."""
    sums: dict[str, int] = {}
    for site in layout.sites:
        of = str(getattr(site, key))
        sums[of] = sums.get(of, 0) + site.rank
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, rank=4)
    parser.add_argument("--placements", nargs="+", default=[*PLACEMENTS])
    parser.add_argument("--seeds", type=int, nargs=2, default=[0, 1])
    o = parser.parse_args()
    run = TrainedTasks("placement", o)
    probes = [Probe(run.reference, run.tasks, seed, o.device) for seed in o.seeds]
    for text in o.placements:
        placement, chosen, seconds = placement_named(text), list[Layout](), list[float]()
        for probe in probes:
            _ = probe.base  # loaded before the time is taken
            begin = time.perf_counter()
            chosen.append(placed(run.layout, placement, probe))
            seconds.append(round(time.perf_counter() - begin, 2))
        one, other = map(shares, chosen)
        about: dict[str, Any] = {
            "placement": text, "probe_s": seconds,
            "agreement": round(overlap(one, other), 3),
            "chance": round(chance(run.layout, one, other), 3),
            "modules": len(one), "by_layer": summed(chosen[0], "depth"),
            "by_type": summed(chosen[0], "module_type"),
        }  # fmt: skip
        run.add(about, RECIPES["lora"], chosen[0])


if __name__ == "__main__":
    main()
