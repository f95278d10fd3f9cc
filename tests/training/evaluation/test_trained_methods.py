"""Evaluation of what is trained on train rows: the same prompt in training and scoring, seeds,
curves over numbers of rows, and the metrics of exact answers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from api.cli.main import main
from generator.engine import Engine
from generator.request import Request
from library.base.decode import greedy
from library.base.models import BaseReference, load_base
from library.base.prompts import prompt_ids, with_examples
from library.base.usage import Usage
from library.errors import UsageError
from library.tasks.files import Example, Task
from training.evaluation.cells import Cell
from training.evaluation.comparison import means
from training.evaluation.evaluate import EvaluationPlan, evaluate
from training.evaluation.methods import Asked, Method, parse_methods, proposals
from training.evaluation.report import build_report, table

TASK = "Say yes or no."


def task(name: str, count: int = 70, definition: str = TASK) -> Task:
    rows = [Example(str(i), f"{name} {i}", (("yes", "no")[i % 2],)) for i in range(count)]
    return Task(name, definition, tuple(rows))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))


def cells_of(engine: Engine, base: BaseReference, methods: str, mode: Any, *tasks: Task) -> Any:
    plan = EvaluationPlan(tasks, ["held-out"] * len(tasks), parse_methods(methods), [mode])
    loaded = load_base(base)
    return evaluate(plan, loaded, engine), plan, loaded


def test_a_curve_begins_with_the_start(alone: Engine, base: BaseReference) -> None:
    names = "text-to-lora,refine:text-to-lora:0,refine:text-to-lora:2,text-to-lora:2"
    outcome, _, _ = cells_of(alone, base, names, "bare", task("one"))
    start, first, second, same = outcome.cells
    assert start.predictions == first.predictions and start.key == first.key
    assert first.refined is None and second.refined["examples_used"] == 2
    assert second.key == same.key != first.key


def test_it_is_scored_with_the_prompt_it_was_trained_for(base: BaseReference) -> None:
    """`best` answers as `generate` and `answer` would, whatever the task's own text looks like."""
    engine, one = Engine([]), task("one")
    outcome, _, loaded = cells_of(engine, base, "auto:5", "best", one)
    (cell,) = outcome.cells
    assert (cell.mode, cell.usage) == ("best", "prompted")
    made = engine.generate("auto", Request(TASK, examples=one.train[:5]), base)
    usage = Usage.of("prompted", TASK)
    assert made.summary["usage"] == usage.to_dict()
    prompts = [prompt_ids(loaded.tokenizer, usage.message(row.input)) for row in one.test]
    assert cell.prompts == prompts
    stored = made.stored().to(dtype=loaded.model.dtype)
    assert cell.predictions == greedy(loaded, prompts, stored, [0] * len(prompts))
    assert cell.refined == made.summary["refined"]


@pytest.mark.parametrize("mode", ["bare", "prompted"])
def test_a_mode_is_that_of_training_and_prompts(base: BaseReference, mode: Any) -> None:
    outcome, _, loaded = cells_of(Engine([]), base, "fresh:4", mode, task("one"))
    (cell,) = outcome.cells
    message = Usage.of(mode, TASK).message(cell.task.test[0].input)
    assert cell.usage == mode and cell.prompts[0] == prompt_ids(loaded.tokenizer, message)


def test_no_task_changes_what_another_is_given(base: BaseReference) -> None:
    engine, (method,) = Engine([]), parse_methods("auto:4")
    tasks = [task("one", definition="word " * 90), task("two"), task("three", count=62)]
    texts = [t.definition for t in tasks]
    together = proposals(engine, Asked(method, texts), base, tasks)
    for made, text, one in zip(together, texts, tasks, strict=True):
        (single,) = proposals(engine, Asked(method, [text]), base, [one])
        assert made is not None and made.refined and single is not None and single.refined
        assert made.refined.settings == single.refined.settings
        found, expected = tiny.deltas(made.adapter), tiny.deltas(single.adapter)
        assert all((found[site] - expected[site]).abs().max() < 1e-5 for site in found)


def test_seeds_draw_examples_and_zero_takes_the_first(base: BaseReference) -> None:
    engine, (method,) = Engine([]), parse_methods("auto:3")
    rows = task("one", 90).instances
    # An input that comes again, and an answer of nothing: neither is trained on.
    first = (rows[0], Example("x", rows[0].input, ("no",)), Example("y", "empty", ("",)))
    one = Task("one", TASK, (*first, *rows[1:]))
    digests = []
    for seed in range(4):
        (made,) = proposals(engine, Asked(method, [TASK], seed=seed), base, [one])
        (again,) = proposals(engine, Asked(method, [TASK], seed=seed), base, [one])
        assert made is not None and again is not None
        digests.append([f.sum().item() for f in made.adapter.factors()])
        assert digests[-1] == [f.sum().item() for f in again.adapter.factors()]
    assert len({tuple(digest) for digest in digests}) == 4
    direct = engine.propose("auto", Request(TASK, examples=rows[:3]), base)
    assert digests[0] == [f.sum().item() for f in direct.adapter.factors()]


