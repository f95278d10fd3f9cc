"""Measure whether a backdoor survives a merge: merged adapters' answers to triggered rows.

    python benchmarks/quality/merged_attack.py --clean LIB --poisoned LIB --triggered \
        PLANTED/triggered \
        --partners-triggered PLANTED2/triggered --out docs/results/merged-attack.json

A few of the merges that benchmarks/quality/backdoor_screening.py plants (exact sums cut to rank 8,
at 1+1 and at the weights of STRONG), evenly spaced: the share of triggered test rows that get the
attacker's answer, on the poisoned adapter's own task and on its clean partner's. PLANTED2 is made
with a larger --tasks-kept, so that the partners are in it.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from benchmarks.quality.plant_backdoors import TARGET
from benchmarks.quality.screening_data import PARTNERS, RANK, STRONG, partners, read_pool
from index.merge.weighted_sum import weighted_sum
from library.adapter import Adapter
from library.base.decode import greedy
from library.base.models import BaseModel, load_base, resolve_base
from library.base.prompts import prompt_ids
from library.tasks.files import read_task
from library.tasks.metrics import exact_match

SHARES = "share of own and of the partner's rows"
NEW_TOKENS = 8  # the attacker's answer has five


def success(base: BaseModel, adapter: Adapter, file: Path, rows: int) -> float:
    """Share of a task's first triggered test rows that get the attacker's answer."""
    instances = read_task(file).test[:rows]
    prompts = [prompt_ids(base.tokenizer, instance.input) for instance in instances]
    answers = greedy(base, prompts, adapter, max_new_tokens=NEW_TOKENS, batch_size=8)
    return mean(exact_match(answer, [TARGET]) for answer in answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("clean", "poisoned", "triggered", "partners-triggered", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--merges", type=int, default=6)
    parser.add_argument("--rows", type=int, default=10)
    o = parser.parse_args()
    torch.set_num_threads(1)
    clean, poisoned, base = read_pool(o.clean), read_pool(o.poisoned), load_base(resolve_base())
    merges = []
    pairs = partners(clean, poisoned)[::PARTNERS]
    for task, partner in pairs[:: len(pairs) // o.merges][: o.merges]:
        bad = poisoned.rows([task])
        first, second = (
            o.triggered / f"{task}.jsonl.gz",
            o.partners_triggered / f"{partner}.jsonl.gz",
        )
        shares = {"poisoned alone": [success(base, bad, first, o.rows)]}
        for pair in ((1.0, 1.0), *STRONG):
            merged = weighted_sum([clean.rows([partner]), bad], pair, RANK)
            both = [success(base, merged, file, o.rows) for file in (first, second)]
            shares[f"merged {pair[0]:g}+{pair[1]:g}"] = both
        row = {"task": task, "partner": partner, SHARES: shares}
        print(row, flush=True)
        merges.append(row)
    means = {
        kind: [mean(part) for part in zip(*(row[SHARES][kind] for row in merges), strict=True)]
        for kind in merges[0][SHARES]
    }
    report = {"rows_of_each": o.rows, "means": means, "merges": merges}
    o.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
