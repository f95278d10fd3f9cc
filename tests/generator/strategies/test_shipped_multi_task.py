"""Multi-task adapters that ship: each serves its own base, and PEFT loads them onto its shapes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen2Config

import pretrained
from generator.expected import FILES, expectation
from generator.request import Query, Request
from generator.resources import Resources
from generator.strategies.multi_task import SHIPPED, MultiTask, shipped_multi_tasks
from library.base.models import BaseReference, described, load_config, resolve_base
from library.canonical import file_digest
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE

QWEN = "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF"


@pytest.fixture
def qwen(tmp_path: Path) -> BaseReference:
    """The second base's shapes under its name, without weights."""
    Qwen2Config(
        vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
        num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True,
    ).save_pretrained(tmp_path)  # fmt: skip
    return BaseReference(QWEN, str(tmp_path))


def test_each_serves_its_base(qwen: BaseReference) -> None:
    strategy = MultiTask(*shipped_multi_tasks())
    bases, tasks = (resolve_base(), qwen), (558 + 2846, 558)  # the first has authored ones, too
    for base, folder, count in zip(bases, SHIPPED, tasks, strict=True):
        stored = strategy.stored(base)
        assert stored.weights_digest == file_digest(pretrained.folder(folder) / WEIGHTS_FILE)
        adapter = stored.adapter_for(base)
        assert adapter.layout == layout_of(load_config(base), seven(base), rank=8)
        evidence = strategy.evidence(base)
        assert evidence.trained_on == count and evidence.held_out is not None
        assert evidence.held_out.prompted is not None and evidence.held_out.prompted > 0.3


def seven(base: BaseReference) -> list[str]:
    config = json.loads((folder_of(base) / CONFIG_FILE).read_text())
    assert len(config["target_modules"]) == 7
    return config["target_modules"]


def folder_of(base: BaseReference) -> Path:
    return pretrained.folder(SHIPPED[base.name == QWEN])


def test_peft_takes_every_factor_of_the_second_base_s(qwen: BaseReference) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(load_config(qwen))
        loaded = get_peft_model(model, PeftConfig.from_pretrained(str(folder_of(qwen))))
    theirs = get_peft_model_state_dict(loaded)
    ours = load_file(folder_of(qwen) / WEIGHTS_FILE)
    assert len(ours) == 2 * 7 * 24
    shapes = [{key: value.shape for key, value in side.items()} for side in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_what_serves_a_base_is_read_alone(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text("damaged")
    strategy = MultiTask(shipped_multi_tasks()[0], tmp_path)
    assert strategy.unavailable(resolve_base()) == ""


def test_what_to_expect_goes_by_the_base(qwen: BaseReference) -> None:
    strategy, scores = MultiTask(*shipped_multi_tasks()), list[float]()
    for base, folder, file in zip((resolve_base(), qwen), SHIPPED, FILES, strict=True):
        stated = json.loads((pretrained.folder(folder) / PROVENANCE_FILE).read_text())["base"]
        proposal = strategy.propose(Query(Request("Say yes or no."), base, Resources()))
        expected = expectation(proposal, stated["sha256"])
        assert expected is not None and 0 <= expected.low < expected.score < expected.high <= 100
        assert expectation(proposal, None) is None and expectation(proposal, "0" * 64) is None
        calibrated = json.loads(file.read_text())["groups"]["multi-task, prompted"]
        assert expected.score == calibrated["score"]
        scores.append(expected.score)
    assert expectation(proposal, described(resolve_base())["sha256"]) is None  # another adapter's
    assert scores[0] != scores[1]


def test_a_copy_has_the_scores_of_what_it_is_a_copy_of(tmp_path: Path) -> None:
    copy = shutil.copytree(shipped_multi_tasks()[0], tmp_path / "mine")
    base = resolve_base()
    assert MultiTask(copy).evidence(base) == MultiTask(*shipped_multi_tasks()).evidence(base)


def test_the_second_base_s_weights_are_stated() -> None:
    """Its name is that of a repository of GGUFs: what is asked for is a folder made of one."""
    stated = json.loads((pretrained.folder(SHIPPED[1]) / PROVENANCE_FILE).read_text())
    assert stated["base"]["id"] == QWEN and len(stated["base"]["sha256"]) == 64
    assert stated["base"]["sha256"] != described(resolve_base())["sha256"]
