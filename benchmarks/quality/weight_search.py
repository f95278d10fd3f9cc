"""Search by weights as users call it: how often it finds the right adapter of all in a library.

    python benchmarks/quality/weight_search.py --libraries LIB LIB2 --tasks TRAIN --frozen LIB3 \
        --out docs/results/weight-search.json

The first library is searched in a copy whose records describe nothing; adapters that are asked by
are of the second one, another training of the same tasks, as config and weights alone. Queries are
of the tasks that the weight encoder has not seen:

    description to adapter   definitions, and paraphrases, `--by weights`
    adapter to its twin      the adapter of the same task; also by definition and adapter together
    adapter to its task      by kin: with the twin away, the first adapter of the same category
    other recipe to twin     an adapter that was trained with its A frozen (LoRA-FA), of the third
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.quality.retrieval_scores import ANSWERS, percent, summary
from index.encoders.descriptions import DescriptionEncoder
from index.encoders.weights import load_weight_encoder
from index.search.searcher import Result, Searcher
from index.search.sources import WeightSource
from index.search.sync import build_index
from library.files import write_file
from library.peft.folder import read_adapter_folder
from library.peft.provenance import PROVENANCE_FILE
from library.store.catalogue import FILES, records
from library.store.folder import ADAPTERS, MANIFEST
from library.store.open import open_library
from library.tasks.files import Task, read_tasks


def undescribed(url: str, out: Path) -> Path:
    """A copy of a library in which nothing says what an adapter is for but the name of its task."""
    folder = open_library(url)
    for record in records(folder):
        silent = {**record, "description": "", "descriptions": []}
        write_file(out / f"records/0000/{record['id']}.json", json.dumps(silent).encode())
        for name in FILES:
            content = folder.read(f"{ADAPTERS}/{record['id']}/{name}")
            if name == PROVENANCE_FILE:
                content = json.dumps({**json.loads(content), "description": None}).encode()
            write_file(out / ADAPTERS / record["id"] / name, content)
    write_file(out / MANIFEST, folder.read(MANIFEST))
    return out


class Bench:
    """The copy behind a Searcher, the tasks, and the adapters that are asked by."""

    def __init__(self, copy: Path, places: tuple[str, str], tasks: Sequence[Path]) -> None:
        self.encoder, weights = DescriptionEncoder(), load_weight_encoder()
        build_index(str(copy), WeightSource(weights))
        self.searcher = Searcher(str(copy), lambda: self.encoder, lambda: weights)
        self.tasks = {task.name: task for folder in tasks for task in read_tasks(folder)}
        self.names = [record["task"] for record in records(open_library(str(copy)))]
        self.other, self.frozen = (adapters_of(url) for url in places)
        self.unseen = sorted(set(self.names) - set(weights.info.tasks))
        self.digest = weights.digest

    def kind(self, name: str) -> str:
        return (self.tasks[name].categories or ("",))[0]

    def search(self, text: str | None = None, adapter: Path | None = None) -> list[Result]:
        """Every adapter, best first, asked by a text, an adapter's config and weights, or both."""
        files = None
        if adapter is not None:
            read = read_adapter_folder(adapter)
            files = {part: read[part] for part in read if part != PROVENANCE_FILE}
        return self.searcher.search(text, files, by="weights", k=len(self.names))

    def by_text(self, task: Task, texts: Sequence[str]) -> list[int]:
        return [place_of(task.name, self.search(text=text)) for text in texts]

    def kin(self) -> dict[str, Any]:
        """Places of the first adapter of the same category, the twin left out, beside chance."""
        ranks, kin = [], []
        for name in self.unseen:
            others = [r.task for r in self.search(adapter=self.other[name]) if r.task != name]
            same = [self.kind(other) == self.kind(name) for other in others]
            if any(same):
                ranks.append(1 + same.index(True))
                kin.append(sum(same))
        return among(ranks, kin, len(self.names) - 1)


def adapters_of(url: str) -> dict[str, Path]:
    """The folder of each task's adapter."""
    folder = open_library(url)
    assert folder.local is not None
    return {r["task"]: folder.local / ADAPTERS / r["id"] for r in records(folder)}


def place_of(task: str, results: Sequence[Result]) -> int:
    return 1 + [result.task for result in results].index(task)


def among(ranks: Sequence[int], right: Sequence[int], candidates: int) -> dict[str, Any]:
    """As `summary`, where several candidates are right; chance is a random order's."""
    figures: dict[str, Any] = {"queries": len(ranks)}
    for k in ANSWERS:
        missed = [math.comb(candidates - m, k) / math.comb(candidates, k) for m in right]
        figures[f"recall_{k}"] = percent([rank <= k for rank in ranks])
        figures[f"chance_{k}"] = percent([1 - share for share in missed])
    first = [
        sum(math.comb(candidates - i, m - 1) / i for i in range(1, candidates - m + 2))
        / math.comb(candidates, m)
        for m in right
    ]
    mrr = percent([1 / rank for rank in ranks])
    return {**figures, "mrr": mrr, "chance_mrr": percent(first)}


def report(bench: Bench) -> dict[str, Any]:
    size, tasks = len(bench.names), [bench.tasks[name] for name in bench.unseen]
    definitions = [rank for task in tasks for rank in bench.by_text(task, task.descriptions[:1])]
    reworded = [rank for task in tasks for rank in bench.by_text(task, task.descriptions[1:])]
    other = bench.other
    twins = [place_of(name, bench.search(adapter=other[name])) for name in bench.unseen]
    both = [place_of(t.name, bench.search(t.descriptions[0], other[t.name])) for t in tasks]
    frozen = [name for name in bench.unseen if name in bench.frozen]
    foreign = [(name, bench.search(adapter=bench.frozen[name])) for name in frozen]
    strange = [place_of(name, results) for name, results in foreign]
    return {
        "schema": 1,
        "command": "python benchmarks/quality/weight_search.py --libraries LIB LIB2 --tasks train "
        "--frozen LIB3",
        "checkpoint": bench.digest,
        "adapters": size,
        "unseen_tasks": len(tasks),
        "definition_to_adapter": summary(definitions, [size] * len(definitions)),
        "paraphrase_to_adapter": summary(reworded, [size] * len(reworded)),
        "adapter_to_twin": summary(twins, [size] * len(twins)),
        "definition_and_adapter_to_twin": summary(both, [size] * len(both)),
        "adapter_to_category_by_kin": bench.kin(),
        "other_recipe_to_twin": {
            **summary(strange, [size] * len(strange)),
            "highest_confidence": round(max(r[0].confidence or 0.0 for _, r in foreign), 3),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libraries", nargs=2, required=True)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True)
    parser.add_argument("--frozen", required=True, help="a library of recipe lora-fa")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="weight-search-"))
    try:
        copy = undescribed(options.libraries[0], folder / "library")
        places = (options.libraries[1], options.frozen)
        result = report(Bench(copy, places, options.tasks))
    finally:
        shutil.rmtree(folder)
    write_file(options.out, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
