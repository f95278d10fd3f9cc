"""Commands on a base of one's own: a tiny Qwen2 (biases, shared key heads, tied) from a GGUF."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from gguf_files import VOCABULARY, qwen2, write_gguf
from peft import PeftModel
from transformers import AutoModelForCausalLM

from api.cli.main import main
from library.base.models import load_base, resolve_base
from library.base.multi_adapter import adapted
from library.peft.read import read_peft

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
EXAMPLES = [{"input": f"sum {i}", "output": f"{i % 3}"} for i in range(6)]


class OwnBase:
    """A base, and what the commands make of it in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.base = folder, str(folder / "base")
        write_gguf(folder / "model.gguf", qwen2(tied=True))
        tiny.write_tasks(folder / "tasks", tiny.LIBRARY_TASKS)
        lines = (json.dumps(row) for row in EXAMPLES)
        (folder / "few.jsonl").write_text("\n".join(lines))
        self.run("base", "convert", self.path("model.gguf"), "--out", self.base)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def run(self, *words: str, on_base: bool = False) -> None:
        assert main([*words, *(["--base", self.base] if on_base else [])]) == 0, words

    def train(self, config: str, out: str, *more: str) -> int:
        """Three steps of a configuration that ships."""
        options = {
            "config": tiny.ROOT / "configs" / config,
            "model.base": self.base,
            "model.out": self.path(out),
            "data.tasks": f"[{self.path('tasks')}]",
            "data.steps": 3,
            "data.sampling.tasks_per_step": 2,
            "data.sampling.rows_per_task": 2,
            "trainer.max_steps": 3,
            "trainer.accelerator": "cpu",
            "trainer.logger": "false",
            "trainer.callbacks": "null",
            "trainer.default_root_dir": self.path("runs"),
        }
        pairs = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return main(["train", "fit", *pairs, *more])


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> OwnBase:
    """A base with a library, a generator, a multi-task adapter and a generated adapter."""
    own = OwnBase(tmp_path_factory.mktemp("own"))
    build = ["library", "build", "--tasks", own.path("tasks"), "--out", own.path("lib")]
    own.run(*build, "--steps", "5", on_base=True)
    assert own.train("text_to_lora.yaml", "t2l", "--data.base", own.base) == 0
    prompted = ["--data.base", own.base, "--data.sampling.prompted_share", "1"]
    assert own.train("multi_task.yaml", "multi/prompted", *prompted) == 0
    made = ["--checkpoint", own.path("t2l"), "--library", own.path("lib")]
    text = tiny.LIBRARY_TASKS["sum"]
    own.run("generate", text, *made, "--out", own.path("made"), "--try", "sum 1", on_base=True)
    return own


@pytest.mark.parametrize("name", ["made", "multi/prompted"])
def test_peft_answers_as_our_forward_does(own: OwnBase, name: str) -> None:
    base = load_base(resolve_base(own.base))
    adapter = read_peft(own.folder / name)
    ids = tiny.tokens(2, 9, vocabulary=len(VOCABULARY))
    with torch.no_grad():
        without = base.model(input_ids=ids).logits
        with adapted(base.model, adapter, torch.tensor([0, 0])):
            ours = base.model(input_ids=ids).logits
        fresh = AutoModelForCausalLM.from_pretrained(own.base, dtype=torch.float32)
        theirs: Any = PeftModel.from_pretrained(fresh, own.path(name))
        torch.testing.assert_close(ours, theirs(input_ids=ids).logits, atol=1e-5, rtol=0)
    assert not torch.equal(ours, without)


def test_adapters_are_refined_and_verified(own: OwnBase) -> None:
    few = ["--examples", own.path("few.jsonl"), "--steps", "2"]
    own.run("refine", own.path("made"), *few, "--out", own.path("further"))
    own.run("refine", *few, "--out", own.path("fresh"), on_base=True)
    hooks = ["--hooks", "behaviour", "--examples", own.path("few.jsonl")]
    for name in ("made", "further", "fresh"):
        given = ["--library", own.path("lib"), "--target", "vllm"]
        own.run("verify", own.path(name), *hooks, *given, on_base=True)


def test_methods_are_measured(own: OwnBase) -> None:
    asked = ("base", "in-context", "text-to-lora", "text-to-lora:gibberish", "nearest", "oracle",
             "multi-task", "refine:multi-task:4", "auto")  # fmt: skip
    given = ["--checkpoint", own.path("t2l"), "--library", own.path("lib"),
             "--multi-task", own.path("multi")]  # fmt: skip
    run = ["evaluate", "--tasks", own.path("tasks"), "--limit", "1", "--mode", "prompted"]
    out = own.path("report.json")
    own.run(*run, *given, "--methods", ",".join(asked), "--out", out, on_base=True)
    rows = json.loads(Path(out).read_text())["rows"]
    assert {row["method"] for row in rows} == set(asked)


def test_auto_takes_the_bases_own_multi_task_adapter(
    own: OwnBase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = ["generate", "Name a colour.", "--json", "--base", own.base, "--library",
            own.path("lib"), "--out", str(tmp_path / "made"), "--overwrite"]  # fmt: skip
    few = ["--examples", own.path("few.jsonl"), "--refine", "1"]
    for more in ([], few):
        capsys.readouterr()
        assert main([*make, *more, "--multi-task", own.path("multi/prompted")]) == 0
        made = json.loads(capsys.readouterr().out)
        assert made["chosen"]["strategy"] == "multi-task"
    assert main([*make, "--multi-task", str(tmp_path / "none")]) == 2
    assert "there is nothing at" in capsys.readouterr().err


def test_the_same_weights_in_another_place_are_the_same_base(
    own: OwnBase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved, other = tmp_path / "moved", tmp_path / "other"
    for copy in (moved, other):
        shutil.copytree(own.base, copy)
    qwen2(tied=True, seed=1).save_pretrained(other)
    refine = ["refine", own.path("made"), "--examples", own.path("few.jsonl"), "--steps", "1"]
    teach = ["generate", "Name a colour.", "--generator", "multi-task", "--multi-task",
             own.path("multi/prompted")]  # fmt: skip
    for command in (refine, teach):
        out = ["--out", str(tmp_path / command[0])]
        assert main([*command, *out, "--base", str(moved)]) == 0
        assert main([*command, *out, "--base", str(other), "--overwrite"]) == 1
        assert f"is for {own.base}, " in capsys.readouterr().err


@pytest.mark.parametrize("config", ["text_to_lora.yaml", "multi_task.yaml"])
def test_another_bases_tokenizer_is_refused(
    config: str, own: OwnBase, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own.train(config, "never") == 2
    assert "set data.base and model.base alike" in capsys.readouterr().err
    assert not (own.folder / "never").exists()
