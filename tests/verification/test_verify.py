"""What `lorasmith verify` says: tampered files, hostile ones, policies, exit codes."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from folders import LAYOUT, Files, bare, exit_code, with_config
from mutations import (  # noqa: F401  (fixtures)
    checked,
    codes,
    fuzz,
    mutated_bytes,
    mutated_structure,
    ours,
    same_json,
    with_header,
)
from safetensors.torch import load, save

from library.base.models import load_config, resolve_base
from library.canonical import digest
from library.files import write_folder
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE, Provenance, adapter_id, finish
from library.peft.safetensors_file import BadFile
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from verification.artifact import Artifact, Context
from verification.checks.digests import merkle_root, tensor_digests
from verification.checks.integrity import check_integrity
from verification.run import Policy


def with_tensors(files: Files, change: Any) -> Files:
    tensors = load(files[WEIGHTS_FILE])
    change(tensors)
    return {**files, WEIGHTS_FILE: save(tensors, metadata={"format": "pt"})}


def test_what_we_make_is_accepted(ours: Files) -> None:
    assert [(f.code, f.severity) for f in checked(ours, target="vllm")] == [
        ("statistics-not-comparable", "info"), ("base-not-checked", "info"),
    ]  # fmt: skip
    assert {f.severity for f in checked(bare(ours))} == {"info"}


def test_every_tampering_has_its_reason(ours: Files) -> None:
    first = sorted(load(ours[WEIGHTS_FILE]))[0]
    weights = ours[WEIGHTS_FILE]

    def poisoned(tensors: dict[str, Any]) -> None:
        tensors[first][0, 0] = float("nan")

    def half(tensors: dict[str, Any]) -> None:
        del tensors[first]

    def stranger(tensors: dict[str, Any]) -> None:
        tensors["base_model.model.evil.weight"] = torch.ones(2)

    def odd(tensors: dict[str, Any]) -> None:
        tensors[first] = tensors[first].to(torch.int8)

    cases: list[tuple[str, Files]] = [
        ("not-finite", with_tensors(ours, poisoned)),
        ("pairs", with_tensors(ours, half)),
        ("keys", with_tensors(ours, stranger)),
        ("dtype", with_tensors(ours, odd)),
        ("rank", with_config(ours, r=8)),
        ("rank", with_config(ours, r=4.0)),
        ("rank", with_config(ours, r=0, rank_pattern={"[qv]_proj": 4})),
        ("targets", with_config(ours, target_modules=["q_proj"])),
        ("config", with_config(ours, lora_alpha="8")),
        ("config", with_config(ours, lora_alpha=10**400)),
        ("config", with_config(ours, peft_type=None)),
        ("too-costly", with_config(ours, target_modules="(.*)*_proj")),
        ("too-costly", with_config(ours, rank_pattern={".*" * 12: 4})),
        ("truncated", {**ours, WEIGHTS_FILE: weights[:-1]}),
        ("truncated", {**ours, WEIGHTS_FILE: weights[:5]}),
        ("padded", {**ours, WEIGHTS_FILE: weights + b"\0"}),
        ("header-too-large", {**ours, WEIGHTS_FILE: b"\xff" * 8 + weights[8:]}),
        ("not-safetensors", {**ours, WEIGHTS_FILE: b"PK\3\4" + weights}),
        ("duplicate-keys", with_header(ours, lambda h: f"{{{h.strip()[1:-1]},{h.strip()[1:-1]}}}")),
        ("duplicate-keys", {**ours, CONFIG_FILE: b'{"r": 4,' + ours[CONFIG_FILE][1:]}),
        ("header", with_header(ours, lambda h: '{"a":' + "[" * 100_000)),
        ("header", with_header(ours, lambda h: h.replace("dtype", "dtyp3", 1))),
        ("config", {**ours, CONFIG_FILE: b"[" * 100_000}),
        ("provenance", {**ours, PROVENANCE_FILE: b"{}"}),
    ]  # fmt: skip
    for code, files in cases:
        assert code in codes(files), code
    for files in cases[:-1]:
        if files[0] != "provenance":
            assert files[0] in codes(bare(files[1]))


def without(files: Files, *names: str) -> Files:
    return {name: content for name, content in files.items() if name not in names}


def told(files: Files, **changes: Any) -> Files:
    provenance = json.loads(files[PROVENANCE_FILE]) | changes
    return {**files, PROVENANCE_FILE: json.dumps(provenance).encode()}


def test_integrity_is_of_weights_then_of_the_id(ours: Files) -> None:
    provenance = json.loads(ours[PROVENANCE_FILE])
    sha256, identity = provenance["sha256"], provenance["id"]
    zeros = "0" * 64
    other = adapter_id(json.loads(ours[CONFIG_FILE]), sha256, provenance | {"seed": 5})
    alone = without(ours, CONFIG_FILE)
    cases: list[tuple[Files, list[tuple[str, str, dict[str, Any]]]]] = [
        (ours, []),
        (told(ours, report={"any": "thing"}), []),  # the id does not cover it
        (bare(ours), [("no-provenance", "info", {})]),
        (alone, [("id-not-checked", "warn", {})]),
        (
            told(alone, sha256=zeros),
            [("sha256-differs", "refuse", {"found": sha256, "expected": zeros})],
        ),
        (
            told(ours, sha256=zeros, id="ad_"),
            [("sha256-differs", "refuse", {"found": sha256, "expected": zeros})],
        ),
        (
            told(ours, seed=5),
            [("id-differs", "refuse", {"found": other, "expected": identity})],
        ),
        (
            told(ours, id="ad_"),
            [("id-differs", "refuse", {"found": identity, "expected": "ad_"})],
        ),
    ]
    for files, expected in cases:
        findings = check_integrity(Artifact(files), Context())
        assert [(f.code, f.severity, f.evidence) for f in findings] == expected
        assert {f.hook for f in findings} <= {"integrity"}


DEEP: list[Any] = []
for _ in range(500):  # levels that can be read, but not made canonical
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "changes",
    [
        {"examples": DEEP},
        {"id": None},
        {"sha256": 7},
        {"id": ["a"]},
        {"seed": 2**60},
        {"seed": float("inf")},
    ],
)
def test_a_provenance_that_names_no_id_cannot_be_compared(
    ours: Files, changes: dict[str, Any]
) -> None:
    with pytest.raises(BadFile) as caught:
        check_integrity(Artifact(told(ours, **changes)), Context())
    assert caught.value.reason == "provenance"


def test_a_changed_weight_or_alpha_differs_from_the_provenance(ours: Files) -> None:
    first = sorted(load(ours[WEIGHTS_FILE]))[0]

    def changed(tensors: dict[str, Any]) -> None:
        tensors[first][0, 0] += 1

    assert codes(with_tensors(ours, changed)) == {"sha256-differs"}
    assert codes(with_config(ours, lora_alpha=8)) == {"id-differs"}
    told = json.loads(ours[PROVENANCE_FILE]) | {"description": "Subtract."}
    assert codes({**ours, PROVENANCE_FILE: json.dumps(told).encode()}) == {"id-differs"}


def test_no_mutation_passes_and_none_crashes(ours: Files) -> None:
    fuzz(ours, 300)


@pytest.mark.slow
def test_nor_do_thousands() -> None:
    """In a process of its own, whose types are not checked: that takes most of the time."""
    code = "import folders, mutations; mutations.fuzz(folders.sound(), 4_000); print('all refused')"
    assert tiny.output_of(tiny.start_python(code)) == "all refused\n"


def test_exit_codes_and_one_file(
    ours: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "adapter"
    write_folder(folder, ours)
    assert exit_code(folder) == exit_code(folder, "--target", "peft") == 0
    assert exit_code(folder / WEIGHTS_FILE) == 0
    assert "no-config" in capsys.readouterr().out
    assert exit_code(folder / WEIGHTS_FILE, "--target", "vllm") == 1
    wrong = [
        (tmp_path / "nothing",), (folder, "--target", "tgi"), (folder, "--policy", tmp_path / "p"),
        (folder, "--provenance", tmp_path / "p"), (folder, "--base", tmp_path / "b"), (),
    ]  # fmt: skip
    for arguments in wrong:
        assert exit_code(*arguments) == 2, arguments
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == len(wrong)
    empty = tmp_path / "empty"
    empty.mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("hello")
    for path in (empty, tmp_path / "pipe", tmp_path / "text", Path("/dev/null"), Path("/dev/zero")):
        assert exit_code(path) == 1, path
    assert capsys.readouterr().err == ""


def test_a_trusted_provenance_beats_the_folders_own(ours: Files, tmp_path: Path) -> None:
    """Whoever changes weights can write a provenance that fits them, but not the original's."""
    files = to_peft(tiny.adapter(LAYOUT, seed=1), base_name="owner/base")
    write_folder(
        tmp_path / "forged",
        finish(files, Provenance("text-to-lora", None, "Add.", 0, "cpu", LAYOUT.digest, {})).files,
    )
    (tmp_path / "told.json").write_bytes(ours[PROVENANCE_FILE])
    assert exit_code(tmp_path / "forged") == 0
    assert exit_code(tmp_path / "forged", "--provenance", tmp_path / "told.json") == 1


