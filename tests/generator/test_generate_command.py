"""`lorasmith generate` with examples: from a pipe, without training, refused, and interrupted."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

import lorasmith
from api.cli.main import main
from generator.refine import refine as refinement

TASK = "Say yes or no."
PAIRS = [(f"row {i}", "yes" if i % 2 else "no") for i in range(4)]
LINES = "".join(json.dumps({"input": i, "output": o}) + "\n" for i, o in PAIRS)


@pytest.fixture
def command(tiny_base: Path, small_library: Path, small_checkpoint: Path) -> list[str]:
    command = ["generate", TASK, "--base", str(tiny_base), "--library", str(small_library / "lib")]
    return [*command, "--checkpoint", str(small_checkpoint)]


def pipe(monkeypatch: pytest.MonkeyPatch, content: str) -> list[str]:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    return ["--examples", "-"]


def test_examples_come_from_a_pipe(
    command: list[str], tiny_base: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    out = tmp_path / "a"
    piped = [*command, *pipe(monkeypatch, LINES), "--refine", "2"]
    assert main([*piped, "--out", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["refined"]["steps"] == 2 and shown["refined"]["held_out"]["of"] == 4
    made = lorasmith.generate(
        TASK, examples=PAIRS, refine=2, base=str(tiny_base), library=command[5],
        checkpoints=[command[7]],
    )  # fmt: skip
    assert {key: shown[key] for key in made.summary} == made.summary
    assert {file.name: file.read_bytes() for file in out.iterdir()} == made.files
    assert lorasmith.verify(out, base=str(tiny_base)).verdict in ("accept", "warn")
    file = tmp_path / "rows.jsonl"
    file.write_text(LINES)
    assert main([*command, "--examples", str(file), "--out", str(tmp_path / "b")]) == 0
    said = capsys.readouterr().out
    assert "trained 30 steps on 4 examples" in said and "of 4 answers were exactly right" in said
    assert "prompt it with the description" in said


def test_a_few_examples_are_not_measured(
    command: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    three = [*command, *pipe(monkeypatch, "".join(LINES.splitlines(True)[:3])), "--mode", "bare"]
    assert main([*three, "--refine", "1", "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "not measured: no example was held out" in said and "the input alone" in said


def test_without_steps_examples_choose(
    command: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    untrained = [*command, *pipe(monkeypatch, LINES), "--refine", "0", "--json"]
    assert main([*untrained, "--out", str(tmp_path / "a")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["refined"] is None and "on 4 examples" in shown["chosen"]["reason"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--mode", "wrong"], "mode must be best, bare or prompted, not 'wrong'"),
        (["--refine", "5"], "refine needs examples"),
        (["--refine", "-1"], "refine must be a number of steps"),
        (["--refine", "many"], "--refine"),
        (["--budget", "0"], "budget must be from 1 to 3600 seconds"),
        (["--budget", "nan"], "budget must be"),
        (["--generator", "fresh"], "fresh needs examples"),
        (["--generator", "fresh", "--examples", "-", "--refine", "0"], "without training on them"),
        (["--examples", "-", "--refine", "2001"], "steps must be from 1 to 2000"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    more: list[str], words: str, command: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    pipe(monkeypatch, LINES)
    assert main([*command, *more, "--out", str(tmp_path / "a")]) == 2
    assert words in tiny.one_sentence(capsys.readouterr())
    assert not (tmp_path / "a").exists()


def test_rows_that_contradict_each_other_are_refused(
    command: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    wrong = LINES + '{"input": "row 0", "output": "maybe"}'
    assert main([*command, *pipe(monkeypatch, wrong), "--out", str(tmp_path / "a")]) == 2
    assert "answer one input differently: 'row 0'" in tiny.one_sentence(capsys.readouterr())
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_in_training_leaves_nothing(
    command: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setenv("LORASMITH_DATA", str(tmp_path / "data"))

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(refinement, "refine_adapters", interrupted)
        stopped = [*command, *pipe(monkeypatch, LINES), "--out", str(tmp_path / "a")]
        assert main(stopped) == 130
    assert tiny.one_sentence(capsys.readouterr()) == "lorasmith: interrupted\n"
    assert list(tmp_path.iterdir()) == []
    again = [*command, *pipe(monkeypatch, LINES), "--refine", "1", "--out", str(tmp_path / "a")]
    assert main(again) == 0  # no hook was left on the model


def _listen_to_interrupts() -> None:
    """A job in the background of a shell ignores them, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_a_process_that_is_interrupted_leaves_nothing(command: list[str], tmp_path: Path) -> None:
    arguments = [*command, "--examples", "-", "--refine", "2000", "--out", str(tmp_path / "a")]
    process = subprocess.Popen(
        [sys.executable, "-m", "api", *arguments],
        cwd=tiny.ROOT,
        env={**os.environ, "LORASMITH_DATA": str(tmp_path / "data")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_listen_to_interrupts,
    )
    assert process.stdin is not None and process.stderr is not None
    long = "".join(  # training that outlasts the bar's two seconds
        json.dumps({"input": f"{number} word " * 150, "output": "yes"}) + "\n"
        for number in range(9)
    )
    process.stdin.write(long.encode())
    process.stdin.close()
    process.stdin = None
    said = b""
    while b"training" not in said:  # the bar: after two seconds of steps
        piece = process.stderr.read1(100)  # pyright: ignore[reportAttributeAccessIssue]
        assert piece, said
        said += piece
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and out == b"" and b"Traceback" not in errors
    assert errors.decode().strip().endswith("lorasmith: interrupted")
    assert list(tmp_path.iterdir()) == []
