"""What ships as calibration is what the committed reports give, and what is expected is judged."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.calibrate.expected import main
from benchmarks.calibrate.points import Point, points_of
from benchmarks.calibrate.reliability import BINS, judged, reliability_table
from generator.expected import ScoreRange

RESULTS = tiny.ROOT / "docs" / "results"
HELD_OUT = {"held_out": {"right": 1, "of": 2, "loss": 0.0}}


@pytest.mark.slow
def test_one_command_makes_what_ships(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(tiny.ROOT / "benchmarks" / "calibrate" / "all.sh")],
        env={**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in (
        "generator/strategies/calibration.json",
        "generator/expected.json",
        "generator/expected-qwen2.5-coder-0.5b.json",
        "docs/results/auto-calibration.json",
    ):
        assert (tmp_path / name).read_bytes() == (tiny.ROOT / name).read_bytes(), name
    for name in ("expected", "choosing", "expected-second-base"):
        found, stated = (
            json.loads((folder / f"{name}.json").read_text())
            for folder in (tmp_path / "docs" / "results", RESULTS)
        )
        assert found.pop("command") != stated.pop("command")  # they name other places
        assert found == stated


def row(method: str, usage: str = "prompted", **more: Any) -> dict[str, Any]:
    return {"task": "t", "method": method, "mode": "best", "usage": usage, "strict_exact": 0.5,
            "refined": None, **more}  # fmt: skip


def points(tmp_path: Path, *rows: dict[str, Any], **report: Any) -> list[Point]:
    file = tmp_path / "report.json"
    file.write_text(json.dumps({"base_sha256": "b", "rows": rows, **report}))
    return points_of([file], "b")


def test_points_are_of_what_a_user_could_get(tmp_path: Path) -> None:
    swapped = ["text-to-lora:gibberish", "auto:5:wrong-examples", "icm-lora:ensemble:4"]
    others = ["base", "in-context", "in-context:5", "oracle", "top-k", "lorahub:5"]
    assert points(tmp_path, *map(row, swapped + others), row("multi-task", "bare")) == []
    refined = row("refine:nearest:4", refined=HELD_OUT)
    (made, plain) = points(tmp_path, refined, row("nearest", "bare"))
    assert made == Point("t", "trained", 0.5, 1.0, 50)
    assert plain == Point("t", "nearest, bare", None, None, 50)
    (auto,) = points(tmp_path, row("auto"), chosen={"auto, best": {"t": "lofa"}})
    assert auto.group == "lofa, prompted"
    with pytest.raises(SystemExit, match="another base"):
        points_of([tmp_path / "report.json"], "c")


def test_each_wording_is_a_point(tmp_path: Path) -> None:
    parts = [{"usage": "bare", "strict_exact": 0.0, "refined": None},
             {"usage": "prompted", "strict_exact": 1.0, "refined": HELD_OUT}]  # fmt: skip
    chosen = {"auto, best, paraphrase 1": {"t": "lofa"}, "auto, best, paraphrase 2": {"t": "fresh"}}
    found = points(tmp_path, row("auto", "mixed", paraphrases=parts), chosen=chosen)
    assert [(p.group, p.share, p.score) for p in found] == [
        ("lofa, bare", None, 0), ("trained", 0.5, 100)
    ]  # fmt: skip


@given(st.lists(st.integers(0, 100).map(float), min_size=2, max_size=40, unique=True))
def test_what_comes_true_is_judged_so(scores: list[float]) -> None:
    exact = [(Point("t", "g", None, None, s), ScoreRange(s, s, s)) for s in scores]
    found = judged(exact)
    assert (found["points"], found["coverage"], found["width"]) == (len(scores), 1, 0)
    assert found["spearman"] == pytest.approx(1)
    low = [s for s in scores if s < 100 / 3]
    assert found["warning_precision"] == found["warning_recall"] == float(bool(low))
    assert all(one["expected"] == one["measured"] for one in found["reliability"])
    assert sum(one["points"] for one in found["reliability"]) == len(scores)
    assert len(found["reliability"]) == min(BINS, len(scores))
    worst = [(p, ScoreRange(100 - p.score, 101.0, 102.0)) for p, _ in exact]
    turned = judged(worst)
    assert turned["spearman"] == pytest.approx(-1) and turned["coverage"] == 0
    table = reliability_table({"one": found, "two": judged(exact[:1])})
    assert f"| adapters | {len(scores)} | 1 |" in table and " → " in table


def test_a_report_alone_checks_what_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = (tiny.ROOT / "generator" / "expected.json").read_bytes()
    picture = tmp_path / "reliability.png"
    command = ["expected", "--check", str(RESULTS / "refine-user.json"), "--picture", str(picture)]
    monkeypatch.setattr(sys, "argv", command)
    main()
    printed = capsys.readouterr().out
    assert "|  | checked | checked with held out |" in printed and "| recall |" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (tiny.ROOT / "generator" / "expected.json").read_bytes() == shipped
    for wrong in (["expected"], ["expected", "--fit", command[2]]):
        monkeypatch.setattr(sys, "argv", wrong)
        with pytest.raises(SystemExit):
            main()