def test_a_policy_picks_hooks_and_severities(ours: Files, tmp_path: Path) -> None:
    folder, file = tmp_path / "adapter", tmp_path / "policy.json"
    write_folder(folder, with_config(ours, lora_alpha=8) | {"more.bin": b"pickle"})

    def under(policy: Any) -> int:
        file.write_text(policy if isinstance(policy, str) else json.dumps(policy))
        return exit_code(folder, "--policy", file)

    assert under({}) == under({"hooks": ["integrity"]}) == 1
    assert under({"hooks": ["format"]}) == under({"refuse": []}) == 0
    assert under({"hooks": ["format"], "refuse": ["warn", "refuse"]}) == 1
    for bad in (
        "",
        "[]",
        '{"hooks": 1}',
        '{"hooks": ["x"]}',
        '{"hook": []}',
        '{"refuse": ["info"]}',
        '{"hooks": []}',
        '{"refuse": [], "signed": true}',
    ):
        assert under(bad) == 1, bad


def test_a_hook_that_needs_a_sound_adapter_never_sees_another(ours: Files) -> None:
    damaged = with_config(ours, r="4")
    for hooks in (("target", "base"), ("target",), ("base",)):
        (finding,) = checked(damaged, target="sglang", policy=Policy(hooks))
        assert (finding.hook, finding.code, finding.severity) == ("format", "config", "refuse")


