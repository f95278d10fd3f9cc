"""auto: what it chooses and why, candidates on trial, and what its calibration rests on."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from api.cli.main import main
from generator.engine import Engine
from generator.request import Query, Request
from generator.resources import Resources
from generator.strategies.auto import MAX_LENGTH
from generator.strategies.calibration import FILE, StrategyCalibration, strategy_calibration
from library.base.decode import greedy
from library.base.example_loss import mean_losses
from library.base.models import BaseReference, load_base, resolve_base
from library.base.prompts import answer_ids, prompt_ids
from library.canonical import file_digest
from library.errors import CheckpointError, LayoutMismatch
from library.store.open import open_library
from library.tasks.files import Example, read_tasks

sys.path.insert(0, str(tiny.ROOT))
from benchmarks.calibrate.auto import NEVER, SAME, best_threshold, left_out, mean_at

ADD, LOVE = tiny.LIBRARY_TASKS["sum"], tiny.LIBRARY_TASKS["poem"]
FAR = "Name the capital of the country."


def test_the_nearest_if_near_else_generated_else_composed(
    engine: Engine, base: BaseReference, small_library: Path, tmp_path: Path
) -> None:
    near = engine.propose("auto", Request(ADD), base).chosen
    assert near.strategy == "nearest" and "sum (similarity 1.00)" in near.reason
    assert near.predicted_recovery == strategy_calibration().predicted("nearest", 1.0)
    far = engine.propose("auto", Request(FAR), base).chosen
    assert far.strategy == "text-to-lora" and "below the calibrated" in far.reason
    without = Engine([], Resources(open_library(str(small_library / "lib"))))
    summed = without.propose("auto", Request(FAR), base).chosen
    assert summed.strategy == "compose" and "no checkpoint" in summed.reason
    assert far.neighbours == summed.neighbours
    with pytest.raises(LayoutMismatch, match=r"no checkpoint.*no library"):
        Engine([]).propose("auto", Request(FAR), base)


def test_the_threshold_itself_is_near_enough(
    engine: Engine, base: BaseReference, monkeypatch: pytest.MonkeyPatch, small_library: Path
) -> None:
    similarity = Query(Request(FAR), base, engine.resources).neighbours[0].similarity
    library = Engine([], Resources(open_library(str(small_library / "lib"))))
    for threshold, strategy, without in (
        (similarity, "nearest", "nearest"),
        (math.nextafter(similarity, 2), "text-to-lora", "compose"),
    ):
        calibration = StrategyCalibration(threshold, {}, "d")
        monkeypatch.setattr(
            "generator.strategies.auto.strategy_calibration", lambda c=calibration: c
        )
        proposal = engine.propose("auto", Request(FAR), base)
        chosen = proposal.chosen
        assert chosen.strategy == proposal.details["strategy"] == strategy
        assert proposal.details["reason"] == chosen.reason
        assert proposal.details["calibration"] == "d"
        assert library.propose("auto", Request(FAR), base).chosen.strategy == without


def test_without_a_library_it_generates_and_says_why(
    alone: Engine, base: BaseReference, small_library: Path, tmp_path: Path
) -> None:
    chosen = alone.propose("auto", Request(FAR), base).chosen
    assert chosen.strategy == "text-to-lora" and "no library" in chosen.reason
    library = Engine([], Resources(open_library(str(small_library / "lib"))))
    for engine in (alone, library, Engine([])):  # the last by training on examples
        assert engine.strategy("auto").unavailable(base) == ""
    for engine, by in ((alone, "text-to-lora"), (Engine([]), "fresh")):
        offer = engine.strategy("auto").offer(base)
        assert offer == engine.strategy(by).offer(base) and offer is not None
    foreign = tmp_path / "config.json"
    foreign.write_text('{"model_type": "bert", "hidden_size": 8}')
    other = Engine([]).strategy("auto")
    assert other.unavailable(resolve_base(str(tmp_path))) != ""
    assert other.offer(resolve_base(str(tmp_path))) is None


@pytest.mark.parametrize(("count", "tried"), [(1, 1), (32, 32), (33, 32)])
def test_no_more_than_32_examples_are_tried(
    count: int, tried: int, engine: Engine, base: BaseReference
) -> None:
    examples = tuple(Example.pair(str(i), "one") for i in range(count))
    proposal = engine.propose("auto", Request(FAR, examples=examples, refine=0), base)
    assert f"on {tried} examples of these" in proposal.chosen.reason
    assert proposal.tried_in == "cpu-f32-torch"
    labels, losses = zip(*proposal.losses, strict=True)
    best = labels[losses.index(min(losses))]
    assert best.split()[0] == proposal.chosen.strategy == proposal.details["strategy"]


def test_provenance_says_what_was_chosen(engine: Engine, base: BaseReference) -> None:
    made = engine.generate("auto", Request(FAR), base)
    said = json.loads(made.files.files["provenance.json"])
    assert said["details"]["strategy"] == made.summary["chosen"]["strategy"] == "text-to-lora"
    assert said["details"]["reason"] == made.summary["chosen"]["reason"]
    assert said["details"]["calibration"] == file_digest(FILE)
    assert said["generator"] == "auto" and said["checkpoint"] and said["parents"] is None
    assert said["neighbours"] == made.summary["chosen"]["neighbours"]


def test_a_trial_is_every_candidate_by_itself(engine: Engine, base: BaseReference) -> None:
    """Losses equal those of a model with ΔW merged into its weights, one example at a time."""
    loaded = load_base(base)
    kinds = ("text-to-lora", "compose", "nearest")
    adapters = [
        engine.propose(kind, Request(FAR), base).adapter.to(dtype=torch.bfloat16) for kind in kinds
    ]
    examples = [
        Example.pair("1 + 2", "3"),
        Example.pair("a longer question, with words", "yes it is"),
    ]
    losses, count = mean_losses(loaded, adapters, examples, MAX_LENGTH)
    assert count == 2
    for adapter, found in zip(adapters, losses, strict=True):
        model = tiny.merged(loaded.model, adapter.to(dtype=torch.float32))
        expected = 0.0
        for example in examples:
            prompt = prompt_ids(loaded.tokenizer, example.input)
            answer = answer_ids(loaded.tokenizer, example.output)
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            expected += float(functional.cross_entropy(logits, torch.tensor(answer))) / 2
        assert found == pytest.approx(expected, rel=1e-4)


def test_examples_decide(
    engine: Engine, base: BaseReference, small_library: Path, tmp_path: Path
) -> None:
    """Whoever wrote the answers has the least loss on them."""
    retriever, loaded = engine.resources.retriever(base), load_base(base)
    texts = [f"question {i}" for i in range(4)]
    prompts = [prompt_ids(loaded.tokenizer, text) for text in texts]
    poet = retriever.nearest(retriever.embed(LOVE), 1)[0]
    strong = retriever.adapter(poet.id)
    answers = greedy(loaded, prompts, strong, [0] * 4, max_new_tokens=8)
    examples = [Example.pair(t, a) for t, a in zip(texts, answers, strict=True)]
    proposal = engine.propose("auto", Request(FAR, examples=tuple(examples), refine=0), base)
    chosen = proposal.chosen
    near = [retriever.adapter(n.id).to(dtype=torch.bfloat16) for n in chosen.neighbours]
    expected, _ = mean_losses(loaded, near, examples, MAX_LENGTH)
    assert "least loss a token on 4 examples" in chosen.reason
    retrieved = [f"nearest {near.task}" for near in chosen.neighbours]
    assert [label for label, _ in proposal.losses] == ["text-to-lora", "compose", *retrieved]
    losses = dict(proposal.losses)
    assert [losses[label] for label in retrieved] == pytest.approx(expected)
    least = min(losses.values())
    assert losses[min(losses, key=losses.__getitem__)] == least
    assert any(k.startswith(chosen.strategy) and v == least for k, v in losses.items())
    same = engine.generate("auto", Request(FAR, examples=tuple(examples), refine=0), base)
    other = engine.generate("auto", Request(FAR, examples=tuple(examples[:3]), refine=0), base)
    assert same.files.id != other.files.id


def test_neighbours_of_one_task_are_all_tried(engine: Engine, base: BaseReference) -> None:
    request = Request(LOVE, examples=(Example.pair("1 2", "3"),), refine=0)
    query = Query(request, base, engine.resources)
    query.neighbours = [replace(near, task="one") for near in query.neighbours]
    losses = engine.strategy("auto").propose(query).losses
    assert [label for label, _ in losses].count("nearest one") == len(query.neighbours) > 1


def test_the_command_with_examples(
    small_library: Path, small_checkpoint: Path, tiny_base: Path, tmp_path: Path, capsys: Any
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "1 2", "output": "3"}\n{"input": "2 2", "output": ["4", "four"]}')
    command = ["generate", FAR, "--base", str(tiny_base), "--checkpoint", str(small_checkpoint)]
    command += ["--library", str(small_library / "lib"), "--examples", str(rows)]
    command += ["--refine", "0"]
    assert main([*command, "--out", str(tmp_path / "a"), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert "on 2 examples" in made["chosen"]["reason"]
    said = json.loads((tmp_path / "a" / "provenance.json").read_text())
    assert said["examples"] and said["numerics"] == "cpu-f64-torch+cpu-f32-torch"
    rows.write_text('{"input": "' + "1 " * 2000 + '", "output": "3"}')
    assert main([*command, "--out", str(tmp_path / "b")]) == 2
    assert "no example has at most 1024 tokens" in capsys.readouterr().err
    rows.write_text("no JSON")
    assert main([*command, "--out", str(tmp_path / "b")]) == 1
    assert "rows.jsonl, line 1: not JSON" in capsys.readouterr().err


def test_it_is_evaluated_without_the_tasks_own_adapter(
    small_library: Path, small_checkpoint: Path, tiny_base: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))
    names = "auto,auto:2,auto:wrong-description,compose,nearest:gibberish"
    command = ["evaluate", "--tasks", str(small_library / "tasks"), "--base", str(tiny_base)]
    command += ["--checkpoint", str(small_checkpoint), "--methods", names]
    command += ["--library", str(small_library / "lib"), "--out", str(tmp_path / "report.json")]
    assert main(command) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["method"] for row in report["rows"]} == set(names.split(","))
    chosen = report["chosen"]
    assert set(chosen) == {"auto, bare", "auto:2, bare", "auto:wrong-description, bare"}
    # Its own description is in the library and would be taken; it is left out.
    assert set(chosen["auto, bare"].values()) == {"text-to-lora"}
    # Another's description finds that one's adapter.
    assert set(chosen["auto:wrong-description, bare"].values()) == {"nearest"}
    assert set(report["similarity"]) == {t.name for t in read_tasks(small_library / "tasks")}


def test_the_shipped_calibration_is_that_of_the_reports() -> None:
    data = json.loads(FILE.read_text())
    report = json.loads((tiny.ROOT / "docs/results/auto-calibration.json").read_text())
    named = data["calibrated_on"]["sha256_of_reports"]
    assert named == report["sha256_of_reports"]
    places = {path.name: path for path in (tiny.ROOT / "docs/results").rglob("*.json")}
    for which, name in report["reports"].items():
        assert file_digest(places[name]) == named[which]
    points = [(t["similarity"], t["nearest"], t["text-to-lora"]) for t in report["tasks"]]
    assert round(best_threshold(points), 3) == report["fitted_threshold"]
    assert data["nearest_from"] == report["nearest_from"]
    shares = report["mean_rouge_l"]
    kept = left_out(points) > shares["text-to-lora"]
    assert report["nearest_from"] == (report["fitted_threshold"] if kept else SAME)
    assert shares["auto"] >= max(shares["nearest"], shares["text-to-lora"])
    found = strategy_calibration()
    for strategy in ("text-to-lora", "nearest", "compose"):
        values = [found.predicted(strategy, x / 100) for x in range(-100, 101)]
        assert all(v is not None and 0 <= v <= 1 for v in values)
    assert found.predicted("auto", 0.5) is None and found.predicted("nearest", None) is None


def test_predictions_lie_on_the_lines_between_points(tmp_path: Path) -> None:
    made = StrategyCalibration(0.9, {"nearest": [(0.0, 0.1), (0.5, 0.2), (1.0, 0.8)]}, "")
    expected = {-1.0: 0.1, 0.0: 0.1, 0.25: 0.15, 0.5: 0.2, 0.75: 0.5, 1.0: 0.8, 1.1: 0.8}
    assert {x: made.predicted("nearest", x) for x in expected} == pytest.approx(expected)
    for x in expected:
        assert StrategyCalibration(0.9, {"a": [(0.3, 0.7)]}, "").predicted("a", x) == 0.7
    assert StrategyCalibration(0.9, {"a": []}, "").predicted("a", 0.5) is None
    thirds = StrategyCalibration(0.9, {"a": [(1.0, 2.0), (4.0, 3.0)]}, "")
    assert [thirds.predicted("a", x) for x in (2.0, 3.0)] == [2.333, 2.667]
    content = '{"nearest_from": 1, "recovery": {"a": [[0, 1], [1, 2]]}}'
    (tmp_path / "good.json").write_text(content)
    assert strategy_calibration(tmp_path / "good.json") == StrategyCalibration(
        1.0, {"a": [(0.0, 1.0), (1.0, 2.0)]}, file_digest(tmp_path / "good.json")
    )
    for content in ("", "{}", "[]", '{"nearest_from": "x", "recovery": {}}'):
        (tmp_path / "c.json").write_text(content)
        strategy_calibration.cache_clear()
        with pytest.raises(CheckpointError, match="cannot be read"):
            strategy_calibration(tmp_path / "c.json")


score = st.floats(0, 1)


@given(st.lists(st.tuples(score, score, score), min_size=2, max_size=12))
def test_no_threshold_is_better_than_the_one_found(points: list[Any]) -> None:
    best = mean_at(points, best_threshold(points))
    tried = [*(s for s, _, _ in points), NEVER, 0.5]
    between = [t for t in tried if t > min(s for s, _, _ in points)]
    assert all(best >= mean_at(points, t) - 1e-9 for t in between)
    assert 0 <= left_out(points) <= 1