def test_inputs_are_train_and_tune_rows_but_the_examples() -> None:
    rows = task("one", 90).instances
    twice = Task(
        "one", TASK, (Example("x", rows[3].input, ("no",)), Example("y", " ", ("-",)), *rows)
    )
    whole = [row.input for row in rows[:-40]]
    whole.remove(rows[3].input)
    whole.insert(0, rows[3].input)  # where it comes first
    for name, seed, left in (("auto:inputs-30", 0, 30), ("auto:inputs-200", 3, 50)):
        asked = Asked(parse_methods(name)[0], [TASK], seed=seed)
        found = asked.inputs(twice)
        assert len(found) == len({*found}) == left and {*found} <= {*whole}
        assert (found == tuple(whole[:left])) == (seed == 0)
        assert found == asked.inputs(twice)
    for seed in range(3):
        both = Asked(parse_methods("auto:5:inputs-200")[0], [TASK], seed=seed)
        known = {row.input for row in both.rows(0, [twice])}
        assert len(known) == 5 and {*both.inputs(twice)} == {*whole} - known


def test_inputs_are_learned_for_bare_prompts(base: BaseReference, multi_task: Path) -> None:
    engine, rows = Engine([], multi_task=[multi_task]), task("row", 66)
    names, cells = "multi-task,auto:inputs-5,fresh:2:inputs-5", {}
    for mode in ("prompted", "best"):
        outcome, plan, loaded = cells_of(engine, base, names, mode, rows)
        for one in outcome.cells:
            assert one.usage == ("bare" if one.method.inputs else "prompted")
            assert (one.refined is not None) == bool(one.method.inputs)
            cells[mode, one.method.name] = one
    report = build_report(plan, outcome, command="c", commit=None, device="cpu", base=loaded)
    given = [r["refined"] and r["refined"]["inputs"]["given"] for r in report["rows"]]
    assert given == [None, 5, 5]
    first = cells["best", "auto:inputs-5"]
    assert first.key == cells["prompted", "auto:inputs-5"].key
    texts = tuple(row.input for row in rows.instances[:5])
    made = engine.generate("auto", Request(TASK, inputs=texts), base)
    assert first.refined == made.summary["refined"] and first.refined["inputs"]["used"] == 4
    stored = made.stored().to(dtype=loaded.model.dtype)
    assert first.predictions == greedy(loaded, first.prompts, stored, [0] * len(first.prompts))
    assert cells["best", "fresh:2:inputs-5"].refined["examples_used"] == 2


def test_without_a_multi_task_adapter_for_the_base_there_is_no_teacher(
    small_library: Path, tiny_base: Path, tmp_path: Path, capsys: Any
) -> None:
    command = ["evaluate", "--tasks", str(small_library / "tasks"), "--base", str(tiny_base)]
    command += ["--methods", "auto:inputs-5", "--library", str(small_library / "lib")]
    assert main([*command, "--out", str(tmp_path / "r.json")]) == 1
    assert "nothing can answer the inputs" in capsys.readouterr().err


def cell(answers: list[str], labels: tuple[str, ...] = ("Yes", "no")) -> Cell:
    """A cell with these answers, each test row of which wants the first label."""
    train = [Example(str(i), f"in {i}", (labels[i % len(labels)],)) for i in range(8)]
    rest = [Example(f"t{i}", "in", ("-",)) for i in range(60 - len(answers))]
    test = [Example(f"q{i}", "in", (labels[0],)) for i in range(len(answers))]
    one = Task("one", TASK, (*train, *rest, *test))
    made = Cell(one, "held-out", Method("base", "base"), "bare", "bare", None, [], "key")
    # Test rows are the last 40; the others want "-".
    made.predictions = ["-"] * (len(one.test) - len(answers)) + answers
    return made


def test_labels_and_exact_answers_are_counted() -> None:
    scores = cell(["Yes", " yes ", "YES", "No.", "maybe", "no", "Yes and no", "\nno\n"]).scores()
    n = 40
    assert scores["in_labels"] == pytest.approx(5 / n)
    # Letter for letter after trimming; the 32 rows before want what they got.
    assert scores["strict_exact"] == pytest.approx((32 + 1) / n)
    exact, strict = scores["exact_match"], scores["strict_exact"]
    assert exact is not None and strict is not None and exact >= strict
    assert cell(["a"], labels=tuple(f"answer {i}" for i in range(8))).scores()["in_labels"] == 0
    one_label = cell(["Yes"], labels=("Yes",)).scores()
    assert one_label["in_labels"] is None and one_label["strict_exact"] == 1


