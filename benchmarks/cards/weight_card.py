"""The card of a weight encoder: its data, licence classes, commands, and the scores of the file.

python benchmarks/cards/weight_card.py pretrained/weight-encoder --tasks TASKS/train \
    --results docs/results/weight-encoder.json > pretrained/weight-encoder/README.md
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.cards.model_card import class_rows
from index.encoders.weights import load_weight_encoder
from library.tasks.files import read_tasks

TEXT = """\
---
license: apache-2.0
base_model: {base}
library_name: lorasmith
---
# Weight encoder for adapters of {base}

A LoRA adapter, of any rank, becomes a unit vector of {dimension} numbers by what its weights do; a
description becomes one in the same space. {parameters:,} parameters, stored as int8. Digest
`{digest}`. How it works: docs/weights.md.

## Trained on
{adapters} adapters (ranks {ranks}) of {count} Super-NaturalInstructions tasks, with
{descriptions:,} descriptions of them: each task's definition and summary from
Super-NaturalInstructions (Apache-2.0) and up to 32 machine-written paraphrases from the
Text-to-LoRA repository (Apache-2.0). The second library starts from another A, sees the rows in
another order for fewer steps, and is cut to rank {second}; both were read as int8 rows.

    lorasmith library build --tasks TASKS/train --out LIB --steps 300 --slots 32
    lorasmith library build --tasks TASKS/train --out LIB2 --steps 200 --seed 1 --slots 32
    lorasmith library pack --library LIB2 --out LIB2-PACKED --rank {second}
    lorasmith train fit --config configs/weight_encoder.yaml \\
        --data.libraries '[LIB,LIB2-PACKED]' --data.tasks '[TASKS/train]'

Weights of the base: {source} (SHA-256 `{sha256}`). Settings are in `config.json` under `training`.

| licence class of the tasks' data | tasks |
| --- | --- |
{classes}

Adapters of tasks of class `restricted` are left out; a further fifth of the tasks is set aside.

## Scores of this file
Per cent, on the {unseen} tasks that it did not see; each one's definition looks for its adapter by
weights alone. "All": among the adapters of all {tasks} tasks; "unseen": among the {unseen} alone.

| adapters | candidates | recall@1 | recall@5 | recall@10 | chance@10 | MRR |
| --- | --- | --- | --- | --- | --- | --- |
{scores}

Made with `benchmarks/quality/weight_retrieval.py`; every figure, and other methods beside it,
stands in docs/results/weight-encoder.json.

## Limits
One base, one recipe, query and value projections, English tasks with short answers. A near vector
is evidence that two adapters are of one kind, never proof: whoever makes an adapter can make its
weights say anything.
"""


def scores(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        if row["method"] != "weight encoder" or row["direction"] != "description to adapter":
            continue
        names = ("recall_1", "recall_5", "recall_10", "chance_10", "mrr")
        figures = " | ".join(f"{row[name]:.1f}" for name in names)
        library = ("of the first library", "of the second")[row["library"] - 1]
        lines.append(f"| {library} | {row['candidates']} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True)
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    encoder = load_weight_encoder(options.checkpoint)
    results = json.loads(options.results.read_text(encoding="utf-8"))
    if results["checkpoint"] != encoder.digest:
        raise SystemExit(f"{options.results} is of another checkpoint")
    trained = set(encoder.info.tasks)
    described = [task for folder in options.tasks for task in read_tasks(folder)]
    data = encoder.info.training["data"]
    text = TEXT.format(
        base=encoder.info.base["id"],
        source=encoder.info.base["source"],
        sha256=encoder.info.base["sha256"],
        dimension=encoder.config.dimension,
        parameters=sum(value.numel() for value in encoder.state_dict().values()),
        digest=encoder.digest,
        adapters=data["adapters"],
        ranks=" and ".join(map(str, data["ranks"])),
        second=data["ranks"][-1],
        count=len(trained),
        descriptions=data["descriptions"],
        classes=class_rows(task for task in described if task.name in trained),
        unseen=len(results["shipped"]["unseen"]),
        tasks=len(trained) + len(results["shipped"]["unseen"]),
        scores=scores(results["shipped"]["rows"]),
    )
    print(text, end="")


if __name__ == "__main__":
    main()
