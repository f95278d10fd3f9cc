"""The card of a packed library: what it holds, licences, and its scores beside the whole adapters'.

python benchmarks/cards/library_card.py pretrained/library --packed docs/results/sample.json \
    --whole docs/results/methods-seen.json > pretrained/library/README.md
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
Super-NaturalInstructions: of each category the adapter with the best score on its tune rows, as
far as the task's data is permissively licensed. They are the best approximations at rank {rank} of
adapters trained at rank {whole_rank}, stored as int8 rows; `adapters.safetensors` has SHA-256
`{sha256}`.

`--library` takes this folder by default; opened, it is an ordinary library. `lorasmith library
export TASK --out DIR` writes an adapter as a PEFT folder.

## Made with
`benchmarks/quality/build_library.sh TASKS OUT` on an H200 (recipe {recipe}), then `lorasmith
library pack --library OUT/library --out pretrained/library --rank {rank} --task ...` for the tasks
below. The adapters were brought from there as int8 rows of rank {whole_rank}; `parents` in each
record names the original. Base: {source} (SHA-256 `{base_sha256}`).

| licence of the data | tasks |
| --- | --- |
{licences}

"Unknown" are tasks without source data, made by programs; the task index calls them permissive.

## Scores of this file
ROUGE-L F1 x 100 on 40 test rows each, bare prompts, greedy. Mean: {packed:.1f}; the whole adapters
of rank {whole_rank}: {whole:.1f}; the base alone: {alone:.1f}. These tasks were chosen for their
score on other rows and are easier than most: over all {every} tasks the whole adapters have
{all:.1f}.

| task | category | base | rank {whole_rank} | this file |
| --- | --- | --- | --- | --- |
{rows}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--packed", type=Path, required=True)
    parser.add_argument("--whole", type=Path, required=True)
    o = parser.parse_args()
    manifest = json.loads((o.folder / MANIFEST).read_text())
    lines = (o.folder / INDEX).read_text().splitlines()
    records = [json.loads(line)["record"] for line in lines]
    whole = json.loads(o.whole.read_text())["rows"]
    scores = {
        "packed": {r["task"]: r["rouge_l"] for r in json.loads(o.packed.read_text())["rows"]},
        "whole": {r["task"]: r["rouge_l"] for r in whole if r["method"] == "oracle"},
        "alone": {r["task"]: r["rouge_l"] for r in whole if r["method"] == "base"},
    }
    rows, licences = [], Counter()
    for record in records:
        task, kinds = record["task"], ", ".join(record["categories"])
        row_scores = [100 * scores[name][task] for name in ("alone", "whole", "packed")]
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
            whole_rank=8,
            recipe=manifest["recipe"]["name"],
            sha256=file_digest(o.folder / PACKED),
            licences="\n".join(f"| {name} | {n} |" for name, n in sorted(licences.items())),
            rows="\n".join(rows),
            every=len(scores["whole"]),
            all=100 * mean(scores["whole"].values()),
            **{name: 100 * mean(values[t] for t in tasks) for name, values in scores.items()},
        ),
        end="",
    )


if __name__ == "__main__":
    main()