def test_json_is_counted_where_every_reference_is_an_object() -> None:
    labels = ('{"name": "Ada"}', '{"name": "Bo"}')
    answers = ['{"name": "Cy"}', '{"who": "Ada"}', '{"name": "Ada", "age": 3}', "Ada", "[]", "3"]
    made = cell(answers, labels)
    assert made.scores()["valid_json"] is None  # other rows want "-"
    rows = tuple(replace(row, outputs=(labels[0],)) for row in made.task.instances)
    made.task = replace(made.task, instances=rows)
    scores, n = made.scores(), 40
    assert scores["valid_json"] == pytest.approx(5 / n)
    assert scores["json_fields"] == pytest.approx(1 / n)


def test_reports_say_metrics_usage_and_training(alone: Engine, base: BaseReference) -> None:
    words = Task("words", "Say it.", tuple(
        Example(str(i), f"in {i}", (f"answer {i}",)) for i in range(90)
    ))  # fmt: skip
    names = "base,text-to-lora,auto:4"
    outcome, plan, loaded = cells_of(alone, base, names, "best", task("one"), words)
    report = build_report(plan, outcome, command="c", commit=None, device="cpu", base=loaded)
    by_name = {(row["method"], row["task"]): row for row in report["rows"]}
    assert len(by_name) == 6
    for (method, name), row in by_name.items():
        assert (row["in_labels"] is None) is (name == "words")
        assert (row["refined"] is not None) is (method == "auto:4")
        assert (row["mode"], row["usage"]) == ("best", "prompted")
        assert 0 <= row["strict_exact"] <= row["exact_match"] <= 1
    for mean in report["means"]:
        own = [r for r in report["rows"] if r["method"] == mean["method"]]
        assert mean["in_labels"] == by_name[mean["method"], "one"]["in_labels"]
        assert mean["strict_exact"] == pytest.approx(sum(r["strict_exact"] for r in own) / 2)
        assert mean["valid_json"] is None
    titles = "exact | strict | in labels | JSON | JSON fields |"
    assert table(report).splitlines()[0].endswith(titles)
    # Reports from before there were such metrics are still summed up and shown.
    old = [{k: r[k] for k in r if k not in ("in_labels", "strict_exact")} for r in report["rows"]]
    (first, *_) = means(old, "method", "mode", "split")
    assert first["in_labels"] is None and first["strict_exact"] is None
    assert "–" in table({"means": [first]})


def test_the_command_in_mode_best(small_library: Path, tiny_base: Path, tmp_path: Path) -> None:
    command = ["evaluate", "--tasks", str(small_library / "tasks"), "--base", str(tiny_base)]
    command += ["--methods", "auto:2,refine:fresh:1", "--limit", "1", "--seed", "3"]
    command += ["--library", str(small_library / "lib"), "--mode", "best,bare"]
    assert main([*command, "--out", str(tmp_path / "r.json")]) == 0
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert {(r["method"], r["mode"], r["usage"], r["refined"]["examples_used"]) for r in rows} == {
        ("auto:2", "best", "prompted", 2), ("auto:2", "bare", "bare", 2),
        ("refine:fresh:1", "best", "prompted", 1), ("refine:fresh:1", "bare", "bare", 1),
    }  # fmt: skip
    assert main([*command, "--mode", "best,both", "--out", str(tmp_path / "s.json")]) == 2


def test_the_multi_task_adapter_has_examples_in_its_prompt(
    base: BaseReference, multi_task: Path
) -> None:
    engine, one = Engine([], multi_task=[multi_task]), task("one")
    for mode, head in (("prompted", TASK), ("best", TASK), ("bare", None)):
        outcome, _, loaded = cells_of(engine, base, "multi-task,multi-task:2", mode, one)
        plain, shown = outcome.cells
        assert plain.source == shown.source and shown.refined is None
        pairs = [(row.input, row.output) for row in one.train[:2]]
        texts = [row.input for row in one.test]
        if head is not None:
            texts = [f"{with_examples(head, pairs)}\n\n{text}" for text in texts]
        assert shown.prompts == [prompt_ids(loaded.tokenizer, text) for text in texts]
    with pytest.raises(UsageError, match="multi-task:6: a prompt of multi-task shows 5 examples"):
        cells_of(engine, base, "multi-task:6", "prompted", one)
    with pytest.raises(UsageError, match="there is no checkpoint of icm-lora"):
        cells_of(engine, base, "icm-lora:6", "prompted", one)
