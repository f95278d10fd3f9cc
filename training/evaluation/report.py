"""Reports of an evaluation: JSON as others rely on it, and a table to read."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation.cells import Cell
from training.evaluation.comparison import Row, by_kind, calibration_curve, means, pairs, recovery
from training.evaluation.evaluate import EvaluationOutcome, EvaluationPlan
from training.evaluation.scores import METRIC_TITLES

REPORT_SCHEMA = 1


def build_report(
    plan: EvaluationPlan,
    outcome: EvaluationOutcome,
    *,
    command: str,
    commit: str | None,
    device: str,
    base: Any,
) -> dict[str, Any]:
    """The report: one row per task, method and mode; means over tasks with 95 % intervals.

    Scores are in [0, 1]; a mean's interval resamples tasks.
    """
    rows = [_row(cell, plan.seed) for cell in outcome.cells]
    return {
        "schema": REPORT_SCHEMA,
        "command": command,
        "commit": commit,
        "device": device,
        "base": base.reference.name,
        "base_sha256": base.sha256,
        "seed": plan.seed,
        "rows": rows,
        "similarity": outcome.similarity,
        **summaries(rows, outcome.similarity),
        "wrong_description_pairs": outcome.pairs,
        "abstentions": outcome.abstentions,
        "chosen": outcome.chosen,
    }


def summaries(rows: Sequence[Row], similarity: Mapping[str, float]) -> dict[str, Any]:
    """A report's summaries of its rows: means, kinds, recovery, pairs, calibration."""
    return {
        "means": means(rows, "method", "mode", "split"),
        "kinds": by_kind(rows),
        "recovery": recovery(rows),
        "pairs": pairs(rows),
        "calibration": calibration_curve(rows, similarity),
    }


def predictions_lines(cells: Sequence[Cell], seed: int) -> bytes:
    """JSONL of every answer."""
    lines = [
        json.dumps(
            {
                "task": cell.task.name,
                "id": row.id,
                "method": cell.method.name,
                "mode": cell.mode,
                "seed": seed,
                "prediction": answer,
            },
            ensure_ascii=False,
        )
        for cell in cells
        for row, answer in zip(cell.task.test, cell.predictions or [], strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()


def table(report: dict[str, Any]) -> str:
    """The means as a Markdown table, ROUGE-L x 100 with its interval; a dash for what it lacks."""
    head = ["method", "mode", "split", "tasks", "ROUGE-L", "95 % interval", *METRIC_TITLES.values()]
    lines = [head, ["---"] * len(head)]
    for mean in report["means"]:
        low, high = (f"{100 * end:.1f}" for end in mean["ci95"])
        labels = [str(mean[key]) for key in ("method", "mode", "split", "tasks")]
        others = [percent(mean.get(name)) for name in METRIC_TITLES]
        lines.append([*labels, percent(mean["rouge_l"]), f"{low} to {high}", *others])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float | None) -> str:
    """A score x 100; a dash for none."""
    return "–" if share is None else f"{100 * share:.1f}"


def _row(cell: Cell, seed: int) -> dict[str, Any]:
    return {
        "task": cell.task.name,
        "split": cell.split,
        "kind": cell.task.heldout_kind,
        "method": cell.method.name,
        "mode": cell.mode,
        "usage": cell.usage,
        "seed": seed,
        "n": len(cell.task.test),
        **cell.scores(),
        "refined": cell.refined,
    }
