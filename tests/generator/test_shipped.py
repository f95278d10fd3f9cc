"""What ships: checkpoints of the offline base that load, are small, and say their own scores."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

import pretrained
from generator.engine import open_engine, read_generator, shipped_library
from generator.models.sg_lora import SGLoRA
from generator.strategies.evidence import SCORES_FILE, Evidence, shipped_evidence
from generator.strategies.input_writer import InputWriter, shipped_input_writer
from library.base.models import identity, load_config, resolve_base
from library.canonical import file_digest
from library.errors import CheckpointError, LayoutMismatch
from library.layout import layout_of
from library.peft.write import WEIGHTS_FILE

SIZES = {"text-to-lora": 12e6, "sg-lora": 3e6, "icm-lora": 3e6, "lofa": 4e6}  # bytes, at most
OTHERS = {"multi-task": 6e6, "library": 3e6}
TRAINED_ON = {
    "text-to-lora": 2900,
    "sg-lora": 256,
    "icm-lora": 256,
    "lofa": 558,
    "multi-task": 3404,
}


def scores(name: str) -> dict[str, Any]:
    return json.loads((pretrained.folder(name) / SCORES_FILE).read_text())


@pytest.mark.parametrize("name", [*SIZES, *OTHERS])
def test_it_is_small(name: str) -> None:
    size = sum(file.stat().st_size for file in pretrained.folder(name).rglob("*") if file.is_file())
    assert 0 < size < {**SIZES, **OTHERS}[name]


def test_the_writer_of_inputs_serves_the_offline_base_and_has_a_card() -> None:
    folder, base = shipped_input_writer(), resolve_base()
    files = [*folder.iterdir(), *pretrained.folder("multi-task").iterdir()]
    assert sum(file.stat().st_size for file in files) < OTHERS["multi-task"]  # the two together
    writers = InputWriter(folder)
    assert writers.unavailable(base) == "" and len(writers.trained_on or ()) == 558
    assert writers.weights_digest[:12] in (folder / "README.md").read_text()
    report = json.loads((tiny.ROOT / "docs/results/written-inputs.json").read_text())
    assert {*report["benches"]} == {"reporting", "choosing", "held out"}


@pytest.mark.parametrize("name", SIZES)
def test_a_generator_is_of_the_offline_base_and_says_its_scores(name: str) -> None:
    checkpoint, base = read_generator(pretrained.folder(name)), resolve_base()
    layout = checkpoint.module.layout
    assert layout == layout_of(load_config(base), layout.module_types, rank=layout.rank)
    sha256, source = identity(base)
    assert checkpoint.info.base == {"id": base.name, "sha256": sha256, "source": source}
    assert len(checkpoint.info.tasks) == len({*checkpoint.info.tasks}) == TRAINED_ON[name]
    assert scores(name)["checkpoint"] == checkpoint.digest
    found = shipped_evidence(name, checkpoint.digest, TRAINED_ON[name])
    assert found.held_out is not None and found.held_out.tasks == 34


@pytest.mark.parametrize("name", TRAINED_ON)
def test_scores_are_those_of_the_report(name: str) -> None:
    stored = scores(name)["held_out"]
    report = json.loads((tiny.ROOT / stored["report"]).read_text())
    means = {m["mode"]: m for m in report["means"] if m["method"] == name}
    assert {m for m in ("bare", "prompted") if stored[m] is not None} == {*means}
    for mode, mean in means.items():
        assert stored[mode] == pytest.approx(mean["rouge_l"], abs=5e-5)
        assert (mean["split"], mean["tasks"]) == ("held-out", stored["tasks"])
    assert not {row["task"] for row in report["rows"]} & {*trained_tasks(name)}
    for word in report["command"].split():
        assert not Path(word).is_absolute()


@pytest.mark.parametrize("name", TRAINED_ON)
def test_the_card_is_of_this_file_and_tells_its_scores(name: str) -> None:
    card, stored = (pretrained.folder(name) / "README.md").read_text(), scores(name)
    assert stored["checkpoint"][:12] in card
    for mode in ("bare", "prompted"):
        assert stored["held_out"][mode] is None or f"{100 * stored['held_out'][mode]:.1f}" in card


def trained_tasks(name: str) -> list[str]:
    folder = pretrained.folder(name)
    if name in SIZES:
        return read_generator(folder).info.tasks
    return json.loads((folder / "provenance.json").read_text())["details"]["tasks"]


def test_every_generator_serves_the_offline_base_with_the_sample() -> None:
    engine, base = open_engine(library=shipped_library()), resolve_base()
    assert {*SIZES} <= {*engine.generated}
    for name in (*SIZES, *OTHERS.keys() - {"library"}):
        strategy = engine.strategies[name]
        assert strategy.unavailable(base) == ""
        assert strategy.evidence(base).trained_on == TRAINED_ON[name]
        assert strategy.evidence(base).held_out is not None
    assert engine.strategies["auto"].evidence(base) == Evidence()
    assert engine.needs("text-to-lora") == ["description", "base"]  # the base reads it


def test_the_sample_has_the_start_that_sg_lora_was_trained_from() -> None:
    engine, base = open_engine(library=shipped_library()), resolve_base()
    retriever = engine.resources.retriever(base)
    module = engine.generated["sg-lora"].module
    assert isinstance(module, SGLoRA)
    adapters = [retriever.adapter(record["id"]) for record in retriever.experts]
    assert len(adapters) == 24
    for adapter in adapters:
        module.require_same_start(adapter)
    turned = {key: a.flip(-1) for key, a in adapters[0].A.items()}
    with pytest.raises(LayoutMismatch, match="not trained from the A"):
        module.require_same_start(replace(adapters[0], A=turned))


def test_another_checkpoint_has_no_scores() -> None:
    digest = file_digest(pretrained.folder("multi-task") / WEIGHTS_FILE)
    assert shipped_evidence("multi-task", digest, 3).held_out is not None
    assert shipped_evidence("multi-task", "0" * 64, 3) == Evidence(3)
    assert shipped_evidence("no-such-generator", digest, None) == Evidence()


@pytest.mark.parametrize("damage", ["{", "[]", '{"checkpoint": "x"}'])
def test_damaged_scores_are_an_error(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pretrained.folder("multi-task"), tmp_path / "multi-task")
    monkeypatch.setattr(pretrained, "folder", lambda name: tmp_path / name)
    (tmp_path / "multi-task" / SCORES_FILE).write_text(damage)
    with pytest.raises(CheckpointError, match=SCORES_FILE):
        shipped_evidence("multi-task", "x", 3)
