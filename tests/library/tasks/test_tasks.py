"""Task files: three formats, the splits, what is found beside them, and malformed files."""

import gzip
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.main import main
from library.base.prompts import answer_ids, prompt_ids, user_turn
from library.errors import MissingPath, TaskFileError
from library.files import require_present
from library.tasks.files import (
    Example,
    Task,
    read_examples,
    read_task,
    read_tasks,
    task_files,
)


def write_gz(path: Path, rows: list[Any]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def head(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "task", "name": name, "definition": [f"Do {name}."], **more}


def instance(i: int, output: Any) -> dict[str, Any]:
    return {"kind": "instance", "id": f"i{i}", "input": f"in {i}", "output": output}


def task_of(rows: int) -> Task:
    made = tuple(Example(str(i), f"in {i}", (f"out {i}",)) for i in range(rows))
    return Task("t", "Do it.", made)


def test_the_three_formats_say_the_same(tmp_path: Path) -> None:
    write_gz(tmp_path / "one.jsonl.gz", [head("one"), instance(0, ["a", "b"]), instance(1, "c")])
    sni = {
        "Definition": ["Do one."],
        "Categories": ["QA"],
        "Instances": [
            {"id": "i0", "input": "in 0", "output": ["a", "b"]},
            {"input": "in 1", "output": "c"},
        ],
    }
    (tmp_path / "two.json").write_text(json.dumps(sni))
    plain = [{"input": "in 0", "output": ["a", "b"]}, {"input": "in 1", "output": "c"}]
    (tmp_path / "three.jsonl").write_text("\n\n".join(json.dumps(row) for row in plain))
    (tmp_path / "three.txt").write_text("Do one.\n")
    tasks = read_tasks(tmp_path)
    assert [task.name for task in tasks] == ["one", "three", "two"]  # by name
    for task in tasks:
        assert task.definition == "Do one."
        assert [row.input for row in task.instances] == ["in 0", "in 1"]
        assert [row.outputs for row in task.instances] == [("a", "b"), ("c",)]
        assert len({row.id for row in task.instances}) == 2
    assert tasks[2].categories == ("QA",)
    assert read_tasks(tmp_path / "two.json") == [read_task(tmp_path / "two.json")]


def test_the_task_line_carries_what_the_reports_need(tmp_path: Path) -> None:
    more = {
        "definition": "Two\nlines. ",
        "summary": "Short.",
        "categories": ["QA"],
        "source": ["web"],
        "license": ["MIT"],
        "heldout_kind": "category",
    }
    task = read_task(write_gz(tmp_path / "f.jsonl.gz", [head("t", **more), instance(0, "a")]))
    assert task.name == "t"
    assert task.definition == "Two\nlines."
    assert (task.categories, task.sources, task.licenses) == (("QA",), ("web",), ("MIT",))
    assert task.heldout_kind == "category"
    assert task.descriptions == ("Two\nlines.", "Short.")


@pytest.mark.parametrize("rows", [1, 30, 40, 45, 60, 61, 100, 260, 500])
def test_splits_follow_file_order_and_never_overlap(rows: int) -> None:
    task = task_of(rows)
    ids = [int(row.id) for row in task.instances]
    test, tune, train = ([int(r.id) for r in part] for part in (task.test, task.tune, task.train))
    assert test == ids[max(0, rows - 40) :]
    assert tune == ids[max(0, rows - 60) : max(0, rows - 40)]
    assert train == ids[: max(0, min(200, rows - 60))]
    assert not set(train) & set(tune) | set(tune) & set(test) | set(train) & set(test)


@pytest.mark.parametrize("beside", ["folder", "parent"])
def test_paraphrases_and_licence_classes_are_found_beside(tmp_path: Path, beside: str) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    place = folder if beside == "folder" else tmp_path
    for name in ("a", "b"):
        write_gz(folder / f"{name}.jsonl.gz", [head(name), instance(0, "x")])
    write_gz(place / "descriptions.jsonl.gz", [{"task": "a", "descriptions": ["p", "q"]}])
    write_gz(place / "descriptions_extra.jsonl.gz", [{"task": "b", "descriptions": ["r"]}])
    (place / "index.csv").write_text("task,license_class\na,permissive\n")
    (place / "index_extra.csv").write_text("task,license_class\nb,unknown\n")
    a, b = read_tasks(folder)
    assert a.descriptions == ("Do a.", "p", "q")
    assert b.paraphrases == ("r",)
    assert (a.license_class, b.license_class) == ("permissive", "unknown")
    assert [file.name for file in task_files(folder)] == ["a.jsonl.gz", "b.jsonl.gz"]


TEXTS = st.lists(
    st.text("ab #-\n").map("{}w".format).map(str.strip), min_size=1, max_size=8, unique=True
)


@given(TEXTS, st.sampled_from(["\n---\n", "\n\n---  \n", "\r\n---\r\n"]))
def test_a_plain_task_has_the_paraphrases_beside_it(texts: list[str], between: str) -> None:
    texts = [text for text in texts if "---" not in text.split("\n")] or ["w"]
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "one.jsonl").write_text('{"input": "a", "output": "b"}')
        (folder / "one.txt").write_text("Do it.")
        assert read_task(folder / "one.jsonl").paraphrases == ()
        file = folder / "one.paraphrases.txt"
        file.write_bytes(between.join(texts).encode())
        (found,) = read_tasks(folder)
        assert found.paraphrases == tuple(texts) and found.definition == "Do it."
        for broken in ([*texts, texts[0]], [*texts, " "], []):
            file.write_text(between.join(broken))
            with pytest.raises(TaskFileError, match=r"one\.paraphrases.*empty or there twice"):
                read_tasks(folder)


