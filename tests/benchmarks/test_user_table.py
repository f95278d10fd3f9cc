"""The table over draws says what averages over draws and paired evaluations say."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.user_table import differences, drawn, main, summary, table
from library.tasks.metrics import bootstrap_ci95
from training.evaluation.comparison import pairs

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def report(bench: str, seed: int) -> dict[str, Any]:
    name = f"refine-{bench}-seed{seed}" if seed else f"refine-{bench}"
    return json.loads((RESULTS / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def user() -> list[dict[str, Any]]:
    return drawn([report("user", seed) for seed in range(3)])


def test_means_and_pairs_are_those_over_seeds(user: list[dict[str, Any]]) -> None:
    seeds = json.loads((RESULTS / "refine-user-seeds.json").read_text())
    found = {(line["method"], line["mode"]): line for line in summary(user)}
    assert {line["draws"] for line in found.values()} == {1, 3}
    for mean in seeds["means"]:
        line = found[mean["method"], mean["mode"]]
        assert line["draws"] == 3
        assert {key: line[key] for key in mean if key != "split"} == {
            key: value for key, value in mean.items() if key != "split"
        }
    for pair in seeds["pairs"]:
        names = [f"{pair[side]}/{pair['mode']}" for side in "ab"]
        rouge, _ = differences("user", user, *names)
        assert (rouge["difference"], rouge["ci95"]) == (pair["difference"], pair["ci95"])


def test_a_pair_is_of_two_modes_and_all_tasks_together(user: list[dict[str, Any]]) -> None:
    held_out = drawn([report("heldout", seed) for seed in range(3)])
    rows = [*user, *held_out]
    rouge, exact = differences("both", rows, "multi-task/prompted", "text-to-lora/bare")
    for pair, metric in ((rouge, "rouge_l"), (exact, "strict_exact")):
        by_task: dict[str, list[float]] = {}
        for name, mode in (("multi-task", "prompted"), ("text-to-lora", "bare")):
            for row in (r for r in rows if (r["method"], r["mode"]) == (name, mode)):
                by_task.setdefault(row["task"], []).append(row[metric])
        gaps = [a - b for _, (a, b) in sorted(by_task.items())]
        assert pair["tasks"] == len(gaps) == 64
        assert pair["difference"] == pytest.approx(sum(gaps) / 64)
        assert pair["ci95"] == pytest.approx(bootstrap_ci95(gaps))
    mirrored, _ = differences("both", rows, "text-to-lora/bare", "multi-task/prompted")
    assert mirrored["difference"] == pytest.approx(-rouge["difference"])
    with pytest.raises(SystemExit, match="no report has nearest/bare; there are base/bare"):
        differences("both", rows, "base/bare", "nearest/bare")


def test_exact_answers_on_tasks_with_labels(user: list[dict[str, Any]]) -> None:
    (base,) = [
        line
        for line in summary(user)
        if (line["method"], line["mode"]) == ("multi-task", "prompted")
    ]
    own = [r for r in user if (r["method"], r["mode"]) == ("multi-task", "prompted")]
    labelled = [r["strict_exact"] for r in own if r["in_labels"] is not None]
    assert 0 < base["classification_tasks"] == len(labelled) < len(own) == base["tasks"]
    assert base["classification"] == pytest.approx(sum(labelled) / len(labelled))
    without = summary([{**row, "in_labels": None} for row in own])
    assert without[0]["classification"] is None and "| – | – |" in table(without)


def test_draws_are_whole_and_of_one_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = report("user", 1), report("user", 2)
    with pytest.raises(SystemExit, match="in-context:5, prompted was not drawn equally often"):
        drawn([first, {**other, "rows": other["rows"][1:]}])
    pairs_of = pairs(first["rows"], "strict_exact")
    assert pairs_of and pairs_of != pairs(first["rows"])
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, content in zip(files, (first, {**other, "base_sha256": "0"}), strict=True):
        file.write_text(json.dumps(content))
    for arguments, words in (
        ([str(files[0])] * 2, "named twice"),
        ([str(file) for file in files], "different bases"),
    ):
        command = ["user_table", "--user", *arguments, "--out", str(tmp_path / "out.json")]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit, match=words):
            main()
    labelled = ["user_table", "--user", str(files[0]), f"new={RESULTS / 'refine-user-seed2.json'}"]
    labelled += ["--pair", "in-context:5/bare", "in-context:5 (new)/bare"]
    monkeypatch.setattr(sys, "argv", [*labelled, "--out", str(tmp_path / "out.json")])
    main()
    made = json.loads((tmp_path / "out.json").read_text())
    assert {line["draws"] for line in made["means"]} == {1}
    assert [p["bench"] for p in made["pairs"]] == ["user", "user"]
    assert (
        "| in-context:5/bare - in-context:5 (new)/bare | user | exact | 30 |"
        in capsys.readouterr().out
    )
