"""The benchmarks of recipes and placements on a tiny base: their rows, and what they compare."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality import join_results, placement, recipes


def run(script: Any, folder: Path, base: Path, out: Path, *options: str) -> dict[str, Any]:
    argv = ["script", "--tasks", str(folder), "--base", str(base), "--out", str(out)]
    argv += ["--every", "1", "--steps", "2", "--device", "cpu", *options]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", argv)
        script.main()
    return json.loads(out.read_text())


@pytest.fixture
def tasks(small_library: Path) -> Path:
    return small_library / "tasks"


def test_recipes_are_compared_with_the_first(tasks: Path, tiny_base: Path, tmp_path: Path) -> None:
    named = ["lora", "lora-fa", "lora+lora-pro"]
    report = run(recipes, tasks, tiny_base, tmp_path / "r.json", "--recipes", *named)
    rows = report["results"]
    assert [(row["recipe"], row["update"]) for row in rows] == [
        ("lora", "adamw"), ("lora-fa", "adamw"), ("lora", "lora-pro"),
    ]  # fmt: skip
    assert rows[1]["numbers"] < rows[0]["numbers"] == rows[2]["numbers"]
    assert "rouge_l_less_first" not in rows[0]
    for row in rows[1:]:
        less = row["rouge_l"] - rows[0]["rouge_l"]
        assert row["rouge_l_less_first"] == pytest.approx(less, abs=2e-3)
    assert all(row["adapters"] == len(report["tasks"]) == 3 for row in rows)


def test_placements_have_one_budget(tasks: Path, tiny_base: Path, tmp_path: Path) -> None:
    named = ["uniform", "ends:first=0.5,last=0.5", "contribution"]
    options = ["--targets", "q_proj,o_proj", "--placements", *named]
    report = run(placement, tasks, tiny_base, tmp_path / "p.json", *options)
    rows = report["results"]
    assert [row["placement"] for row in rows] == named
    assert all(0 < row["numbers"] <= rows[0]["numbers"] for row in rows)
    assert [row["agreement"] for row in rows[:2]] == [1, 1]  # that look at nothing
    assert 0 < rows[2]["agreement"] <= 1
    for row in rows:
        assert row["chance"] <= 1 and sum(row["by_layer"].values()) == sum(row["by_type"].values())
        assert set(row["by_type"]) <= {"q_proj", "o_proj"}


def test_parts_are_joined_and_compared_with_the_first_row() -> None:
    each = {"uniform": [10.0, 20.0], "ends": [11.0, 23.0], "plop": [9.0, 20.0]}
    parts = [
        {"rank": 4, "command": c, "results": [{"placement": p, "rouge_l_each": each[p]} for p in n]}
        for c, n in (("one", ["uniform", "ends"]), ("two", ["plop"]))
    ]
    report = join_results.joined(parts)
    assert report["command"] == "one ; two" and report["rank"] == 4
    means = [row.get("rouge_l_less_first") for row in report["results"]]
    assert means == [None, 2.0, -0.5]
    with pytest.raises(SystemExit, match="differ in rank"):
        join_results.joined([parts[0], {**parts[1], "rank": 8}])


def test_gates_are_compared_task_by_task_in_domain() -> None:
    def row(system: str, in_domain: bool, *by_task: float) -> dict[str, Any]:
        return {
            "system": system,
            "mode": "bare",
            "in_domain": in_domain,
            "by_task": [*map(float, by_task)],
        }

    rows = [row("mole", True, 3, 5), row("mole", False, 1, 1), row("one-lora", True, 1, 2)]
    report = join_results.joined([{"command": "one", "results": rows}], ["one-lora"])
    assert [row.get("less_one-lora") for row in report["results"]] == [2.5, None, None]
