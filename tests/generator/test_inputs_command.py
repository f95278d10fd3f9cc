"""`lorasmith generate` and `refine` with inputs and no answers: pipes, files, refusals, Ctrl-C."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

import lorasmith
import pretrained
from api.cli.main import main
from generator.refine import refine as refinement
from library.base.usage import BARE
from library.canonical import file_digest
from library.errors import LayoutMismatch, UsageError
from library.peft.write import WEIGHTS_FILE

TASK = "Say yes or no."
INPUTS = [f"row {i}" for i in range(6)]
EXAMPLES = [("other 1", "yes"), ("other 2", "no"), ("other 3", "yes"), ("other 4", "no")]


@pytest.fixture
def shipped(multi_task: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tiny base's multi-task adapter is the one that ships, and nothing else does."""
    absent = multi_task.with_name("absent")
    folders = {"multi-task": multi_task, "input-writer": multi_task}
    monkeypatch.setattr(pretrained, "folder", lambda name: folders.get(name, absent))
    lorasmith.loading.loaded_engine.cache_clear()
    yield
    lorasmith.loading.loaded_engine.cache_clear()


@pytest.fixture
def command(shipped: None, tiny_base: Path, small_library: Path) -> list[str]:
    return ["generate", TASK, "--base", str(tiny_base), "--library", str(small_library / "lib")]


def pipe(monkeypatch: pytest.MonkeyPatch, content: str) -> list[str]:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    return ["--inputs", "-"]