@pytest.mark.parametrize("header", ["task,url", "name,license_class"])
def test_a_table_of_other_things_has_no_licence_classes(tmp_path: Path, header: str) -> None:
    write_gz(tmp_path / "a.jsonl.gz", [head("a"), instance(0, "x")])
    (tmp_path / "index.csv").write_text("task,license_class\na,permissive\n")
    (tmp_path / "index_other.csv").write_text(f"{header}\na,other\n")
    assert read_tasks(tmp_path)[0].license_class == "permissive"


MALFORMED: dict[str, bytes] = {
    "empty.jsonl.gz": gzip.compress(b""),
    "not-gzip.jsonl.gz": b"plain text",
    "cut-short.jsonl.gz": gzip.compress(json.dumps(head("t")).encode() * 50)[:-12],
    "broken-stream.jsonl.gz": gzip.compress(b"x")[:10] + b"\xff" * 20,
    "not-json.jsonl.gz": gzip.compress(b"{"),
    "not-an-object.jsonl.gz": gzip.compress(b"[1]\n"),
    "no-task-line.jsonl.gz": gzip.compress(json.dumps(instance(0, "a")).encode()),
    "no-instances.jsonl.gz": gzip.compress(json.dumps(head("t")).encode()),
    "row-not-an-object.jsonl.gz": gzip.compress(json.dumps(head("t")).encode() + b"\n3\n"),
    "not-utf8.json": b'{"Definition": "\xff"}',
    "list.json": b"[]",
    "no-definition.json": b'{"Instances": []}',
    "rows-not-a-list.json": b'{"Definition": "d", "Instances": 3}',
    "row-not-an-object.json": b'{"Definition": "d", "Instances": ["x"]}',
    "number-as-output.json": b'{"Definition": "d", "Instances": [{"input": "a", "output": 1}]}',
    "number-among-outputs.json": b'{"Definition": "d", "Instances": [{"input": "a", '
    b'"output": ["b", 1]}]}',
    "surrogate-output.json": b'{"Definition": "d", "Instances": [{"input": "a", '
    b'"output": ["b", "\\udfff"]}]}',
    "no-outputs.json": b'{"Definition": "d", "Instances": [{"input": "a", "output": []}]}',
    "without-description.jsonl": b'{"input": "a", "output": "b"}',
    "without-definition.json": b'{"Definition": [], "Instances": [{"input": "a", "output": "b"}]}',
    "surrogate.json": b'{"Definition": "d", "Instances": [{"input": "\\ud800", "output": "b"}]}',
    "surrogate-definition.json": b'{"Definition": "\\ud800", "Instances": [{"input": "a", '
    b'"output": "b"}]}',
    "nested.json": b"[" * 100_000,
    "same-id.json": b'{"Definition": "d", "Instances": [{"id": "x", "input": "a", "output": "b"}, '
    b'{"id": "x", "input": "c", "output": "d"}]}',
}


def test_a_broken_line_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Do it.")
    (tmp_path / "a.jsonl").write_text('{"input": "a", "output": "b"}\n\n{"input": "a"\n')
    with pytest.raises(TaskFileError, match="line 3: "):
        read_task(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(MALFORMED[name])
    with pytest.raises(TaskFileError, match=name):
        read_task(tmp_path / name)
    with pytest.raises(TaskFileError, match=name):
        read_tasks(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("descriptions.jsonl.gz", gzip.compress(b'{"task": "a"}', mtime=0)),
        ("descriptions.jsonl.gz", b"plain text"),
        ("descriptions.jsonl.gz", gzip.compress(b"[1]", mtime=0)),
        ("index.csv", b"task,license_class\n\xff,x\n"),
    ],
)
def test_a_malformed_file_beside_the_tasks_is_named(
    tmp_path: Path, name: str, content: bytes
) -> None:
    write_gz(tmp_path / "a.jsonl.gz", [head("a"), instance(0, "x")])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskFileError, match=name):
        read_tasks(tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"input": "a", "output": "b"}\n', encoding="utf-8-sig")
    (tmp_path / "a.txt").write_text("Do it.", encoding="utf-8-sig")
    assert read_task(tmp_path / "a.jsonl").definition == "Do it."


def test_missing_empty_and_doubled(tmp_path: Path) -> None:
    for read in (read_task, read_tasks, read_examples):
        with pytest.raises(MissingPath, match="nowhere"):
            read(tmp_path / "nowhere")
    with pytest.raises(TaskFileError, match="no task files"):
        read_tasks(tmp_path)
    write_gz(tmp_path / "x.jsonl.gz", [head("same"), instance(0, "a")])
    write_gz(tmp_path / "y.jsonl.gz", [head("same"), instance(0, "a")])
    with pytest.raises(TaskFileError, match="same"):
        read_tasks(tmp_path)


