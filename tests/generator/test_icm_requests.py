"""Requests to ICM-LoRA: the base reads description and examples once, and the adapter follows."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pretrained
from api.cli.main import main
from generator.engine import Engine, open_engine, read_generator
from generator.layers.flattened import flatten
from generator.request import Query, Request
from generator.resources import Resources
from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
from library.base import task_vectors
from library.base.models import BaseReference, load_base, resolve_base
from library.base.task_vectors import in_context_prompts
from library.errors import LayoutMismatch, UsageError
from library.peft.provenance import PROVENANCE_FILE
from library.tasks.files import Example

pytestmark = pytest.mark.slow
NAME = "icm-lora"
FEW = (Example.pair("a", "yes"), Example.pair("b", "no"))


@pytest.fixture(scope="module")
def icm(icm_checkpoint: Path, encoder: DescriptionEncoder) -> Engine:
    return Engine([read_generator(icm_checkpoint)], Resources(encoders=[encoder]))


def made(engine: Engine, base: BaseReference, **request: Any) -> torch.Tensor:
    asked = Request(**{"description": "Say yes or no.", **request})
    return flatten(engine.propose(NAME, asked, base).adapter)


def test_description_examples_and_seed_make_the_adapter(icm: Engine, base: BaseReference) -> None:
    first = made(icm, base)
    assert torch.equal(made(icm, base), first)
    others = (
        {"description": "Translate to French."},
        {"examples": FEW, "refine": 0},
        {"examples": FEW[::-1] + FEW[:1], "refine": 0},
        {"seed": 1},
    )
    found = [made(icm, base, **other) for other in others]
    for one in (first, *found):
        assert sum(torch.allclose(one, other, rtol=1e-3) for other in (first, *found)) == 1
    assert icm.strategies[NAME].uses_examples


def test_the_base_is_asked_once_a_query(
    icm: Engine, base: BaseReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    inner = task_vectors._last_states
    monkeypatch.setattr(
        task_vectors, "_last_states", lambda *args: calls.append(args[1]) or inner(*args)
    )
    query = Query(Request("Say yes.", examples=FEW, refine=0), base, icm.resources)
    first = icm.strategies[NAME].propose(query).adapter
    assert torch.equal(flatten(icm.strategies[NAME].propose(query).adapter), flatten(first))
    (prompts,) = calls
    expected = in_context_prompts(icm.resources.model(base).tokenizer, "Say yes.", FEW)
    assert sorted(prompts) == sorted(expected)


def test_task_vectors_go_where_the_generator_runs(
    icm_checkpoint: Path, base: BaseReference, encoder: DescriptionEncoder
) -> None:
    elsewhere = Resources(device="meta", load=load_base, encoders=[encoder])
    query = Query(Request("Say yes."), base, elsewhere)
    condition = query.condition(read_generator(icm_checkpoint).module, DEFAULT_ENCODER)
    assert condition.task is not None and condition.task.device.type == "meta"
    assert query.task_vector.device.type == "cpu"


def test_provenance_names_the_numerics_of_the_base_and_the_draw(
    icm: Engine, base: BaseReference
) -> None:
    told = [
        icm.generate(NAME, Request("Say yes.", seed=seed), base).files.files[PROVENANCE_FILE]
        for seed in (0, 1)
    ]
    first, second = map(json.loads, told)
    assert first["numerics"] == "cpu-f64-torch+cpu-f32-torch" and first["checkpoint"]
    assert (first["seed"], second["seed"]) == (0, 1) and first["sha256"] != second["sha256"]


def test_what_it_cannot_serve_is_said_in_one_sentence(
    icm: Engine, base: BaseReference, tmp_path: Path, tiny_base: Path
) -> None:
    with pytest.raises(UsageError, match="a description is needed for this"):
        icm.propose(NAME, Request(None, examples=FEW), base)
    config = json.loads((tiny_base / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(LayoutMismatch, match=rf"{tmp_path}.*the icm-lora checkpoint"):
        icm.propose(NAME, Request("Say yes."), resolve_base(str(tmp_path)))


def test_a_checkpoint_of_adapted_vectors_is_refused_and_not_offered(
    icm_checkpoint: Path, base: BaseReference, encoder: DescriptionEncoder
) -> None:
    loaded, engines = read_generator(icm_checkpoint), {}
    for kind in ("adapted", "in-context"):
        training = {"data": {"vectors": {"kind": kind, "draws": 8}}}
        checkpoint = replace(loaded, info=replace(loaded.info, training=training))
        engines[kind] = Engine([checkpoint], Resources(encoders=[encoder]))
    with pytest.raises(UsageError, match="own adapter, which no request has"):
        engines["adapted"].propose(NAME, Request("Say yes."), base)
    assert engines["adapted"].strategies[NAME].offer(base) is None
    assert engines["in-context"].strategies[NAME].offer(base) is not None
    proposal = engines["in-context"].propose(NAME, Request("Say yes."), base)
    assert "encoder" not in proposal.details  # no description was embedded


def test_a_checkpoint_in_its_place_needs_no_option(
    icm_checkpoint: Path,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    (tmp_path / "shipped").mkdir()
    shutil.copytree(icm_checkpoint, tmp_path / "shipped" / NAME)
    monkeypatch.setattr(pretrained, "folder", lambda name: tmp_path / "shipped" / name)
    assert list(open_engine().generated) == [NAME]
    assert main(["generators"]) == 0
    (line,) = [row for row in capsys.readouterr().out.splitlines() if row.startswith(NAME)]
    assert "takes examples" in line and "--checkpoint" not in line
    rows = tmp_path / "few.jsonl"
    rows.write_text('{"input": "a", "output": "yes"}\n')
    generate = ["generate", "Say yes.", "--generator", NAME, "--base", str(tiny_base), "--json"]
    more = ["--examples", str(rows), "--refine", "0", "--seed", "3", "--out", str(tmp_path / "a")]
    assert main([*generate, *more]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["generator"], summary["seed"]) == (NAME, 3)
    assert (tmp_path / "a" / "adapter_model.safetensors").is_file()
