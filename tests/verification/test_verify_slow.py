"""`lorasmith verify` with the slow hooks: asked for by name or policy, and never by default."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from api.cli.main import main
from library.base.models import load_config, resolve_base
from library.base.usage import Usage
from library.errors import BaseModelError
from library.files import write_folder
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from library.store.catalogue import files_of, records
from library.store.open import open_library
from library.tasks.files import Example
from library.tasks.identity import examples_digest
from verification.artifact import Artifact, Context, read_artifact
from verification.hook import Finding, Hook
from verification.run import HOOKS, Policy, run_hooks

QUICK = {"format", "integrity", "expected", "signature", "target", "statistics", "base"}


@pytest.fixture(scope="module")
def adapter(small_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One adapter of the small library, as a folder."""
    folder = open_library(str(small_library / "lib"))
    out = tmp_path_factory.mktemp("adapters") / "one"
    write_folder(out, files_of(folder, records(folder)[0]["id"]))
    return out


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    code = main(["verify", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    """The one sentence of a command line that is wrong."""
    assert main(["verify", *map(str, arguments)]) == code
    found = capsys.readouterr()
    assert not found.out and found.err.count("\n") == 1
    return found.err


def test_the_default_is_the_quick_hooks(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(told(capsys, adapter)[1]["milliseconds"]) == QUICK


def test_hooks_are_added_by_name(
    adapter: Path, small_library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ("--hooks", "neighbours, screening", "--library", small_library / "lib")
    code, answer = told(capsys, adapter, *wanted)
    assert code == 0
    assert set(answer["milliseconds"]) == {*QUICK, "screening", "neighbours"}
    codes = {finding["code"] for finding in answer["findings"]}
    assert {"screening-not-applicable", "neighbours-copy"} <= codes


def test_a_policy_names_them_and_behaviour_takes_examples(
    adapter: Path, small_library: Path, tiny_base: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    policy, examples = tmp_path / "policy.json", tmp_path / "examples.jsonl"
    policy.write_text(json.dumps({"hooks": ["format", "behaviour"]}))
    examples.write_text("".join(json.dumps({"input": f"{i}", "output": "a"}) + "\n" for i in "12"))
    where = ("--library", small_library / "lib", "--base", tiny_base)
    code, answer = told(capsys, adapter, "--policy", policy, "--examples", examples, *where)
    assert code == 0 and set(answer["milliseconds"]) == {"format", "behaviour"}
    (finding,) = answer["findings"]
    assert finding["evidence"]["examples"] == 2
    assert len(finding["evidence"]["losses"]) == 5  # this, none, two other tasks', their mean


def test_behaviour_goes_by_the_usage_and_the_examples_of_provenance(
    adapter: Path, small_library: Path, tiny_base: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    policy, usage = tmp_path / "policy.json", Usage.of("prompted", "Count.")
    policy.write_text(json.dumps({"hooks": ["behaviour"]}))
    rows = [Example.pair(f"{i}", "a") for i in range(3)]
    files = {path.name: path.read_bytes() for path in adapter.iterdir()}
    before = json.loads(files[PROVENANCE_FILE])

    def evidence(name: str, asked: list[Example], **stated: Any) -> Any:
        content = {**files, PROVENANCE_FILE: json.dumps(before | stated).encode()}
        write_folder(tmp_path / name, content)
        lines = [json.dumps({"input": e.input, "output": e.output}) + "\n" for e in asked]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
        where = ("--library", small_library / "lib", "--base", tiny_base, "--policy", policy)
        _, answer = told(capsys, tmp_path / name, "--examples", tmp_path / f"{name}.jsonl", *where)
        return answer["findings"][0]["evidence"]

    turned = [replace(row, input=usage.message(row.input)) for row in rows]
    plain = evidence("plain", turned)
    own = evidence("own", rows, usage=usage.to_dict(), examples=examples_digest(rows))
    assert own["losses"] == plain["losses"] and own["right"] == plain["right"]
    assert (own["usage"], own["trained_on_these"]) == ("prompted", True)
    assert (plain["usage"], plain["trained_on_these"]) == ("bare", False)
    hostile = {"mode": "bare", "template": ["{input}"]}
    assert evidence("hostile", rows, usage=hostile)["usage"] == "bare"


def test_what_cannot_be_compared_is_a_finding(
    tmp_path: Path, small_library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without provenance, of another base, as a single file: said, and nothing raised."""
    layout = layout_of(tiny.config("llama"), ["k_proj"], rank=2)
    files = to_peft(tiny.adapter(layout), base_name="another/base")
    content = {
        "adapter_config.json": files.config_bytes,
        "adapter_model.safetensors": files.weights,
    }
    write_folder(tmp_path / "a", content)
    (tmp_path / "ex.jsonl").write_text(json.dumps({"input": "1", "output": "a"}) + "\n")
    options = ("--examples", tmp_path / "ex.jsonl", "--library", small_library / "lib")
    names = "screening,neighbours,agreement,behaviour"
    for path in (tmp_path / "a", tmp_path / "a" / "adapter_model.safetensors"):
        code, answer = told(capsys, path, "--hooks", names, *options)
        assert code == 0
        slow = {f["hook"]: f["code"] for f in answer["findings"] if f["hook"] in names.split(",")}
        assert slow == {
            "screening": "screening-not-applicable",
            "neighbours": "neighbours-not-comparable",
            "agreement": "agreement-not-applicable",
            "behaviour": "behaviour-unmeasured",
        }


def test_a_base_of_other_modules_than_the_library_s_is_a_finding(
    adapter: Path, small_library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    tiny.config("llama", hidden_size=64).save_pretrained(base)
    assert layout_of(load_config(resolve_base(str(base)))).sites[0].in_features == 64
    (tmp_path / "ex.jsonl").write_text(json.dumps({"input": "1", "output": "a"}) + "\n")
    options = ("--base", base, "--library", small_library / "lib")
    hooks = ("--hooks", "behaviour", "--examples", tmp_path / "ex.jsonl")
    code, answer = told(capsys, adapter, *hooks, *options)
    assert code == 1 and answer["verdict"] == "refuse"  # the base hook: another shape
    (finding,) = (f for f in answer["findings"] if f["hook"] == "behaviour")
    assert finding["code"] == "behaviour-unmeasured" and "32x32" in finding["message"]


def test_wrong_options_are_one_sentence(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "unknown hook 'zk'" in refused(capsys, adapter, "--hooks", "zk")
    assert "unknown hook ''" in refused(capsys, adapter, "--hooks", "screening,")
    assert "go together" in refused(capsys, adapter, "--hooks", "behaviour")
    (tmp_path / "ex.jsonl").write_text(json.dumps({"input": "1", "output": "a"}) + "\n")
    assert "go together" in refused(capsys, adapter, "--examples", tmp_path / "ex.jsonl")
    nowhere = ("--library", tmp_path / "none")
    assert "no library" in refused(capsys, adapter, "--hooks", "neighbours", *nowhere)
    assert "do not run" in refused(capsys, adapter, "--hooks", "screening", *nowhere)
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"hooks": ["zk"]}))
    assert "behaviour" in refused(capsys, adapter, "--policy", policy, code=1)


def test_behaviour_that_cannot_be_measured_loses_no_other_finding(
    adapter: Path, small_library: Path, tiny_base: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    long, short = tmp_path / "long.jsonl", tmp_path / "short.jsonl"
    long.write_text(json.dumps({"input": "word " * 2000, "output": "a"}) + "\n")
    short.write_text(json.dumps({"input": "1", "output": "a"}) + "\n")
    deep = layout_of(tiny.config("llama", num_hidden_layers=9), ["q_proj"], rank=2)
    files = to_peft(tiny.adapter(deep), base_name="owner/base")
    content = {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights}
    write_folder(tmp_path / "deep", content)
    where = ("--hooks", "behaviour", "--library", small_library / "lib", "--base", tiny_base)
    for folder, examples, reason in (
        (adapter, long, "tokens"),
        (tmp_path / "deep", short, "exist"),
    ):
        _, answer = told(capsys, folder, *where, "--examples", examples)
        assert set(answer["milliseconds"]) == {*QUICK, "behaviour"}
        (finding,) = (f for f in answer["findings"] if f["hook"] == "behaviour")
        assert finding["code"] == "behaviour-unmeasured" and reason in finding["message"]


def test_one_hook_that_fails_leaves_the_others_findings(adapter: Path) -> None:
    def failing(subject: Artifact, context: Context) -> list[Finding]:
        raise BaseModelError("the disk is gone")

    subject, hooks = read_artifact(adapter), (*HOOKS, Hook("slow", 1e4, failing))
    found = run_hooks(subject, Context(), Policy((*Policy.hooks, "slow")), hooks).findings
    assert found[:-1] == run_hooks(subject, Context(), Policy()).findings
    assert (found[-1].hook, found[-1].code, found[-1].severity) == ("slow", "not-checked", "warn")
    assert "the disk is gone" in found[-1].message
    with pytest.raises(BaseModelError):
        run_hooks(subject, Context(), Policy(("slow",)), hooks)
