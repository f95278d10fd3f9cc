"""Reports of adapters as they are made, and policies that a merge holds its parents to."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from keys import write_key

from api.cli.main import main
from library.errors import AdapterRefused
from library.files import write_folder
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE, AdapterFiles, Provenance, finish
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, PeftFiles, to_peft
from verification.run import QUICK, reported, server_timing

LAYOUT = layout_of(tiny.config("llama"), ["q_proj", "v_proj"], rank=4)
BASE = {"id": "owner/base", "sha256": None, "source": "hub"}


def made(strength: float = 1.0, *, seed: int = 0) -> AdapterFiles:
    adapter = tiny.adapter(LAYOUT, seed=seed).scaled(strength)
    files: PeftFiles = to_peft(adapter, base_name="owner/base")
    return finish(files, Provenance("text-to-lora", None, "Add.", 0, "cpu", LAYOUT.digest, BASE))


def write_adapter(folder: Path, *, seed: int = 0) -> Path:
    write_folder(folder, made(seed=seed).files)
    return folder


def run(*words: Any) -> int:
    return main([str(word) for word in words])


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_a_report_changes_provenance_alone_and_holds_no_time() -> None:
    plain = made()
    one, other = reported(plain), reported(plain)
    assert one.files == other.files and (one.files.id, one.files.sha256) == (plain.id, plain.sha256)
    assert one.files.files[WEIGHTS_FILE] == plain.files[WEIGHTS_FILE]
    assert one.files.files[CONFIG_FILE] == plain.files[CONFIG_FILE]
    told = json.loads(one.files.files[PROVENANCE_FILE])
    assert told == {**json.loads(plain.files[PROVENANCE_FILE]), "report": one.report}
    assert one.report["verdict"] == "accept"
    assert set(one.report) == {"verdict", "findings"}
    assert set(one.milliseconds) == set(QUICK.hooks)
    assert all(part.count(";dur=") == 1 for part in server_timing(one.milliseconds).split(", "))


def test_what_a_hook_refuses_does_not_leave() -> None:
    with pytest.raises(AdapterRefused, match="format/not-finite"):
        reported(made(strength=1e39))


def test_a_merge_that_overflows_is_refused_and_a_sound_one_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parents = [write_adapter(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    out = tmp_path / "out"
    weights = ("--weights", "1e38", "1e38", "--out", out)
    assert run("compose", *parents, *weights) == 1
    assert "not-finite" in capsys.readouterr().err and not out.exists()
    assert run("compose", *parents, "--out", out, "--json") == 0
    found = answer(capsys)
    assert found["report"] == json.loads((out / PROVENANCE_FILE).read_text())["report"]
    assert found["report"]["verdict"] == "accept" and set(found["milliseconds"]) == {*QUICK.hooks}
    assert run("verify", out, "--json") == 0
    assert set(answer(capsys)["milliseconds"]) >= {"format", "integrity"}


def test_a_policy_takes_signed_parents_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = write_key(tmp_path, "ours")
    parents = [write_adapter(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    policy = tmp_path / "policy.json"
    policy.write_text('{"signed": true}')
    merge = ("compose", *parents, "--policy", policy)
    assert run(*merge, "--out", tmp_path / "a") == 2  # whose signature?
    assert run("verify", parents[0], "--policy", policy) == 2
    assert run("sign", parents[0], "--key", private) == 0
    assert run(*merge, "--public-key", public, "--out", tmp_path / "a") == 1
    assert f"{parents[1]} is refused, signature/unsigned" in capsys.readouterr().err
    assert run("sign", parents[1], "--key", private) == 0
    assert run(*merge, "--public-key", public, "--out", tmp_path / "a") == 0
    theirs = write_key(tmp_path, "theirs")[1]
    assert run(*merge, "--public-key", theirs, "--out", tmp_path / "b") == 1
    assert run("compose", *parents, "--public-key", tmp_path / "none", "--out", tmp_path / "b") == 2
    (parents[0] / WEIGHTS_FILE).write_bytes(made(0.5).files[WEIGHTS_FILE])
    assert run(*merge, "--public-key", public, "--out", tmp_path / "b") == 1
    assert not (tmp_path / "b").exists()
    policy.write_text('{"signed": 1}')
    assert run(*merge, "--public-key", public, "--out", tmp_path / "b") == 1


def test_a_parent_whose_provenance_names_no_base_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_adapter(tmp_path / "a")
    told = json.loads((folder / PROVENANCE_FILE).read_text()) | {"base": {}}
    (folder / PROVENANCE_FILE).write_text(json.dumps(told))
    assert run("compose", folder, "--out", tmp_path / "out") == 1
    assert "does not say what it is" in capsys.readouterr().err


def test_an_import_is_checked_before_and_reported_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, library = write_adapter(tmp_path / "theirs"), tmp_path / "lib"
    config = json.loads((folder / CONFIG_FILE).read_text())
    hostile = config | {"target_modules": "(.*)*_proj"}
    (folder / CONFIG_FILE).write_text(json.dumps(hostile))
    assert run("library", "import", folder, "--library", library) == 1
    assert "too-costly" in capsys.readouterr().err and not library.exists()
    (folder / CONFIG_FILE).write_text(json.dumps(config | {"use_rslora": True}))
    assert run("library", "import", folder, "--library", library) == 0
    (stored,) = (library / "adapters").iterdir()
    report = json.loads((stored / PROVENANCE_FILE).read_text())["report"]
    told = next(f for f in report["findings"] if f["code"] == "servers")
    assert set(told["evidence"]["servers"]) == {"sglang", "llama.cpp", "ollama"}
    assert run("verify", stored) == 0