def test_examples_are_rows_of_input_and_output(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    rows = ['{"input": "a", "output": "b"}', '{"input": "c", "output": ["d", "e"]}']
    file.write_text("\n".join([*rows, '{"input": "f", "outputs": ["g", "h"]}']))
    assert [(row.input, row.outputs) for row in read_examples(file)] == [
        ("a", ("b",)),
        ("c", ("d", "e")),
        ("f", ("g", "h")),
    ]
    for content in (
        "", "{}", "[1]", "3", '{"input": "a"}', '{"input": 1, "output": "b"}', "{",
        '{"input": "a", "outputs": []}', '{"input": "a", "outputs": null}',
    ):  # fmt: skip
        file.write_text(content)
        with pytest.raises(TaskFileError, match=r"examples\.jsonl"):
            read_examples(file)


def test_prompts_are_bare_or_hold_the_definition_and_end_where_the_answer_starts() -> None:
    from library.base.models import load_tokenizer, resolve_base

    tokenizer = load_tokenizer(resolve_base())
    assert user_turn("bare", "Define.", "input") == "input"
    assert user_turn("prompted", "Define.", "input") == "Define.\n\ninput"
    text = tokenizer.decode(prompt_ids(tokenizer, "What is 2024?"))
    assert text.endswith("<|im_start|>user\nWhat is 2024?<|im_end|>\n<|im_start|>assistant\n")
    assert text.startswith("<|im_start|>system\n")
    # The packaged tokenizer, repaired, cuts numbers into digits.
    digits = tokenizer("2024", add_special_tokens=False)["input_ids"]
    assert [tokenizer.decode([i]) for i in digits] == ["2", "0", "2", "4"]
    answer = answer_ids(tokenizer, "Yes.")
    assert tokenizer.decode(answer) == "Yes.<|im_end|>"
    tokenizer.chat_template = None
    assert tokenizer.decode(prompt_ids(tokenizer, "Hi")) == "Hi\n"


def test_rows_without_a_kind_are_instances_and_others_are_left_out(tmp_path: Path) -> None:
    rows = [{"input": "a", "output": "b"}, {"kind": "remark"}, instance(7, "c")]
    task = read_task(write_gz(tmp_path / "t.jsonl.gz", [head("t"), *rows]))
    assert [row.input for row in task.instances] == ["a", "in 7"]
    assert len({row.id for row in task.instances}) == 2


def test_check_names_each_kind_of_fault_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(7):
        rows = [head(f"t{n}"), instance(0, "a"), {"kind": "instance", "id": n, "input": "x"}]
        write_gz(tmp_path / f"t{n}.jsonl.gz", rows)
    (tmp_path / "u.json").write_text('{"Definition": "d", "Instances": [{"input": 1}]}')
    write_gz(tmp_path / "v.jsonl.gz", [head("v"), {"input": 1, "output": "b"}])
    write_gz(tmp_path / "w.jsonl.gz", [head("w"), {"input": "a", "output": "b"}])
    assert main(["tasks", "check", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "10 task files, 9 broken\n"
    missing, text = captured.err.splitlines()
    assert missing.startswith("'output' is missing: 8 files: t0.jsonl.gz (line 3), t1")
    assert "t4.jsonl.gz (line 3), …" in missing and "t5" not in missing
    assert text == f"{tmp_path}/v.jsonl.gz, line 2: input and output must be text"


@pytest.mark.parametrize("form", ["ours", "packed", "sni"])
@pytest.mark.parametrize("channel", ["pipe", "standard input"])
def test_a_task_is_read_from_a_pipe_and_from_standard_input(
    form: str,
    channel: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = write_gz(tmp_path / "t.jsonl.gz", [head("t"), instance(0, "a")])
    sni = {"Definition": "Do t.", "Instances": [{"input": "in 0", "output": "a"}]}
    content = {
        "ours": gzip.decompress(file.read_bytes()),
        "packed": file.read_bytes(),
        "sni": json.dumps(sni, indent=1).encode(),
    }[form]
    for command in ("check", "list"):
        with piped(content, channel, monkeypatch) as path:
            assert main(["tasks", command, path]) == 0
    assert "Do t." in capsys.readouterr().out


@pytest.mark.parametrize("channel", ["pipe", "standard input"])
def test_examples_are_read_from_a_pipe_and_from_standard_input(
    channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with piped(b'{"input": "a", "output": "b"}\n', channel, monkeypatch) as path:
        require_present(Path(path))
        assert read_examples(Path(path)) == [Example("row-0", "a", ("b",))]


@contextmanager
def piped(content: bytes, channel: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The path of a pipe with this content (as of `<(...)`), or `-`."""
    if channel == "standard input":
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        yield "-"
        return
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    try:
        yield f"/dev/fd/{read}"
    finally:
        os.close(read)
