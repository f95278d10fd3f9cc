"""Evaluation: cells, swapped descriptions, the report, and a second run that decodes nothing."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.main import main
from generator.engine import Engine, open_engine, read_generator
from generator.request import MAX_EXAMPLES, Request
from library.base.decode import greedy
from library.base.models import BaseReference, load_base, resolve_base
from library.base.prompts import prompt_ids
from library.errors import TaskFileError, UnknownName, UsageError
from library.tasks.files import Example, Task, read_tasks
from library.tasks.metrics import rouge_l
from training.evaluation import cells as evaluation
from training.evaluation.methods import Asked, parse_methods, proposals
from training.evaluation.swaps import GIBBERISH, descriptions, other_tasks

METHODS = "base,text-to-lora,text-to-lora:wrong-description,text-to-lora:gibberish"


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Three short tasks, of which the checkpoint was trained on `seen`."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in ("one", "seen", "two"):
        rows = [json.dumps({"input": f"{name} {i}", "output": f"word {i % 2}"}) for i in range(6)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
        (folder / f"{name}.txt").write_text(f"Do {name}.")
    return folder


@pytest.fixture
def command(
    tasks: Path, tmp_path: Path, small_checkpoint: Path, tiny_base: Path, monkeypatch: Any
) -> list[str]:
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))
    return [
        "evaluate", "--tasks", str(tasks), "--base", str(tiny_base),
        "--checkpoint", str(small_checkpoint), "--out", str(tmp_path / "report.json"),
    ]  # fmt: skip


def test_the_report_holds_what_the_contract_says(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tasks" / "three.jsonl").write_text('{"input": "a", "output": ["b", "c"]}')
    (tmp_path / "tasks" / "three.txt").write_text("Do three.")
    lines = tmp_path / "predictions.jsonl"
    both = [*command, "--methods", METHODS, "--mode", "bare,prompted"]
    assert main([*both, "--predictions", str(lines), "--limit", "3"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["schema"] == 1
    assert len(report["rows"]) == (3 * 4 - 1) * 2  # `seen` is alone in its split
    assert {(r["task"], r["split"], r["n"]) for r in report["rows"]} == {
        ("one", "held-out", 6), ("seen", "seen", 6), ("three", "held-out", 1)
    }  # fmt: skip
    for mean in report["means"]:
        members = [
            row["rouge_l"]
            for row in report["rows"]
            if all(row[key] == mean[key] for key in ("method", "mode", "split"))
        ]
        assert mean["rouge_l"] == pytest.approx(sum(members) / len(members))
        assert mean["tasks"] == len(members)
        assert mean["ci95"][0] <= mean["rouge_l"] <= mean["ci95"][1]
    assert report["abstentions"] == dict.fromkeys(METHODS.split(",")[1:], 0)
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert Counter((p["method"], p["mode"]) for p in found) == {
        (method, mode): 7 if "wrong" in method else 13
        for method in METHODS.split(",")
        for mode in ("bare", "prompted")
    }
    assert "| text-to-lora | bare | held-out | 2 |" in capsys.readouterr().out


def test_seen_is_what_any_checkpoint_behind_a_method_was_trained_on(
    command: list[str], tmp_path: Path, small_checkpoint: Path, icm_checkpoint: Path
) -> None:
    digests = {read_generator(f).kind: read_generator(f).digest for f in (
        small_checkpoint, icm_checkpoint)}  # fmt: skip
    both = [*command, "--checkpoint", str(icm_checkpoint), "--overwrite", "--methods"]
    for methods, kinds in (
        ("auto,icm-lora", {"text-to-lora", "icm-lora"}),
        ("base", {"text-to-lora", "icm-lora"}),
        ("icm-lora", {"icm-lora"}),
    ):
        assert main([*both, methods]) == 0
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["checkpoints"] == {kind: digests[kind] for kind in kinds}
        first = "text-to-lora" if "text-to-lora" in kinds else "icm-lora"  # it is calibrated
        assert report["checkpoint"] == digests[first]
        seen = {row["task"] for row in report["rows"] if row["split"] == "seen"}
        assert seen == ({"seen"} if "text-to-lora" in kinds else set())


def test_a_cell_is_what_one_adapter_answers_alone(
    command: list[str], tmp_path: Path, tasks: Path, small_checkpoint: Path, tiny_base: Path
) -> None:
    lines = tmp_path / "predictions.jsonl"
    assert main([*command, "--methods", METHODS, "--predictions", str(lines)]) == 0
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    base = load_base(resolve_base(str(tiny_base)))
    pairs = dict(json.loads((tmp_path / "report.json").read_text())["wrong_description_pairs"][
        "text-to-lora:wrong-description"])  # fmt: skip
    known = {task.name: task for task in read_tasks(tasks)}
    assert pairs == {"one": "two", "two": "one"}
    for method, name, text in (
        ("text-to-lora", "one", known["one"].definition),
        ("text-to-lora:wrong-description", "one", known[pairs["one"]].definition),
        ("text-to-lora:gibberish", "two", GIBBERISH[2]),
    ):
        engine = open_engine([read_generator(small_checkpoint)])
        made = engine.generate("text-to-lora", Request(text), base.reference)
        prompts = [prompt_ids(base.tokenizer, row.input) for row in known[name].test]
        stored = made.stored().to(dtype=base.model.dtype)
        alone = greedy(base, prompts, stored, [0] * len(prompts), batch_size=1)
        assert alone == [
            p["prediction"] for p in found if p["method"] == method and p["task"] == name
        ]
        row = next(
            r
            for r in json.loads((tmp_path / "report.json").read_text())["rows"]
            if r["method"] == method and r["task"] == name
        )
        scores = [rouge_l(a, i.outputs) for a, i in zip(alone, known[name].test, strict=True)]
        assert row["rouge_l"] == pytest.approx(sum(scores) / len(scores))


def test_a_second_run_reads_its_cells_from_the_cache(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*command, "--methods", METHODS]) == 0
    first = json.loads((tmp_path / "report.json").read_text())
    assert main([*command, "--methods", METHODS]) == 2  # the report exists

    def nothing_left(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded a cell that was finished")

    monkeypatch.setattr(evaluation, "greedy", nothing_left)
    assert main([*command, "--methods", METHODS, "--overwrite"]) == 0
    again = json.loads((tmp_path / "report.json").read_text())
    assert again["rows"] == first["rows"] and again["means"] == first["means"]


@given(st.integers(2, 12), st.integers(0, 5), st.data())
def test_wrong_descriptions_are_never_ones_own(n: int, seed: int, data: st.DataObject) -> None:
    names = [f"t{i}" for i in range(n)]
    splits = ["seen" if data.draw(st.booleans()) else "held-out" for _ in names]
    made = [Task(name, f"Do {name}.", (Example("i", "x", ("y",)),)) for name in names]
    alone = {split for split, count in Counter(splits).items() if count == 1}
    if len(alone) == len(set(splits)):
        with pytest.raises(UsageError, match="two tasks"):
            descriptions("wrong-description", made, splits, seed)
        return
    texts, pairs = descriptions("wrong-description", made, splits, seed)
    assert [text is None for text in texts] == [split in alone for split in splits]
    kept = [task.definition for task, split in zip(made, splits, strict=True) if split not in alone]
    assert sorted(text for text in texts if text) == sorted(kept)
    assert all(text != task.definition for text, task in zip(texts, made, strict=True))
    where = dict(zip(names, splits, strict=True))
    assert all(where[task] == where[source] for task, source in pairs)
    assert (texts, pairs) == descriptions("wrong-description", made, splits, seed)


@pytest.mark.parametrize(("seed", "sources"), [(0, "cabedhfg"), (1, "bcafghde")])
def test_the_seed_alone_says_who_gets_whose_description(seed: int, sources: str) -> None:
    tasks = [Task(name, f"Do {name}.", (Example("i", "x", ("y",)),)) for name in "abcdefgh"]
    splits = ["seen"] * 3 + ["held-out"] * 5
    for _ in range(2):
        texts, pairs = descriptions("wrong-description", tasks, splits, seed)
        assert texts == [f"Do {source}." for source in sources]
        assert pairs == [list(pair) for pair in zip("abcdefgh", sources, strict=True)]


def test_method_names() -> None:
    parsed = parse_methods("base, text-to-lora:paraphrase")
    assert [(m.head, m.suffix) for m in parsed] == [("base", ""), ("text-to-lora", "paraphrase")]
    for wrong in ("", "base,base", ","):
        with pytest.raises(UsageError):
            parse_methods(wrong)
    for wrong in ("best", "base:gibberish", "text-to-lora:", "text-to-lora:nonsense"):
        with pytest.raises(UnknownName):
            parse_methods(wrong)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--predictions", "report.json"], "must differ"),
        (["--predictions", "tasks", "--overwrite"], "is not a file"),
        (["--predictions", "/dev/null", "--overwrite"], "is not a file"),
    ],
)
def test_outputs_are_checked_before_the_work(
    command: list[str],
    more: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("library.base.models.load_base", None)  # not reached
    assert main([*command, "--methods", "base", *more]) == 2
    assert words in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["tasks"]


def test_damaged_answers_in_the_cache_are_decoded_anew(command: list[str], tmp_path: Path) -> None:
    assert main([*command, "--methods", "base"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    for content in ("[]", "[1, 2, 3, 4, 5, 6]", "{}", "["):
        for file in (tmp_path / "cache").glob("evaluate/*/*.json"):
            file.write_text(content)
        assert main([*command, "--methods", "base", "--overwrite"]) == 0
        again = json.loads((tmp_path / "report.json").read_text())
        assert again["rows"] == report["rows"]


def test_a_base_of_another_layout_is_refused(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import tiny

    tiny.model(tiny.config("llama", num_hidden_layers=3)).save_pretrained(tmp_path / "deeper")
    assert main([*command, "--methods", "text-to-lora", "--base", str(tmp_path / "deeper")]) == 1
    assert "text-to-lora checkpoint has layout" in capsys.readouterr().err


def two_texts(definitions: str) -> list[Task]:
    """Tasks with one-letter definitions."""
    row = Example("i", "x", ("y",))
    return [Task(f"t{i}", text, (row,)) for i, text in enumerate(definitions)]


@given(st.text("abc", min_size=2, max_size=8), st.integers(0, 3))
def test_equal_definitions_are_not_swapped_for_one_another(letters: str, seed: int) -> None:
    tasks, splits = two_texts(letters), ["seen"] * len(letters)
    most = Counter(letters).most_common(1)[0][1]
    if 2 * most > len(letters):  # no order puts another text beside each
        with pytest.raises(UsageError, match="different definitions"):
            descriptions("wrong-description", tasks, splits, seed)
        return
    texts, pairs = descriptions("wrong-description", tasks, splits, seed)
    assert all(text != letter for text, letter in zip(texts, letters, strict=True))
    assert Counter(texts) == Counter(letters)
    sources = {task.name: task.definition for task in tasks}
    assert [sources[source] for _, source in pairs] == texts
    assert [name for name, _ in pairs] == [task.name for task in tasks]


def test_descriptions_by_suffix() -> None:
    tasks = two_texts("abcdefg")
    tasks[2:4] = [replace(tasks[2], paraphrases=("p",)), replace(tasks[3], paraphrases=("q", "r"))]
    splits = ["seen"] * 7
    for suffix in ("", "wrong-examples"):
        assert descriptions(suffix, tasks, splits, 0) == (list("abcdefg"), [])
    assert descriptions("no-description", tasks, splits, 0) == ([None] * 7, [])
    for seed in range(5):  # the same other task lends its description or its examples
        texts, _ = descriptions("wrong-description", tasks, splits, seed)
        lenders = other_tasks("wrong-examples", tasks, splits, seed)
        assert texts == [None if i is None else "abcdefg"[i] for i in lenders]
        assert all(i != j for i, j in enumerate(lenders))
    assert descriptions("gibberish", tasks, splits, 0) == ([*GIBBERISH, *GIBBERISH[:2]], [])
    drawn = [descriptions("paraphrase", tasks, splits, seed) for seed in range(20)]
    assert all(pairs == [] for _, pairs in drawn)
    assert {text for texts, _ in drawn for text in texts} == {None, "p", "q", "r"}
    for texts, _ in drawn:
        assert [text is None for text in texts] == [True, True, False, False, True, True, True]
        assert texts[2] == "p"
    with pytest.raises(UsageError, match="paraphrases"):
        descriptions("paraphrase", tasks[:2], splits[:2], 0)


@pytest.mark.parametrize(
    ("name", "head", "examples", "traits"),
    [
        ("base", "base", 0, ""),
        ("in-context", "in-context", 0, ""),
        ("multi-task", "multi-task", 0, "generates"),
        ("oracle", "oracle", 0, "from_library takes_adapters"),
        ("lorahub:16", "lorahub:16", 0, "from_library takes_adapters"),
        ("dlp", "dlp", 0, "routed takes_adapters"),
        ("text-to-lora", "text-to-lora", 0, "generates is_generator"),
        ("text-to-lora:gibberish", "text-to-lora", 0, "generates is_generator"),
        ("nearest", "nearest", 0, "generates takes_adapters"),
        ("multi-task:5", "multi-task", 5, "generates"),
        ("refine:fresh:5", "fresh", 5, "generates"),
        ("fresh:5", "fresh", 5, "generates"),
        ("text-to-lora:5", "text-to-lora", 5, "generates is_generator"),
        ("refine:text-to-lora:0", "text-to-lora", 0, "generates is_generator"),
        ("refine:nearest:16", "nearest", 16, "generates takes_adapters"),
        ("auto:1", "auto", 1, "generates takes_adapters"),
        ("text-to-lora:8:gibberish", "text-to-lora", 8, "generates is_generator"),
        ("text-to-lora:8:no-description", "text-to-lora", 8, "generates is_generator"),
        ("refine:text-to-lora:8:wrong-examples", "text-to-lora", 8, "generates is_generator"),
        (f"auto:{MAX_EXAMPLES}", "auto", MAX_EXAMPLES, "generates takes_adapters"),
        ("auto:inputs-64", "auto", 0, "generates takes_adapters"),
        ("fresh:inputs-1", "fresh", 0, "generates"),
        ("auto:written-64", "auto", 0, "generates takes_adapters"),
        ("auto:5:written-8:gibberish", "auto", 5, "generates takes_adapters"),
        ("refine:text-to-lora:5:inputs-64", "text-to-lora", 5, "generates is_generator"),
        ("multi-task:inputs-64:gibberish", "multi-task", 0, "generates"),
        ("auto:5:inputs-64:wrong-examples", "auto", 5, "generates takes_adapters"),
    ],
)
def test_a_method_s_name_says_what_it_takes(
    name: str, head: str, examples: int, traits: str
) -> None:
    (method,) = parse_methods(name)
    assert (method.name, method.head, method.examples) == (name, head, examples)
    for prefix, number in (("inputs-", method.inputs), ("written-", method.written)):
        assert number == (int(name.split(prefix)[1].split(":")[0]) if prefix in name else 0)
    names = ("generates", "is_generator", "from_library", "routed", "takes_adapters")
    assert {trait for trait in names if getattr(method, trait)} == set(traits.split())


@pytest.mark.parametrize(
    "name",
    ["auto:0", f"auto:{MAX_EXAMPLES + 1}", "auto:-1", "auto:x", "nearest:0",
     "dlp:5", "oracle:gibberish", "lorahub:7", "auto::5", ":5", "fresh", "fresh:gibberish",
     "refine:fresh:0", "refine:fresh", "refine:nothing:0", "refine::0", "refine:auto",
     "text-to-lora:no-description", "text-to-lora:wrong-examples", "text-to-lora:0:gibberish",
     "text-to-lora:5:", "text-to-lora:5:5", "text-to-lora:gibberish:5", "fresh:5:gibberish",
     "text-to-lora:5:gibberish:wrong-examples", "in-context:5:gibberish", "refine:in-context:5",
     "in-context:0", "refine:text-to-lora:0:gibberish", "text-to-lora:5:nonsense",
     "refine:auto:gibberish", "refine:base:5", "refine:auto:201", "refine:refine:auto:5",
     "auto:inputs-0", "auto:inputs-201", "auto:inputs-", "auto:inputs-x", "inputs-64",
     "auto:0:inputs-64", "auto:201:inputs-64", "auto:inputs-64:5", "auto:inputs-64:inputs-64",
     "auto:inputs-64:no-description", "auto:5:inputs-64:no-description", "base:inputs-64",
     "auto:inputs-64:wrong-examples", "in-context:5:inputs-64", "oracle:inputs-64",
     "multi-task:5:no-description",
     "auto:written-0", "auto:written-201", "auto:written-64:inputs-64", "nothing:written-64"],
)  # fmt: skip
def test_names_of_no_method(name: str) -> None:
    with pytest.raises(UnknownName):
        parse_methods(name)


def test_nothing_is_proposed_without_a_text_or_rows(engine: Engine, base: BaseReference) -> None:
    (method,), (plain,) = parse_methods("auto:5"), parse_methods("auto")
    rows = tuple(Example(str(i), f"in {i}", ("out",)) for i in range(66))
    short, long = (Task(f"t{n}", "Do it.", rows[:n]) for n in (60, 66))
    found = proposals(engine, Asked(method, [None, "Do it.", "Do it."]), base, [long, short, long])
    assert found[:2] == [None, None]
    assert found[2] is not None and found[2].refined is not None and found[2].refined.used == 5
    (alone,) = proposals(engine, Asked(plain, ["Do it."]), base, [short])
    assert alone is not None and alone.losses == () and alone.refined is None
    with pytest.raises(TaskFileError):
        proposals(engine, Asked(plain, [" "]), base, [short])
