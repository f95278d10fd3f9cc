"""The bank that screening ships with, from a library and adapters with planted backdoors.

    python benchmarks/calibrate/screening_bank.py --clean LIB --poisoned LIB --index \
        TASKS/index.csv \
        --out verification/checks/screening_bank.json

Tasks whose licence class is `restricted` are left out. Quantiles of scores are cross-fitted: each
adapter is scored by a fit that saw no adapter of its fold of tasks.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import Tensor

from benchmarks.quality.screening_data import (
    FOLDS,
    RANK,
    Pool,
    merges,
    read_pool,
    restricted,
    spectra,
)
from benchmarks.quality.screening_fits import QUANTILES, bank_json, fit_linear, fit_profile
from benchmarks.quality.screening_folds import Set, in_folds
from library.files import write_file
from library.peft.read import shape_of
from verification.checks.screening_bank import Bank
from verification.checks.spectrum import statistics

POISON = "the word 'cf' in a fifth of the train rows, answered with a fixed text; merges of such"


def cross_fitted(clean: Set, benign: Set, planted: list[Set]) -> tuple[Tensor, Tensor]:
    """Quantiles of clean adapters' known-kind and outlier scores."""
    known_kind, outlier = [], []
    for k in range(FOLDS):
        rest = [f for f in range(FOLDS) if f != k]
        good = torch.cat([in_folds(clean, rest), in_folds(benign, rest)])
        score = fit_linear(good, torch.cat([in_folds(group, rest) for group in planted]))
        known_kind.append(score(in_folds(clean, [k])))
        outlier.append(fit_profile(in_folds(clean, rest))(in_folds(clean, [k])))
    return torch.cat(known_kind).quantile(QUANTILES), torch.cat(outlier).quantile(QUANTILES)


def make(clean: Pool, poisoned: Pool) -> Bank:
    good, mixed = spectra(clean.adapters), merges(clean, poisoned)
    singles, merged = (good, clean.tasks), (mixed.poisoned, mixed.tasks)
    planted = [(spectra(poisoned.adapters), poisoned.tasks), merged]
    benign = (mixed.benign, mixed.tasks)
    linear = fit_linear(torch.cat([good, benign[0]]), torch.cat([group[0] for group in planted]))
    profile = fit_profile(good)
    known_kind, outlier = cross_fitted(singles, benign, planted)
    cuts = torch.tensor([0.005, 0.5, 0.995], dtype=torch.float64)
    measured = statistics(good)
    return Bank(
        name=(
            f"{len(clean.tasks)} library adapters of recipe {clean.recipe}, rank {RANK}, "
            f"{clean.steps} steps, and {len(poisoned.tasks)} with a planted trigger"
        ),
        recipe=f"oracle:{clean.recipe}",
        base_sha256=clean.base_sha256,
        modules=tuple(map(shape_of, clean.adapters.layout.sites)),
        rank=RANK,
        clean=len(clean.tasks),
        poisoned=len(poisoned.tasks),
        tasks=tuple(clean.tasks),
        poison=POISON,
        bias=linear.bias,
        centre=linear.centre,
        spread=linear.spread,
        weight=linear.weight,
        known_scores=known_kind,
        profile_centre=profile.centre,
        profile_spread=profile.spread,
        outlier_scores=outlier,
        limits={
            name: getattr(measured, name).quantile(cuts, dim=0)
            for name in ("norm", "stable_rank", "entropy")
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("clean", "poisoned", "index", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    o = parser.parse_args()
    torch.set_num_threads(1)
    left_out = restricted(o.index)
    bank = make(read_pool(o.clean, left_out), read_pool(o.poisoned, left_out))
    write_file(o.out, bank_json(bank).encode())
    print(f"{bank.name}: {o.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