def test_the_base_that_is_packaged_is_known(tmp_path: Path) -> None:
    layout = layout_of(load_config(resolve_base()), rank=2)
    for name, wanted in ((layout, set()), (LAYOUT, {"wrong-base"})):
        files = to_peft(tiny.adapter(name), base_name=resolve_base().name)
        assert codes({CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights}) == wanted


def test_expressions_that_people_write_are_taken(ours: Files) -> None:
    for pattern in (
        r".*\.(q_proj|v_proj)",
        r"model\.layers\.\d+\.self_attn\.(q|v)_proj",
        r"(?:.*?(?:language|text).*?)?.*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?",
        r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?)|(?:\bmodel\.[\d]{1,}\.(?:mlp)\.(?:up))",
    ):
        assert not codes(bare(with_config(ours, target_modules=pattern))), pattern


def test_expressions_that_never_finish_are_not_tried(ours: Files) -> None:
    hostile = [
        "(a|a)" * 40 + "b",
        "([a-z._0-9]+)*x",
        "(.|a)" * 40 + "!",
        ".*" * 30 + "!",
        "((a|b)|a)" * 40 + "!",
        "(?:.?)" * 200 + "!",
        r"(\w|\d)" * 60 + "!",
    ]
    for pattern in hostile:
        assert codes(bare(with_config(ours, target_modules=pattern))) == {"too-costly"}, pattern
        assert codes(bare(with_config(ours, alpha_pattern={pattern: 1}))) == {"too-costly"}


def test_the_costliest_expressions_that_are_taken_finish(ours: Files) -> None:
    for pattern in (".*" * 4 + "!", "[a-z._]*" * 5 + "!", "(a|b|ab)" * 3 + ".*.*!"):
        start = time.process_time()
        codes(bare(with_config(ours, alpha_pattern={pattern: 1}, target_modules=".*" * 3 + "proj")))
        assert time.process_time() - start < 20


def test_digests_are_those_of_the_bytes(ours: Files) -> None:
    subject = Artifact(ours)
    found = tensor_digests(subject)
    tensors = load(ours[WEIGHTS_FILE])
    assert list(found) == sorted(tensors)
    for name, tensor in tensors.items():
        assert found[name] == digest(tensor.view(torch.uint8).numpy().tobytes())
    root = merkle_root(subject, found)
    assert len(root) == 64 and root == merkle_root(Artifact(bare(ours)), found)
    for name in found:
        assert merkle_root(subject, found | {name: "0" * 64}) != root


def test_every_code_is_in_the_documentation() -> None:
    table = (tiny.ROOT / "docs" / "verification.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2] for line in table.splitlines() if line.count("|") == 5]
    written = {code for row in rows for code in re.findall(r"`([a-z0-9-]+)`", row)}
    places = [
        file
        for folder in ("verification", "verification/checks", "library/peft")
        for file in sorted((tiny.ROOT / folder).glob("*.py"))
    ]
    before = r"(?:BadFile\(|_refuse\(|_finding\(|HOOK,|append\(\(|\[\s*\()"
    call = re.compile(before + r'\s*"([a-z0-9-]+)",\s')
    used = {code for file in places for code in call.findall(file.read_text(encoding="utf-8"))}
    assert {"wrong-strength", "truncated", "q-without-v", "rank-limit"} <= used
    assert used | {"duplicate-keys"} <= written, used - written


def test_hostile_names_reach_no_terminal(
    ours: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, name in enumerate(("\\u001b[2J", "\\ud800", "\\u202e", "x" * 100_000)):
        damaged = with_header(ours, lambda h, n=name: h.replace("base_model", n, 1))
        folder = tmp_path / f"{place}"
        write_folder(folder, damaged)
        for options in ((), ("--json",)):
            assert exit_code(folder, *options) == 1
            captured = capsys.readouterr()
            assert captured.err == "" and len(captured.out) < 3000
            assert "\x1b" not in captured.out
            assert options or all(char.isprintable() or char == "\n" for char in captured.out)
