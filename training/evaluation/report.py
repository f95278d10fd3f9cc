"""Reports of an evaluation: JSON as others rely on it, and a table to read."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation.cells import Cell
from training.evaluation.comparison import (
    Row,
    by_kind,
    calibration_curve,
    means,
    pairs,
    recovery,
    spread,
)
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
    """A report's summaries of its rows: means, kinds, recovery, spread, pairs, calibration."""
    return {
        "means": means(rows, "method", "mode", "split"),
        "kinds": by_kind(rows),
        "recovery": recovery(rows),
        "spread": spread(rows),
        "pairs": pairs(rows),
        "calibration": calibration_curve(rows, similarity),
    }


def predictions_lines(cells: Sequence[Cell], seed: int, paraphrase: int | None = None) -> bytes:
    """JSONL of every answer, with the number of the paraphrase if the description is one."""
    numbered = {} if paraphrase is None else {"paraphrase": paraphrase}
    lines = [
        json.dumps(
            {
                "task": cell.task.name,
                "id": row.id,
                "method": cell.method.name,
                "mode": cell.mode,
                "seed": seed,
                **numbered,
                "prediction": answer,
            },
            ensure_ascii=False,
        )
        for cell in cells
        for row, answer in zip(cell.task.test, cell.predictions or [], strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()


def table(report: dict[str, Any]) -> str:
    """The means as a Markdown table, ROUGE-L x 100 with its interval; a dash for what it lacks.

    Below it the spread between paraphrases, if it was measured.
    """
    keys = ("method", "mode", "split", "tasks")
    titles = [*keys, "ROUGE-L", "95 % interval", *METRIC_TITLES.values()]
    lines = [
        [*(str(mean[key]) for key in keys), percent(mean["rouge_l"]), interval(mean["ci95"])]
        + [percent(mean.get(name)) for name in METRIC_TITLES]
        for mean in report["means"]
    ]
    spreads = report.get("spread", [])
    return "\n\n".join([markdown(titles, lines), *([_spread_table(spreads)] if spreads else [])])


def _spread_table(spreads: Sequence[Row]) -> str:
    """The best less the worst score, and the standard deviation, x 100."""
    keys = ("method", "mode", "split", "tasks", "metric")
    titles = [*keys, "paraphrases", "mean", "spread", "95 % interval", "deviation"]
    lines = []
    for entry in spreads:
        mean, gap, deviation = (percent(entry[key]) for key in ("mean", "spread", "deviation"))
        counted = [*(str(entry[key]) for key in keys), str(len(entry["by_paraphrase"]))]
        lines.append([*counted, mean, gap, interval(entry["ci95"]), deviation])
    return markdown(titles, lines)


def markdown(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    every = [titles, ["---"] * len(titles), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in every)


def percent(share: float | None) -> str:
    """A score x 100; a dash for none."""
    return "–" if share is None else f"{100 * share:.1f}"


def interval(ci95: Sequence[float]) -> str:
    """Both ends x 100."""
    return f"{percent(ci95[0])} to {percent(ci95[1])}"


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
