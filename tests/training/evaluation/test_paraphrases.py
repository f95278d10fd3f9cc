"""Evaluation under several wordings of every description, and how far the scores move."""

import json
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.main import main
from library.errors import TaskFileError
from library.tasks.files import Example, Task
from training.evaluation.comparison import spread
from training.evaluation.page import page
from training.evaluation.paraphrases import paraphrased
from training.evaluation.report import table

SCORES = st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=6)


def rows(scores: list[list[float]], method: str = "a") -> list[dict[str, Any]]:
    return [
        {"task": f"t{i}", "method": method, "mode": "bare", "split": "held-out",
         "rouge_l": sum(own) / len(own), "strict_exact": 0.5,
         "paraphrases": [{"rouge_l": score, "strict_exact": 0.5} for score in own]}
        for i, own in enumerate(scores)
    ]  # fmt: skip


@given(SCORES, st.permutations(range(3)))
def test_spread_is_best_less_worst_whatever_the_order(
    scores: list[list[float]], order: list[int]
) -> None:
    found, exact = spread(rows(scores))
    ranges = [max(own) - min(own) for own in scores]
    assert found["spread"] == pytest.approx(sum(ranges) / len(ranges))
    assert found["deviation"] == pytest.approx(sum(map(stdev, scores)) / len(scores))
    assert found["ci95"][0] - 1e-9 <= found["spread"] <= found["ci95"][1] + 1e-9
    assert found["by_paraphrase"] == pytest.approx(
        [sum(own[k] for own in scores) / len(scores) for k in range(3)]
    )
    assert (exact["spread"], exact["deviation"], exact["mean"]) == (0, 0, 0.5)
    (again, _) = spread(rows([[own[k] for k in order] for own in scores]))
    for name in ("spread", "ci95", "mean", "deviation"):
        assert again[name] == pytest.approx(found[name], abs=1e-9)
    others = [*rows([[0.0, 1.0, 0.0]], "b"), {**rows(scores, "c")[0], "paraphrases": None}]
    together = spread(rows(scores) + others)
    assert together[:2] == [found, exact] and [e["method"] for e in together[2:]] == ["b", "b"]


def test_tasks_take_their_paraphrases_in_turn() -> None:
    row = (Example("i", "x", ("y",)),)
    tasks = [Task(name, "Do it.", row, paraphrases=(f"{name}1", f"{name}2")) for name in "ab"]
    found = paraphrased(tasks, 2)
    assert [[t.definition for t in one] for one in found] == [["a1", "b1"], ["a2", "b2"]]
    assert all([t.name for t in one] == ["a", "b"] for one in found)
    with pytest.raises(TaskFileError, match="a has 2 paraphrases, of which 3"):
        paraphrased(tasks, 3)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Two short tasks in three wordings."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in ("one", "two"):
        lines = [json.dumps({"input": f"{name} {i}", "output": "yes"}) for i in range(4)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
        (folder / f"{name}.txt").write_text(f"Do {name}.")
        wordings = [f"please do {name}", f"# {name}\n\n- do it", f"{name}?"]
        (folder / f"{name}.paraphrases.txt").write_text("\n---\n".join(wordings))
    return folder


def test_each_wording_scores_as_it_would_alone(
    tasks: Path,
    tmp_path: Path,
    small_checkpoint: Path,
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))
    lines, out = tmp_path / "lines.jsonl", tmp_path / "report.json"
    command = ["evaluate", "--tasks", str(tasks), "--base", str(tiny_base), "--checkpoint"]
    command += [str(small_checkpoint), "--methods", "base,text-to-lora", "--mode", "prompted,bare"]
    command += ["--predictions", str(lines), "--overwrite", "--out", str(out)]
    assert main([*command, "--paraphrases", "3"]) == 0
    report = json.loads(out.read_text())
    printed = capsys.readouterr().out
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(report["rows"]) == 2 * 2 * 2 and len(found) == 3 * len(report["rows"]) * 4
    for number in range(3):
        for file in tasks.glob("*.jsonl"):
            texts = file.with_suffix(".paraphrases.txt").read_text().split("\n---\n")
            file.with_suffix(".txt").write_text(texts[number])
        assert main(command) == 0
        alone = json.loads(out.read_text())
        for row, other in zip(report["rows"], alone["rows"], strict=True):
            assert [row[k] for k in ("task", "method")] == [other[k] for k in ("task", "method")]
            part = row["paraphrases"][number]
            assert part == {key: other[key] for key in part}
        answers = [json.loads(line) for line in lines.read_text().splitlines()]
        assert [p for p in found if p["paraphrase"] == number + 1] == [
            {**answer, "paraphrase": number + 1} for answer in answers
        ]
    for row in report["rows"]:
        mean = sum(part["rouge_l"] for part in row["paraphrases"]) / 3
        assert row["rouge_l"] == pytest.approx(mean)
    read = [p for p in found if (p["task"], p["method"], p["mode"]) == ("one", "base", "prompted")]
    assert len({p["prediction"] for p in read}) > 1  # it does see them
    moved = {(e["method"], e["mode"]): e for e in report["spread"] if e["metric"] == "rouge_l"}
    assert moved["base", "bare"]["spread"] == 0  # it sees no description
    assert (
        table(report) in printed and "| base | bare | held-out | 2 | strict_exact | 3 |" in printed
    )
    assert "Spread between wordings" in page(report)
    assert alone["spread"] == [] and "Spread" not in page(alone)


def test_too_few_wordings_are_refused(
    tasks: Path, tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--tasks", str(tasks), "--base", str(tiny_base), "--methods", "base"]
    command += ["--out", str(tmp_path / "report.json"), "--paraphrases"]
    assert main([*command, "1"]) == 2
    assert main([*command, "4"]) == 1
    assert "one has 3 paraphrases" in capsys.readouterr().err
