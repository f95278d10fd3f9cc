"""Inputs of a task without answers, as users have them: JSON lines, or a text with one a line."""

import io
import json
from pathlib import Path
from typing import Any

from library.errors import TaskFileError
from library.files import read_input
from library.tasks.files import file_text, locating

JSON_SUFFIXES = (".jsonl", ".jsonl.gz")


def read_inputs(path: Path) -> tuple[str, ...]:
    """The inputs in a file, a pipe or `-`.

    JSON lines of {"input"} or of strings, where the name ends so or the first line is one; other
    members of an object are not read. Else every line is an input. Blank lines are left out.
    Raises MissingPath or TaskFileError.
    """
    content = read_input(path)
    with locating(path):
        text = file_text(content, path)
    numbered = enumerate(io.StringIO(text, newline=None), 1)
    lines = [(number, line.strip()) for number, line in numbered if line.strip()]
    if not lines:
        raise TaskFileError(f"{path} holds no inputs")
    if not (path.name.endswith(JSON_SUFFIXES) or _is_row(lines[0][1])):
        return tuple(line for _, line in lines)
    inputs = []
    for number, line in lines:
        with locating(path, f"line {number}"):
            inputs.append(_input(json.loads(line)))
    return tuple(inputs)


def _is_row(line: str) -> bool:
    """Whether a line is JSON as inputs are: an object or a string."""
    try:
        return isinstance(json.loads(line), dict | str)
    except (ValueError, RecursionError):
        return False


def _input(value: Any) -> str:
    text = value["input"] if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise ValueError('neither text nor an object with a text "input"')
    if not text.strip():
        raise ValueError("the input is empty")
    text.encode("utf-8")  # JSON can hold lone surrogates, which no tokenizer takes
    return text
