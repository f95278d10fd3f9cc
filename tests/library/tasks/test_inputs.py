"""Inputs without answers: however they are written down they are the same texts."""

import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.errors import MissingPath, TaskFileError
from library.tasks.identity import inputs_digest
from library.tasks.inputs import read_inputs

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
LINES = st.lists(TEXTS.filter(lambda text: bool(text.strip())), min_size=1, max_size=6)


@given(LINES)
def test_json_lines_hold_any_text(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("inputs")
    strings = "\n".join(json.dumps(text) for text in texts)
    objects = "\n\n".join(json.dumps({"input": text, "output": "?"}) for text in texts)
    for number, content in enumerate((strings, objects, "\ufeff" + objects)):
        for name in (f"{number}.jsonl", f"{number}", f"{number}.txt"):
            (folder / name).write_text(content, encoding="utf-8")
            assert read_inputs(folder / name) == tuple(texts)
        packed = folder / f"{number}.jsonl.gz"
        packed.write_bytes(gzip.compress(content.encode()))
        assert read_inputs(packed) == tuple(texts)


def test_a_plain_text_has_one_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(b'  The vase is broken. \r\n\r\n12\n[late]\n"never" came\n')
    found = ("The vase is broken.", "12", "[late]", '"never" came')
    assert read_inputs(file) == found
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert read_inputs(Path("-")) == found


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a", b"", "holds no inputs"),
        ("a.jsonl", b"\n \n", "holds no inputs"),
        ("a.jsonl", b"plain text", "line 1: not JSON"),
        ("a", b'"one"\ntwo\n', "line 2: not JSON"),
        ("a", b'{"input": "one"}\n{"text": "two"}', "line 2: 'input' is missing"),
        (
            "a",
            b'{"input": "one"}\n["two"]',
            'line 2: neither text nor an object with a text "input"',
        ),
        ("a", b'{"input": 1}', 'line 1: neither text nor an object with a text "input"'),
        ("a", b'"one"\n" "', "line 2: the input is empty"),
        ("a", b'"\\ud800"', "line 1: a text holds half of a surrogate pair"),
        ("a", b"\xff\xfe", "not UTF-8"),
        ("a.jsonl", b"[" * 100_000, "line 1: nested too deeply"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskFileError, match=words) as raised:
        read_inputs(tmp_path / name)
    assert "\n" not in str(raised.value) and str(tmp_path / name) in str(raised.value)


def test_there_has_to_be_a_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(MissingPath):
            read_inputs(path)


@given(LINES, LINES)
def test_the_digest_is_of_the_texts_in_their_order(one: list[str], other: list[str]) -> None:
    assert (inputs_digest(one) == inputs_digest(other)) == (one == other)
    assert inputs_digest(tuple(one)) == inputs_digest(one)
