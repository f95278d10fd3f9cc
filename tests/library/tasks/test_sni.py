"""Task files rebuilt from SNI by the manifest: equal to the originals, or named."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.cli.main import main
from library.errors import TaskFileError
from library.files import write_folder
from library.tasks import sni_manifest
from library.tasks.files import read_tasks
from library.tasks.sni import rebuild_tasks
from library.tasks.sni_manifest import (
    SHIPPED,
    SPLITS,
    index_bytes,
    make_manifest,
    read_sni_manifest,
)

NAMES = dict(zip(SPLITS, ("task1_first", "task22_second", "task333_third"), strict=True))
Row = tuple[str, list[str]]
EXAMPLES = [{"input": f"{i}\n", "output": "x", "explanation": f"For {i}"} for i in range(3)]


def identity(name: str, number: int) -> str:
    return f"{name.split('_')[0]}-{random.Random(f'{name} {number}').getrandbits(128):032x}"


def write_tasks(folder: Path, rows: list[Row]) -> None:
    """Our files: one task a split, all with the same rows."""
    index = {}
    for split, name in NAMES.items():
        labels = sorted({answers[0] for _, answers in rows})
        lines = [{
            "kind": "task", "id": name.split("_")[0], "name": name, "categories": ["QA"],
            "domains": ["News"], "definition": f"Do {name}.",
            "summary": "" if split == "train_extra" else f"It is {name}",
            "positive_examples": EXAMPLES[1 : 2 if split == "train" else 3],
            "type": "classification" if len(labels) <= 20 else "generation",
            "labels": labels if len(labels) <= 20 else None, "split": split.replace("_", "-"),
            "heldout_kind": "", "source": ["web"], "url": ["a.org"], "license": ["MIT", "GPL"],
        }]  # fmt: skip
        lines += [
            {"kind": "instance", "id": identity(name, i), "input": row[0], "output": row[1]}
            for i, row in enumerate(rows)
        ]
        (folder / split).mkdir(parents=True)
        with gzip.open(folder / split / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        index[split] = {"task": name, "split": split.replace("_", "-"), "n": f"{len(rows)}"}
    (folder / "index.csv").write_bytes(index_bytes([index["public_heldout"], index["train"]]))
    (folder / "index_extra.csv").write_bytes(index_bytes([index["train_extra"]]))


def write_clone(folder: Path, rows: list[Row], seed: int) -> None:
    """SNI's files for the same tasks: more instances in another order, more answers, spaces."""
    folder.mkdir(parents=True)
    table = "Name | Summary | Category\n---- | ----- | ----\n"
    for name in NAMES.values():
        instances = [{"id": identity(name, i), "input": "", "output": ["x"]} for i in (-1, -2)]
        for i, (text, answers) in enumerate(rows):
            more = [answers[0], "", *(f"{answer} " for answer in answers), *["too many"] * 2]
            instances.append({"id": identity(name, i), "input": f" {text}\n", "output": more})
        random.Random(seed).shuffle(instances)
        content = {
            "Source": ["web"], "URL": ["a.org"], "Categories": ["QA"], "Domains": ["News"],
            "Definition": [f"Do {name}. "], "Instance License": ["MIT", "GPL"],
            "Positive Examples": EXAMPLES, "Instances": instances,
        }  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(content, indent=4))
        table += f"`{name}`\t| It is {name}\t| QA\n"
    (folder / "README.md").write_text(table)


def prepare(folder: Path, rows: list[Row], seed: int) -> None:
    write_tasks(folder / "tasks", rows)
    write_clone(folder / "clone" / "tasks", rows, seed)
    write_folder(folder / "manifest", make_manifest(folder / "tasks"))


TEXT = st.text(st.characters(codec="utf-8"), min_size=1).map(str.strip).filter(bool)
ROW = st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=5, unique=True))


@given(st.lists(ROW, min_size=1, max_size=30), st.integers(0, 99))
@example([(f"{i}", [f"{i}"]) for i in range(20)], 0)  # the most labels
@example([(f"{i}", [f"{i}"]) for i in range(21)], 0)
def test_an_import_gives_back_the_same_tasks(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("sni")
    prepare(folder, rows, seed)
    wanted = read_sni_manifest(folder / "manifest")
    rebuilt = rebuild_tasks(folder / "clone", wanted, lambda done, total: None)
    assert (rebuilt.problems, rebuilt.tasks) == ((), 3)
    assert rebuilt == rebuild_tasks(folder / "clone" / "tasks", wanted, lambda done, total: None)
    write_folder(folder / "out", rebuilt.files)
    for split in SPLITS:
        assert read_tasks(folder / "out" / split) == read_tasks(folder / "tasks" / split)
    for name in ("index.csv", "index_extra.csv"):
        assert (folder / "out" / name).read_bytes() == (folder / "tasks" / name).read_bytes()


FOURTH = identity("task1_first", 3)
DAMAGE: list[tuple[str, str, Callable[[Any], Any] | None]] = [
    ("does not exist", "", None),
    (f"lacks 1 of 9 instances, the first {FOURTH[:16]}", "Instances",
     lambda rows: [row for row in rows if row["id"] != FOURTH]),
    ("an input or an answer has changed", "Instances",
     lambda rows: [r | {"output": ["no"] if r["id"] == FOURTH else r["output"]} for r in rows]),
    ("its definition, summary", "Definition", lambda _: ["Do not."]),
    ("summary, examples", "Positive Examples", lambda examples: examples[:1]),
    ("or licence has changed", "Instance License", lambda _: ["MIT"]),
    ("cannot be used: AttributeError", "Instances", lambda _: ["x"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "key", "change"), DAMAGE)
def test_what_is_missing_or_different_is_named_and_the_rest_written(
    words: str, key: str, change: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    prepare(tmp_path, [(f"in {i}", [f"out {i}", "b"]) for i in range(9)], 0)
    monkeypatch.setattr(sni_manifest, "SHIPPED", tmp_path / "manifest")
    out, file = tmp_path / "out", tmp_path / "clone" / "tasks" / "task1_first.json"
    if change is None:
        file.unlink()
    else:
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {key: change(content[key])}))
    command = ["tasks", "import", str(tmp_path / "clone"), "--sni", "--out", str(out)]
    assert main(command) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("2 of 3 tasks")
    named = [line for line in shown.err.splitlines() if line.startswith("task1_first: ")]
    assert len(named) == 1 and words in named[0]
    names = sorted(file.name for file in out.rglob("*.gz"))
    assert names == ["task22_second.jsonl.gz", "task333_third.jsonl.gz"]
    assert main([*command, "--overwrite", "--split", "train"]) == 1  # none left: `out` stays
    assert (out / "train_extra").exists()
    assert main([*command, "--overwrite", "--split", "public_heldout"]) == 0
    assert not (out / "train_extra").exists()


def test_the_shipped_manifest_lists_our_tasks() -> None:
    tasks = read_sni_manifest(SHIPPED)
    splits = [task.split for task in tasks]
    assert [splits.count(name) for name in SPLITS] == [261, 302, 34]
    assert sum(len(task.ids) for task in tasks) == 141_502
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 2e6


def test_a_manifest_refuses_ids_that_are_not_of_sni(tmp_path: Path) -> None:
    write_tasks(tmp_path, [("in", ["out"])])
    file = tmp_path / "train" / "task1_first.jsonl.gz"
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()).replace(b"task1-", b"a-")))
    with pytest.raises(TaskFileError, match="is not an id of SNI"):
        make_manifest(tmp_path)
