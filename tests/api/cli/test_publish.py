"""Names on the command line: publish, promote, rollback, and the same names over REST."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny

import lorasmith
from api.cli.main import main
from api.service.store import LOCAL, local_store
from library.peft.provenance import PROVENANCE_FILE, README_FILE
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE

INPUTS = [f"row {i}" for i in range(10)]


@pytest.fixture(scope="module")
def folders(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two adapters of the tiny base: one answers yes, the other no, or nearly."""
    place, made = tmp_path_factory.mktemp("made"), []
    for word in ("yes", "no"):
        pairs = [(text, word) for text in INPUTS]
        adapter = lorasmith.refine(pairs, base=str(tiny_base), steps=40)
        made.append(adapter.save(place / word))
    return made[0], made[1]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORASMITH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def write_suite(path: Path, answers: list[str]) -> str:
    rows = [
        {"input": text, "outputs": [answer, "never said"]}
        for text, answer in zip(INPUTS, answers, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """The object that a command prints."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_version_moves_forward_by_the_gate_alone_and_back_without(
    folders: tuple[Path, Path], tiny_base: Path, tmp_path: Path, capsys: Any
) -> None:
    first = lorasmith.answer(INPUTS, folders[0], base=str(tiny_base))
    second = lorasmith.answer(INPUTS, folders[1], base=str(tiny_base))
    same = sum(one == other for one, other in zip(first, second, strict=True))
    assert same < len(INPUTS)
    suite = write_suite(tmp_path / "suite.jsonl", first)
    published = said(capsys, "publish", "router", str(folders[0]), "--suite", suite)
    assert (published["version"], published["new"], published["suite"]["rows"]) == (1, True, 10)
    moved = said(capsys, "promote", "router", "--at-least", "10")
    assert (moved["name"], moved["action"], moved["from"], moved["to"]) == (
        "router", "promoted", None, 1,
    )  # fmt: skip
    assert said(capsys, "publish", "router", str(folders[1]))["version"] == 2
    refused = said(capsys, "promote", "router", code=1)
    assert refused["action"] == "refused"
    assert refused["scores"] == {"from": 10, "to": same, "of": 10, "at_least": None}
    own = write_suite(tmp_path / "own.jsonl", second)
    again = said(capsys, "publish", "router", str(folders[1]), "--suite", own)
    assert (again["version"], again["new"]) == (2, False)
    assert said(capsys, "promote", "router@v2")["action"] == "promoted"
    assert said(capsys, "names", "show", "router")["current"] == 2
    assert said(capsys, "rollback", "router")["to"] == 1
    shown = said(capsys, "names", "show", "router")
    assert [m["action"] for m in shown["history"]] == [
        "promoted", "refused", "promoted", "rolled-back",
    ]  # fmt: skip
    listed = said(capsys, "names", "list")
    assert listed == {"names": [{"name": "router", "current": 1, "newest": 2}]}


def test_a_published_folder_is_kept_as_it_is(folders: tuple[Path, Path], capsys: Any) -> None:
    published = said(capsys, "publish", "router", str(folders[0]))
    record = local_store().get(LOCAL, published["adapter"])
    summary = json.loads((folders[0] / PROVENANCE_FILE).read_text())
    assert record["id"] == summary["id"]
    for field in ("sha256", "generator", "layout_digest", "seed", "usage", "expected"):
        assert record[field] == summary[field]
    assert record["refined"] == summary["details"]["refine"]
    for name in (CONFIG_FILE, WEIGHTS_FILE, PROVENANCE_FILE, README_FILE):
        content, _ = local_store().read(LOCAL, record["id"], name)
        assert content == (folders[0] / name).read_bytes()


def test_for_a_person_each_says_what_happened(
    folders: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    suite = write_suite(tmp_path / "suite.jsonl", ["x"] * 10)
    assert main(["publish", "router", str(folders[0]), "--suite", suite]) == 0
    assert "router@v1  ad_" in capsys.readouterr().out
    assert main(["promote", "router", "--at-least", "1"]) == 1
    assert capsys.readouterr().out == (
        "router@v1  refused  0 of 10 rows, at least 1 asked for\n"
    )  # fmt: skip
    assert main(["promote", "router"]) == 0
    assert main(["publish", "router", str(folders[1])]) == 0
    assert main(["promote", "router"]) == 0
    assert capsys.readouterr().out.endswith("router@v2  promoted  0 of 10 rows, v1 0\n")
    assert main(["rollback", "router"]) == 0
    assert capsys.readouterr().out == "router@v1  rolled-back  from v2\n"
    assert main(["names", "list"]) == 0
    assert capsys.readouterr().out == "router  current v1  newest v2\n"
    assert main(["names", "show", "router"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("  current") and "a suite of 10 rows" in lines[2] and len(lines) == 7
    assert main(["names", "delete", "router"]) == 0
    assert capsys.readouterr().out == "router is deleted\n"
    assert main(["publish", "router", str(folders[0])]) == 0
    assert capsys.readouterr().out.startswith("router@v3  ad_")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["publish", "Router", "ADAPTER"], 2, "a name is 1 to 63"),
        (["publish", "router", "nowhere"], 2, "nothing at nowhere"),
        (["publish", "router", "ADAPTER", "--suite", "nowhere"], 2, "nothing at nowhere"),
        (["publish", "router", "ADAPTER", "--suite", "BROKEN"], 1, "line 1"),
        (["publish", "router", "EMPTY"], 1, "refused"),
        (["promote", "router"], 1, "no such name"),
        (["promote", "router@v0"], 2, "NAME or NAME@v2"),
        (["promote", "router@current"], 2, "NAME or NAME@v2"),
        (["promote", "router", "--at-least", "0"], 2, "--at-least"),
        (["promote", "router", "--base", "nonsense"], 2, "not a known base model"),
        (["rollback", "router"], 1, "no such name"),
        (["names", "show", "router"], 1, "no such name"),
        (["names", "delete", "\ud800"], 1, "no such name"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_what_is_wrong_is_said_in_one_sentence(
    folders: tuple[Path, Path], tmp_path: Path, capsys: Any, data: Path,
    arguments: list[str], code: int, words: str,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").write_text("{")
    places = {
        "ADAPTER": str(folders[0]),
        "EMPTY": str(tmp_path / "empty"),
        "BROKEN": str(tmp_path / "broken"),
    }
    assert main([places.get(word, word) for word in arguments]) == code
    assert words in tiny.one_sentence(capsys.readouterr())
    assert not (data / "adapters").exists()


def test_what_verification_refuses_is_not_published(
    folders: tuple[Path, Path], tmp_path: Path, capsys: Any, data: Path
) -> None:
    damaged = shutil.copytree(folders[0], tmp_path / "damaged")
    shutil.copyfile(folders[1] / WEIGHTS_FILE, damaged / WEIGHTS_FILE)
    assert main(["publish", "router", str(damaged)]) == 1
    assert "sha256-differs" in tiny.one_sentence(capsys.readouterr())
    foreign = shutil.copytree(folders[0], tmp_path / "foreign")
    (foreign / PROVENANCE_FILE).unlink()
    assert main(["publish", "router", str(foreign)]) == 1
    assert "no provenance.json with its id" in tiny.one_sentence(capsys.readouterr())
    assert not (data / "adapters").exists()
