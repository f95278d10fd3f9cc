"""Reports side by side say what the table over draws says, and name no folder of a machine."""

import json
from pathlib import Path

import pytest

from benchmarks.quality.side_by_side import FOLDERS, bench_of, kept_rows
from benchmarks.quality.user_table import drawn, summary

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_folders_are_left_out() -> None:
    command = (
        "lorasmith evaluate --tasks /a/b-c/heldout /d/benchmarks/user_tasks/reporting --out /e.json"
    )
    assert FOLDERS.sub("", command) == (
        "lorasmith evaluate --tasks heldout benchmarks/user_tasks/reporting --out e.json"
    )
    relative = "python -m x a/b.json --point LABEL=docs/results/c.json"
    assert FOLDERS.sub("", relative) == relative


def test_methods_are_kept_whatever_their_label() -> None:
    report = json.loads((RESULTS / "refine-user.json").read_text())
    labelled = {**report, "rows": [{**r, "method": f"{r['method']} (x)"} for r in report["rows"]]}
    for rows in (kept_rows(r, ["multi-task"])["rows"] for r in (report, labelled)):
        assert {row["method"].split(" (")[0] for row in rows} == {"multi-task"}
        assert len(rows) == 30
    assert kept_rows(report, []) == report


def test_a_bench_has_its_own_pairs() -> None:
    rows = drawn([json.loads((RESULTS / "refine-user.json").read_text())])
    named = ("multi-task/prompted", "text-to-lora/bare")
    found = bench_of("user", rows, [("user", *named), ("other", *named[::-1])])
    assert found["means"] == summary(rows)
    assert [(p["a"], p["b"], p["metric"]) for p in found["pairs"]] == [
        (*named, "rouge_l"), (*named, "strict_exact")
    ]  # fmt: skip
    score = {f"{m['method']}/{m['mode']}": m["rouge_l"] for m in found["means"]}
    difference = score[named[0]] - score[named[1]]
    assert found["pairs"][0]["difference"] == pytest.approx(difference)
    assert found["spread"] == []
