"""Numbers beyond float32 are refused, and no answer holds NaN, infinity or half a character."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from folders import Files, bare, exit_code, sound, with_config
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from library.files import write_folder
from library.peft.read import adapter_of
from library.peft.write import WEIGHTS_FILE
from verification.artifact import Artifact, Context
from verification.checks.magnitude import FLOAT32_MAX
from verification.hook import Finding
from verification.run import Policy, run_hooks, verify_path

OURS = bare(sound())


def scaled(dtype: torch.dtype, factor: float) -> Files:
    tensors = {k: t.double() * factor for k, t in load(OURS[WEIGHTS_FILE]).items()}
    return {**OURS, WEIGHTS_FILE: save({k: t.to(dtype) for k, t in tensors.items()})}


def refusals(files: Files) -> set[str]:
    """Codes of what refuses, of an answer that any JSON reader can take."""
    told = run_hooks(Artifact(files), Context(), Policy()).to_dict()
    json.dumps(told, allow_nan=False)
    return {f["code"] for f in told["findings"] if f["severity"] == "refuse"}


@pytest.mark.filterwarnings("error")
def test_what_leaves_float32_is_refused_and_nothing_crashes() -> None:
    for files, code in (
        (scaled(torch.float64, 1e200), "not-finite"),
        (scaled(torch.float64, 1e307), "not-finite"),
        (scaled(torch.float32, 1e30), "strength"),
        (scaled(torch.bfloat16, 1e30), "strength"),
        (with_config(OURS, lora_alpha=1e308), "strength"),
        (with_config(OURS, lora_alpha=10**300), "strength"),
        (with_config(OURS, alpha_pattern={"v_proj": -1e300}), "strength"),
    ):
        assert refusals(files) == {code}


@pytest.mark.filterwarnings("error")
@given(st.floats(-320, 300), st.floats(-320, 300), st.sampled_from([torch.float64, torch.float32]))
def test_what_is_not_refused_is_finite_in_float32(
    weights: float, alpha: float, dtype: torch.dtype
) -> None:
    tensors = {k: t.double() * 10**weights for k, t in load(OURS[WEIGHTS_FILE]).items()}
    whole = {k: t.to(dtype).nan_to_num() for k, t in tensors.items()}
    files = with_config({**OURS, WEIGHTS_FILE: save(whole)}, lora_alpha=10**alpha)
    if refusals(files):
        assert max(weights, alpha, alpha + weights, alpha + 2 * weights) > 36
        return
    for delta in tiny.deltas(adapter_of(files)).values():
        assert delta.isfinite().all()


def test_one_small_half_makes_up_for_a_large_one() -> None:
    """The product counts: factors may be as far apart as they like."""
    tensors = {
        k: t.float() * (1e25 if ".lora_A." in k else 1e-25)
        for k, t in load(OURS[WEIGHTS_FILE]).items()
    }
    assert refusals({**OURS, WEIGHTS_FILE: save(tensors)}) == set()
    tensors = {k: torch.full_like(t.float(), FLOAT32_MAX) for k, t in tensors.items()}
    assert refusals({**OURS, WEIGHTS_FILE: save(tensors)}) == {"strength"}


def test_evidence_that_is_not_finite_is_null_in_json() -> None:
    evidence: dict[str, Any] = {"a": [1.0, float("nan")], "b": {"c": float("-inf")}, "d": (1, "x")}
    told = Finding("h", "c", "info", "m", evidence).to_dict()
    assert json.loads(json.dumps(told, allow_nan=False))["evidence"] == {
        "a": [1.0, None], "b": {"c": None}, "d": [1, "x"],
    }  # fmt: skip


def test_names_that_are_no_utf8_are_told_to_a_strict_reader(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "adapter")
    write_folder(tmp_path / "adapter", OURS)
    Path(os.fsdecode(folder + b"/x\xff.bin")).write_bytes(b"x")
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", "api", "verify", folder, "--json"]
    done = subprocess.run(command, env=strict, cwd=tiny.ROOT, capture_output=True)
    assert done.returncode == 0 and done.stderr == b""
    assert "pickle-beside" in {f["code"] for f in json.loads(done.stdout)["findings"]}
    (Path(os.fsdecode(folder)) / WEIGHTS_FILE).unlink()
    (found,) = verify_path(tmp_path / "adapter", Context()).findings
    assert found.code == "pickle" and found.message.encode()


def test_the_command_line_alone_is_two_and_content_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, empty, bad = tmp_path / "adapter", tmp_path / "empty", tmp_path / "bad"
    write_folder(folder, OURS)
    empty.mkdir()
    bad.write_text("{")
    long = "x" * 300
    hooks = ("--hooks", "behaviour")
    cases: list[tuple[int, tuple[Any, ...]]] = [
        (2, (long,)), (2, (folder, "--policy", long)), (2, (folder, "--public-key", long)),
        (2, (folder, "--provenance", long)), (2, (folder, *hooks, "--examples", long)),
        (1, (folder, "--policy", empty)), (1, (folder, "--policy", bad)),
        (1, (folder, "--public-key", empty)), (1, (folder, "--public-key", bad)),
        (1, (folder, *hooks, "--examples", bad)),
    ]  # fmt: skip
    for code, arguments in cases:
        assert exit_code(*arguments) == code, arguments
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert "Errno" not in captured.err and captured.err.count("/empty") <= 1
