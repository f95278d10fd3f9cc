"""Recall at 1, 5 and 10 of adapters by descriptions that the index does not hold.

    python benchmarks/quality/retrieval.py --library LIB --tasks train public_heldout --out \
        retrieval.json

Queries are summaries and paraphrases of a library's tasks. The index holds definitions alone; or
definitions and the mean with every other paraphrase, and the others are queries. Compared, in
the same run, with keeping each of these descriptions as a row of its own. Then the same for tasks
that nothing here was tuned or calibrated on (`heldout_kind`), as if the library had an adapter for
each, with what confidence claimed and what came true; and what it claims where it has none.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.calibrate.confidence import reliability
from benchmarks.quality.described import Described, Rows, described, mean_row
from index.encoders.descriptions import DEFAULT_ENCODER, EncoderIdentity
from index.search.confidence import margins, shipped_confidence
from index.search.searcher import MORE
from index.segments.change_log import Change
from index.segments.index import VectorIndex
from index.segments.metadata import IndexEntry
from library.files import write_file
from library.store.catalogue import records
from library.store.open import open_library

AT = (1, 5, 10)
Queries = Callable[[Described], Rows]
KINDS: dict[str, Queries] = {"summary": lambda d: d.summary, "paraphrase": lambda d: d.queries}


def definition(d: Described) -> Rows:
    return d.definition


def definition_and_mean(d: Described) -> Rows:
    return mean_row(d.definition, d.indexed)


def index_of(tasks: Sequence[Described], rows: Queries) -> VectorIndex:
    """An index in memory, with one adapter a task."""
    vectors = [rows(d) for d in tasks]
    entries = tuple(
        IndexEntry(d.task.name, d.task.name, "", "", "", (), (), tuple(map(str, range(len(v)))))
        for d, v in zip(tasks, vectors, strict=True)
    )
    encoder = EncoderIdentity(DEFAULT_ENCODER, "benchmark", "", vectors[0].shape[1])
    index = VectorIndex(encoder)
    index.apply(Change(entries, np.concatenate(vectors).astype(np.float32)))
    return index


def recall(ranks: Sequence[int]) -> dict[str, Any]:
    """Share of queries whose adapter is among the first 1, 5 and 10."""
    positions = np.array(ranks)
    return {
        "queries": len(ranks),
        **{f"recall@{k}": round(float((positions < k).mean()), 3) for k in AT},
    }


def hits(index: VectorIndex, tasks: Sequence[Described], queries: Queries) -> list[dict[str, Any]]:
    """For each query the place of the right adapter, and the first result with its confidence."""
    results = []
    for d in tasks:
        for query in queries(d):
            hits = index.search(query, max(AT), more=MORE)
            names, scores = [e.task for _, e in hits], [score for score, _ in hits]
            gap = margins(scores, names)[0]
            results.append({
                "rank": names.index(d.task.name) if d.task.name in names else len(hits),
                "claim": shipped_confidence().confidence(scores[0], gap), "right": names[0] ==
                d.task.name,
            })  # fmt: skip
    return results


def every_row(tasks: Sequence[Described], queries: Queries) -> list[int]:
    """Places of the right adapters where each description is a row and the best one counts."""
    groups = [np.concatenate([d.definition, d.indexed]) for d in tasks]
    starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
    rows, ranks = np.concatenate(groups), []
    for index, d in enumerate(tasks):
        for scores in queries(d) @ rows.T:
            best = np.maximum.reduceat(scores, starts)
            ranks.append(int((best > best[index]).sum()))
    return ranks


def claims(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return reliability([{**row, "rank": 0} for row in rows])


def compared(
    library: Sequence[Described], heldout: Sequence[Described], rows: Queries
) -> dict[str, Any]:
    """Results of one way of making the index."""
    plain, wide = index_of(library, rows), index_of([*library, *heldout], rows)
    of_library = {kind: hits(plain, library, of) for kind, of in KINDS.items()}
    heldout_rows = {kind: hits(wide, heldout, of) for kind, of in KINDS.items()}
    lacking = [row for of in KINDS.values() for row in hits(plain, heldout, of)]
    return {
        "library": {kind: recall([r["rank"] for r in a]) for kind, a in of_library.items()},
        "held out": {kind: recall([r["rank"] for r in a]) for kind, a in heldout_rows.items()},
        "confidence, held-out tasks in the library": claims(
            [r for a in heldout_rows.values() for r in a]
        ),
        "confidence, held-out tasks not in the library": claims(lacking),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", required=True)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    stored = {record["task"] for record in records(open_library(options.library))}
    tasks = described(options.tasks)
    library = [d for d in tasks if d.task.name in stored]
    heldout = [d for d in tasks if d.task.heldout_kind and d.task.name not in stored]
    report = {
        "command": "python benchmarks/quality/retrieval.py --library LIB "
        "--tasks train public_heldout",
        "encoder": DEFAULT_ENCODER,
        "adapters": len(library),
        "with paraphrases": sum(len(d.paraphrases) > 0 for d in library),
        "held-out tasks": len(heldout),
        "definition": compared(library, heldout, definition),
        "definition and mean": compared(library, heldout, definition_and_mean),
        "every description a row": {
            "library": {kind: recall(every_row(library, of)) for kind, of in KINDS.items()}
        },
    }
    write_file(options.out, (json.dumps(report, indent=1) + "\n").encode())
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
