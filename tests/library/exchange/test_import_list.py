"""Several adapters at once: a list with a line for each."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
from round_trip import Q_AND_V, WEIGHTS, run, stored, with_adapter

LINES = [
    {"source": "a0", "task": "zero", "description": "Say zero.", "license": "MIT"},
    {"source": "a1", "description": " Say one. ", "base": "o/other"},
    {"source": "a2"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three adapters beside their list."""
    folder = tmp_path / "adapters"
    for n in range(3):
        model = with_adapter(peft.LoraConfig(r=n + 1, target_modules=Q_AND_V))
        model.save_pretrained(folder / f"a{n}")
    write(folder, LINES)
    return folder


def write(folder: Path, lines: list[Any]) -> None:
    text = "\n\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "list.jsonl").write_text(text)


def test_a_list_is_the_imports_of_its_lines(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring = ("import", folder / "list.jsonl", "--library", tmp_path / "lib", "--base", "o/base")
    assert run(*bring) == 0
    one, two, zero = stored(tmp_path / "lib")
    said = ("task", "description", "base_model", "licenses")
    assert [one[key] for key in said] == ["a1", "Say one.", "o/other", []]
    assert [two[key] for key in said] == ["a2", "a2", "o/base", []]
    assert [zero[key] for key in said] == ["zero", "Say zero.", "o/base", ["MIT"]]
    for record, name in ((one, "a1"), (two, "a2"), (zero, "a0")):
        kept = tmp_path / "lib" / "adapters" / record["id"] / WEIGHTS
        assert run("export", record["id"], "--library", tmp_path / "lib", "--out",
                   tmp_path / name) == 0  # fmt: skip
        assert kept.is_file()
        assert (tmp_path / name / WEIGHTS).read_bytes() == (folder / name / WEIGHTS).read_bytes()
    capsys.readouterr()
    assert run(*bring) == 0
    assert capsys.readouterr().out.count("was there already") == 3
    assert len(stored(tmp_path / "lib")) == 3


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ({"task": "a"}, 1, "line 3: it must have source"),
        ({"source": "a0", "rank": "8"}, 1, "line 3: it must have source, and may have task"),
        ({"source": 1}, 1, "line 3: every value must be text"),
        ("{", 1, "line 3"),
        ({"source": "none-such"}, 2, "no adapter at none-such"),
        ({"source": "a0", "description": " "}, 2, "empty"),
    ],
)
def test_a_list_with_a_bad_line_stores_nothing(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    line: Any,
    code: int,
    words: str,
) -> None:
    write(folder, [LINES[0], line])
    capsys.readouterr()
    library = tmp_path / "lib"
    assert run("import", folder / "list.jsonl", "--library", library, "--base", "o/b") == code
    assert words in tiny.one_sentence(capsys.readouterr())
    assert not library.exists()


def test_lists_that_make_no_sense_say_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, library = folder / "list.jsonl", tmp_path / "lib"
    assert run("import", folder / "none.jsonl", "--library", library) == 2
    assert "no file" in tiny.one_sentence(capsys.readouterr())
    assert run("import", file, "--library", library, "--task", "x") == 2
    assert "lines say task" in tiny.one_sentence(capsys.readouterr())
    write(folder, [])
    assert run("import", file, "--library", library) == 1
    assert "lists no adapter" in tiny.one_sentence(capsys.readouterr())
    assert not library.exists()
