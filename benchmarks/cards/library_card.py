"""The card of the sample library: what it holds, licences, and its scores beside others'.

python benchmarks/cards/library_card.py pretrained/library --stored docs/results/sample.json \
    --others docs/results/methods-seen.json > pretrained/library/README.md

The first report is of the file: its rows of the method `oracle`. The second has the base's scores,
and those of adapters of rank 8 of a library of its own.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[2]))

from library.canonical import file_digest
from library.store.folder import MANIFEST, PACKED
from library.store.packed import INDEX

TEXT = """\
---
license: apache-2.0
base_model: {base}
library_name: lorasmith
---
# A sample of the adapter library for {base}

{count} LoRA adapters of rank {rank} (q_proj and v_proj), one for each of {categories} categories of
Super-NaturalInstructions, trained at this rank for {steps} steps, all from one A, and stored as
int8 rows; `adapters.safetensors` has SHA-256
`{sha256}`.
The tasks are those whose adapters of rank 8, of another library, had the best score of their
category on tune rows, as far as the task's data is permissively licensed.

`--library` takes this folder by default; opened, it is an ordinary library. `lorasmith library
export TASK --out DIR` writes an adapter as a PEFT folder. As its adapters share their A, it is also
a library for `sg-lora`, which was trained on the one that this is a part of.

## Made with
    lorasmith library build --tasks TASKS/train --out LIB --exclude-license restricted \\
        --rank {rank} --steps {steps} --patience 0 --snapshots {snapshots} --slots 33 \\
        --shard-size 33 --workers 4 --device cuda --compile
    lorasmith library pack --library LIB --out pretrained/library --rank {rank} --task ...

with the tasks below, on two H200 (recipe {recipe}); `parents` in each record names the original.
Snapshots are left out. Base: {source} (SHA-256
`{base_sha256}`).

| licence of the data | tasks |
| --- | --- |
{licences}

"Unknown" are tasks without source data, made by programs; the task index calls them permissive.

## Scores of this file
ROUGE-L F1 x 100 on 40 test rows each, bare prompts, greedy. Mean: {stored:.1f}; adapters of rank 8,
trained for 300 steps in another library and not stored as int8: {others:.1f}; the base alone:
{alone:.1f}. These tasks were chosen for their score on other rows and are easier than most: over
all {every} tasks the adapters of rank 8 have {all:.1f}.

| task | category | base | rank 8 | this file |
| --- | --- | --- | --- | --- |
{rows}
"""


def scores_of(report: Path, method: str) -> dict[str, float]:
    """ROUGE-L of a method with bare prompts, by task."""
    return {
        row["task"]: row["rouge_l"]
        for row in json.loads(report.read_text(encoding="utf-8"))["rows"]
        if row["method"] == method and row["mode"] == "bare"
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stored", type=Path, required=True)
    parser.add_argument("--others", type=Path, required=True)
    o = parser.parse_args()
    manifest = json.loads((o.folder / MANIFEST).read_text())
    lines = (o.folder / INDEX).read_text().splitlines()
    records = [json.loads(line)["record"] for line in lines]
    scores = {
        "alone": scores_of(o.others, "base"),
        "others": scores_of(o.others, "oracle"),
        "stored": scores_of(o.stored, "oracle"),
    }
    rows, licences = [], Counter()
    for record in records:
        task, kinds = record["task"], ", ".join(record["categories"])
        row_scores = [100 * values[task] for values in scores.values()]
        rows.append(f"| {task} | {kinds} | " + " | ".join(f"{x:.1f}" for x in row_scores) + " |")
        licences[", ".join(record["licenses"]) or "Unknown"] += 1
    tasks = [record["task"] for record in records]
    print(
        TEXT.format(
            base=manifest["base"]["id"],
            source=manifest["base"]["source"],
            base_sha256=manifest["base"]["sha256"],
            count=len(records),
            categories=len({kind for record in records for kind in record["categories"]}),
            rank=records[0]["rank"],
            steps=manifest["config"]["steps"],
            snapshots=manifest["config"]["snapshots"],
            recipe=manifest["recipe"]["name"],
            sha256=file_digest(o.folder / PACKED),
            licences="\n".join(f"| {name} | {n} |" for name, n in sorted(licences.items())),
            rows="\n".join(rows),
            every=len(scores["others"]),
            all=100 * mean(scores["others"].values()),
            **{name: 100 * mean(values[t] for t in tasks) for name, values in scores.items()},
        ),
        end="",
    )


if __name__ == "__main__":
    main()
