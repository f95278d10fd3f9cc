"""Evaluation of ensembles: a generator's samples that answer together, by the names of methods."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from api.cli.main import main
from generator.engine import Engine, read_generator
from generator.request import Request
from generator.resources import Resources
from generator.samples import MAX_SAMPLES
from index.encoders.descriptions import DescriptionEncoder
from library.adapter import stack
from library.base.decode import greedy_ensemble
from library.base.models import BaseModel, BaseReference, load_base
from library.base.task_vectors import SHOTS
from library.errors import UnknownName, UsageError
from library.layout import layout_of
from library.tasks.files import Example, Task
from training.evaluation.cells import Cell, Pool
from training.evaluation.evaluate import EvaluationPlan, evaluate
from training.evaluation.methods import Asked, parse_methods, proposals

TEXTS = {"one": "Say yes or no.", "two": "Translate to French."}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def icm(icm_checkpoint: Path, encoder: DescriptionEncoder) -> Engine:
    return Engine([read_generator(icm_checkpoint)], Resources(encoders=[encoder]))


@pytest.fixture(scope="module")
def loaded(base: BaseReference) -> BaseModel:
    return load_base(base)


def tasks() -> list[Task]:
    made = []
    for name, text in TEXTS.items():
        rows = tuple(Example(str(i), f"{name} {i}", (("yes", "no")[i % 2],)) for i in range(6))
        made.append(Task(name, text, rows))
    return made


def cells(engine: Engine, base: BaseModel, methods: str, seed: int = 0) -> list[Cell]:
    plan = EvaluationPlan(tasks(), ["held-out"] * 2, parse_methods(methods), ["bare"], seed, 7)
    return evaluate(plan, base, engine).cells


def test_an_ensemble_is_the_samples_of_generate_answering_together(
    icm: Engine, loaded: BaseModel
) -> None:
    # Ensembles of two sizes, single adapters and the base, decoded together.
    found = cells(icm, loaded, "icm-lora:ensemble:3,base,icm-lora,icm-lora:ensemble:2", seed=5)
    for cell in found:
        if not cell.method.suffix:
            continue
        count = int(cell.method.suffix[-1])
        requests = [Request(cell.task.definition, seed=5 + number) for number in range(count)]
        made = [icm.generate("icm-lora", request, loaded.reference) for request in requests]
        adapters = stack([one.stored() for one in made]).to(dtype=loaded.model.dtype)
        members = [list(range(count))] * len(cell.prompts)
        assert cell.predictions == greedy_ensemble(loaded, cell.prompts, adapters, members)
    keys = {(cell.method.name, cell.task.name): cell.key for cell in found}
    assert len({*keys.values()}) == 8
    # Read from the cache, or decoded alone: the same.
    again = cells(icm, loaded, "icm-lora:ensemble:3,icm-lora:ensemble:2", seed=5)
    others = cells(icm, loaded, "icm-lora:ensemble:3", seed=6)
    by_key = {cell.key: cell.predictions for cell in found}
    assert all(by_key[cell.key] == cell.predictions for cell in again)
    assert not {cell.key for cell in others} & {*by_key}


def test_one_sample_is_the_method_without_an_ensemble(icm: Engine, loaded: BaseModel) -> None:
    plain, one = cells(icm, loaded, "icm-lora"), cells(icm, loaded, "icm-lora:ensemble:1")
    assert [c.key for c in plain] == [c.key for c in one]
    assert [c.predictions for c in plain] == [c.predictions for c in one]


def test_members_are_named_in_no_order_and_equal_ones_are_one(loaded: BaseModel) -> None:
    layout = layout_of(loaded.model.config, rank=2)
    three, pool = tiny.adapter(layout, 3), Pool()
    one, two, other = (three[[i]] for i in range(3))
    first = pool.ensemble([one, two, other])
    assert pool.digest(first) == pool.digest(pool.ensemble([other, one, two]))
    assert pool.digest(first) != pool.digest(pool.ensemble([one, two]))
    assert pool.digest(pool.ensemble([one, one, two])) != pool.digest(pool.ensemble([one, two]))
    assert pool.ensemble([two, two]) == pool.add(two)
    assert pool.layout_digest(first) == layout.digest == pool.layout_digest(pool.add(one))


def test_no_more_examples_than_the_base_reads(icm: Engine, base: BaseReference) -> None:
    (method,) = parse_methods(f"icm-lora:{SHOTS + 1}")
    with pytest.raises(UsageError, match=f"this icm-lora checkpoint reads {SHOTS} examples"):
        proposals(icm, Asked(method, []), base, [])
    (method,) = parse_methods(f"icm-lora:{SHOTS}")
    assert proposals(icm, Asked(method, []), base, []) == []


def test_names_of_ensembles() -> None:
    names = f"icm-lora:ensemble:4,sg-lora:ensemble:{MAX_SAMPLES},sg-lora,base,sg-lora:5"
    parsed = parse_methods(names)
    assert [(m.head, m.samples) for m in parsed] == [
        ("icm-lora", 4), ("sg-lora", MAX_SAMPLES), ("sg-lora", 1), ("base", 1), ("sg-lora", 1)
    ]  # fmt: skip
    assert parsed[0].name == "icm-lora:ensemble:4" and parsed[0].examples == 0
    for wrong in ("ensemble", "ensemble:", "ensemble:x", "ensemble:-1", "ensemble:4:gibberish"):
        with pytest.raises(UnknownName):
            parse_methods(f"icm-lora:{wrong}")
    for wrong in ("base:ensemble:4", "refine:icm-lora:ensemble:4", "soup:ensemble:2"):
        with pytest.raises(UnknownName):
            parse_methods(wrong)
    for count in (0, MAX_SAMPLES + 1):
        with pytest.raises(UsageError, match="samples must be from 1"):
            parse_methods(f"icm-lora:ensemble:{count}")
    for name in ("text-to-lora", "auto", "multi-task", "lofa"):
        with pytest.raises(UsageError, match=f"{name} draws nothing"):
            parse_methods(f"{name}:ensemble:2")


def test_the_command(icm_checkpoint: Path, tiny_base: Path, tmp_path: Path, capsys: Any) -> None:
    tiny.write_tasks(tmp_path / "tasks", TEXTS)
    command = ["evaluate", "--tasks", str(tmp_path / "tasks"), "--base", str(tiny_base), "--limit"]
    command += ["1", "--checkpoint", str(icm_checkpoint), "--out", str(tmp_path / "r.json")]
    assert main([*command, "--methods", "icm-lora,icm-lora:ensemble:2", "--seed", "3"]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert [row["method"] for row in report["rows"]] == ["icm-lora", "icm-lora:ensemble:2"]
    assert report["abstentions"] == {"icm-lora": 0, "icm-lora:ensemble:2": 0}
    capsys.readouterr()
    assert main([*command, "--methods", "auto:ensemble:2", "--overwrite"]) == 2
    assert "auto draws nothing" in tiny.one_sentence(capsys.readouterr())
