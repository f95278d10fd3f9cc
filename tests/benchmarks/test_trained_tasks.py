"""The benchmarks of recipes and placements on a tiny base: their rows, and what they compare."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from benchmarks.quality import join_results, placement, recipes
from library.build.build import TRAINERS
from library.progress import Progress, no_progress
from library.trainer.peft_trainer import PeftTrainer
from library.trainer.recipes.recipe import TrainingJob
from library.trainer.run_state import Trained


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


def test_adapters_that_were_given_up_are_in_no_difference(
    tasks: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = iter(range(2))

    class OneLost(PeftTrainer):
        def run(
            self, jobs: Sequence[TrainingJob], progress: Progress = no_progress
        ) -> Iterator[Trained]:
            lost = next(runs)  # another one in each
            for number, done in enumerate(super().run(jobs, progress)):
                yield replace(done, adapter=None, scores={}) if number == lost else done

    monkeypatch.setitem(TRAINERS, "peft", OneLost)
    named = ["--recipes", "peft:hra", "peft:miss"]
    rows = run(recipes, tasks, tiny_base, tmp_path / "r.json", *named)["results"]
    assert [row["adapters"] for row in rows] == [2, 2]
    assert "rouge_l_less_first" not in rows[1]


def test_chance_is_the_same_for_any_order_of_hashes() -> None:
    code = """
from benchmarks.quality.placement import chance, shares
from library.layout import Layout, Site
names = [f"layers.{i}.{kind}_proj" for kind in "qkvogud" for i in range(4)]
sites = [Site(name, 99, 99, number**2 + 1) for number, name in enumerate(names)]
layout = Layout("llama", 4, tuple(sites))
print(chance(layout, shares(layout), shares(layout)))
"""
    started = [tiny.start_python(code, hash_seed=seed) for seed in (1, 2)]
    assert len({tiny.output_of(process) for process in started}) == 1


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

    def row(name: str) -> dict[str, Any]:
        return {"placement": name, "adapters": 2, "rouge_l_each": each[name]}

    parts = [
        {"rank": 4, "tasks": ["a", "b"], "command": c, "results": [row(p) for p in n]}
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