def test_files_and_pipes_and_python_give_the_same_bytes(
    command: list[str], tiny_base: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    made = lorasmith.generate(
        TASK, inputs=INPUTS, refine=2, base=str(tiny_base), library=command[5]
    )
    assert made.summary["usage"] == BARE.to_dict() and made.summary["expected"] is None
    forms = {
        "lines.txt": "\n".join(INPUTS),
        "rows.jsonl": "\n".join(json.dumps({"input": text, "output": "?"}) for text in INPUTS),
        "strings.jsonl": "\n".join(map(json.dumps, INPUTS)),
    }
    for name, content in forms.items():
        (tmp_path / name).write_text(content)
        given = ["--inputs", str(tmp_path / name)]
        for own in (given, pipe(monkeypatch, content)):
            out = ["--out", str(tmp_path / "a"), "--overwrite", "--json", "--refine", "2"]
            assert main([*command, *own, *out]) == 0
            shown = json.loads(capsys.readouterr().out)
            assert {key: shown[key] for key in made.summary} == made.summary
            written = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
            assert written == made.files


def test_what_it_says_promises_nothing(
    command: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    given = "\n".join([*INPUTS, INPUTS[0], "many words " * 600])
    few = [*command, *pipe(monkeypatch, given), "--refine", "12", "--out", str(tmp_path / "a")]
    assert main(few) == 0
    said = capsys.readouterr().out
    assert "steps on a teacher's answers to 5 inputs" in said
    assert "held back," in said and "of 1 answers are the teacher's (0 before training)" in said
    assert "left out of 8 inputs: 1 came again, 1 are too long" in said
    assert "not measured: nobody said which answers are right" in said
    assert "prompt it with the input alone" in said and "verified: warn" in said
    assert "expect " not in said and "it is not known how many answers will be right" in said


def test_an_adapter_is_refined_on_inputs_and_examples(
    command: list[str], tiny_base: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    start, rows = tmp_path / "start", tmp_path / "few.jsonl"
    assert main([*command, "--generator", "multi-task", "--out", str(start)]) == 0
    rows.write_text("".join(json.dumps({"input": i, "output": o}) + "\n" for i, o in EXAMPLES))
    capsys.readouterr()
    refine = ["refine", str(start), "--base", str(tiny_base), "--steps", "2", "--json"]
    given = [*pipe(monkeypatch, "\n".join(INPUTS)), "--examples", str(rows)]
    assert main([*refine, *given, "--out", str(tmp_path / "a")]) == 0
    shown = json.loads(capsys.readouterr().out)
    made = lorasmith.refine(rows, start, inputs=INPUTS, steps=2, base=str(tiny_base))
    assert {key: shown[key] for key in made.summary} == made.summary
    assert made.summary["usage"] == BARE.to_dict()
    refined = made.summary["refined"]
    assert refined["examples_used"] == 4 and refined["inputs"]["used"] == 5
    provenance = json.loads(made.files["provenance.json"])
    assert provenance["description"] == TASK and provenance["details"]["refine"] == refined
    alone = lorasmith.refine((), start, inputs=INPUTS, steps=2, base=str(tiny_base))
    assert alone.summary["refined"]["examples_used"] == 0 and alone.sha256 != made.sha256
    # What learned from inputs has a description still, and may learn more of them.
    again = lorasmith.refine(
        adapter=alone.save(tmp_path / "b"), inputs=["row 7"], steps=1, base=str(tiny_base)
    )
    assert again.summary["start"] == alone.id


@pytest.mark.parametrize(
    ("content", "more", "code", "words"),
    [
        ("", [], 1, "- holds no inputs"),
        (" \n\n", [], 1, "- holds no inputs"),
        ('"row"\n" "', [], 1, "line 2: the input is empty"),
        ('{"text": "row"}', [], 1, "line 1: 'input' is missing"),
        ("row\n" * 10_000, [], 2, "1 to 200 inputs are needed, not 10,000"),
        ("word " * 1100, [], 2, "no input has, with the description before it, 1024 tokens"),
        ("row", ["--refine", "0"], 2, "inputs are there to be trained on: leave out refine 0"),
        ("row", ["--mode", "prompted"], 2, "inputs make an adapter for bare prompts"),
        ("row", ["--examples", "-"], 2, "either the examples or the inputs, not both"),
        ("row", ["--refine", "2001"], 2, "steps must be from 1 to 2000"),
        ("row", ["--write-inputs", "5"], 2, "inputs are given: leave out write_inputs"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    content: str, more: list[str], code: int, words: str,
    command: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any,
) -> None:  # fmt: skip
    monkeypatch.setenv("LORASMITH_DATA", str(tmp_path / "data"))
    given = [*command, *pipe(monkeypatch, content), *more, "--out", str(tmp_path / "a")]
    assert main(given) == code
    assert words in tiny.one_sentence(capsys.readouterr())
    assert list(tmp_path.iterdir()) == []


def test_inputs_are_written_where_there_are_none(
    command: list[str], tiny_base: Path, tmp_path: Path, capsys: Any
) -> None:
    wanted = [*command, "--write-inputs", "6", "--refine", "2", "--out", str(tmp_path / "a")]
    assert main([*wanted, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    made = lorasmith.generate(
        TASK, write_inputs=6, refine=2, base=str(tiny_base), library=command[5]
    )
    assert {key: shown[key] for key in made.summary} == made.summary
    about = made.summary["refined"]["inputs"]
    assert about["given"] == 6 and len(about["writer"]) == 64
    assert made.summary["usage"] == BARE.to_dict() and made.summary["expected"] is None
    assert json.loads(made.files["provenance.json"])["details"]["refine"]["inputs"] == about
    assert main([*wanted, "--overwrite"]) == 0
    assert "answers to 5 inputs written from the description" in capsys.readouterr().out
    both = lorasmith.generate(
        TASK, examples=EXAMPLES, write_inputs=6, refine=2, base=str(tiny_base), library=command[5]
    )
    assert both.summary["refined"]["examples_used"] == 4
    assert both.summary["refined"]["inputs"]["given"] == 6


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--write-inputs", "201"], "write_inputs must be from 1 to 200"),
        (["--write-inputs", "-1"], "write_inputs must be from 1 to 200"),
        (["--write-inputs", "6", "--refine", "0"], "leave out refine 0"),
        (["--write-inputs", "6", "--mode", "prompted"], "bare prompts"),
    ],
)
def test_what_cannot_be_written_is_refused(
    more: list[str], words: str, command: list[str], tmp_path: Path, capsys: Any
) -> None:
    assert main([*command, *more, "--out", str(tmp_path / "a")]) == 2
    assert words in tiny.one_sentence(capsys.readouterr())
    undescribed = [*command[:1], *command[2:], "--write-inputs", "6", "--out", str(tmp_path / "a")]
    assert main(undescribed) == 2
    assert "need a description" in tiny.one_sentence(capsys.readouterr())
    assert list(tmp_path.iterdir()) == []


def test_inputs_need_a_description_and_a_teacher(
    command: list[str], tiny_base: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    out = ["--out", str(tmp_path / "a")]
    missing = [*command, "--inputs", str(tmp_path / "none"), *out]
    assert main(missing) == 2 and "there is no file" in tiny.one_sentence(capsys.readouterr())
    undescribed = [*command[:1], *command[2:]]
    fresh = ["refine", "--base", str(tiny_base)]
    for words in (undescribed, fresh):
        assert main([*words, *pipe(monkeypatch, "row"), *out]) == 2
        assert "need a description of the task" in tiny.one_sentence(capsys.readouterr())
    unsaid = lorasmith.refine(EXAMPLES, base=str(tiny_base), steps=1).save(tmp_path / "unsaid")
    with pytest.raises(UsageError, match="need a description"):
        lorasmith.refine(adapter=unsaid, inputs=INPUTS, base=str(tiny_base))
    with pytest.raises(UsageError, match="examples are needed"):
        lorasmith.refine(base=str(tiny_base))
    monkeypatch.undo()  # what really ships is for another base
    lorasmith.loading.loaded_engine.cache_clear()
    assert main([*command, *pipe(monkeypatch, "row"), *out]) == 1
    assert "nothing can answer the inputs" in tiny.one_sentence(capsys.readouterr())
    made = lorasmith.generate(TASK, examples=EXAMPLES, refine=1, base=str(tiny_base))
    with pytest.raises(LayoutMismatch, match="nothing can answer the inputs"):
        lorasmith.refine(adapter=made.save(tmp_path / "b"), inputs=INPUTS, base=str(tiny_base))
    assert not (tmp_path / "a").exists()


def test_a_multi_task_adapter_of_ones_own_answers_the_inputs(
    multi_task: Path, tiny_base: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    rows, own = ["--base", str(tiny_base), "--steps", "1", "--json"], tmp_path / "own teacher"
    shutil.copytree(multi_task, own)
    made = lorasmith.generate(TASK, examples=EXAMPLES, refine=1, base=str(tiny_base))
    start = str(made.save(tmp_path / "start"))
    refine = ["refine", start, *rows, "--multi-task", str(own)]
    assert main([*refine, *pipe(monkeypatch, "\n".join(INPUTS)), "--out", str(tmp_path / "a")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["refined"]["inputs"]["teacher"] == file_digest(multi_task / WEIGHTS_FILE)
    same = lorasmith.refine(
        adapter=start, inputs=INPUTS, steps=1, base=str(tiny_base), multi_task=own
    )
    assert same.sha256 == shown["sha256"]
    for folder, code, words in (
        (tmp_path / "none", 2, "there is nothing at"),
        (tmp_path, 1, "holds no adapter"),
        (pretrained.folder("multi-task"), 1, "is for HuggingFaceTB/SmolLM2-135M-Instruct, not"),
    ):
        given = [*pipe(monkeypatch, "row"), "--out", str(tmp_path / "b")]
        assert main([*refine[:-1], str(folder), *given]) == code
        assert words in tiny.one_sentence(capsys.readouterr())
    with pytest.raises(UsageError, match="answers inputs, and none are given"):
        lorasmith.refine(EXAMPLES, start, steps=1, base=str(tiny_base), multi_task=own)
    assert not (tmp_path / "b").exists()


def test_a_multi_task_adapter_that_is_named_is_never_left_out(
    multi_task: Path, tiny_base: Path, tmp_path: Path, capsys: Any
) -> None:
    """Training would begin from nothing without it."""
    few, file = tmp_path / "few.jsonl", tmp_path / "file"
    file.write_text("no adapter")
    few.write_text("".join(json.dumps({"input": i, "output": o}) + "\n" for i, o in EXAMPLES))
    command = ["generate", TASK, "--examples", str(few), "--refine", "1"]
    shipped = pretrained.folder("multi-task")
    for base, folder, words in (
        (["--base", str(tiny_base)], shipped, "is for HuggingFaceTB"),
        ([], multi_task, f"the multi-task adapter is for {tiny_base}, not for HuggingFaceTB"),
        (["--base", str(tiny_base)], file, "holds no adapter"),
    ):
        out = ["--multi-task", str(folder), "--out", str(tmp_path / "a")]
        assert main([*command, *base, *out]) == 1
        assert words in tiny.one_sentence(capsys.readouterr())
    assert not (tmp_path / "a").exists()


def test_ctrl_c_leaves_nothing(
    command: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """While the teacher answers, and in training."""
    monkeypatch.setenv("LORASMITH_DATA", str(tmp_path / "data"))
    lines, out = "\n".join(INPUTS), ["--refine", "1", "--out", str(tmp_path / "a")]

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for step in ("lesson", "refine_adapters", "agreement"):
        with monkeypatch.context() as patched:
            patched.setattr(refinement, step, interrupted)
            assert main([*command, *pipe(monkeypatch, lines), *out]) == 130
        assert tiny.one_sentence(capsys.readouterr()) == "lorasmith: interrupted\n"
        assert list(tmp_path.iterdir()) == []
    assert main([*command, *pipe(monkeypatch, lines), *out]) == 0
