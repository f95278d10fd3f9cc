"""What is trained on a request's examples: the starts, their prompts, and always the same bytes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from teachers import write_teacher

from generator.engine import Engine, open_engine
from generator.request import Query, Request
from generator.strategies.fresh import RANK, fresh_start
from generator.strategies.multi_task import MultiTask, require_serving
from library.adapter import Adapter
from library.base.models import BaseReference, load_config, resolve_base
from library.base.stored_adapters import read_for_base
from library.base.usage import BARE, Usage, usage_of
from library.canonical import file_digest
from library.errors import AdapterFileError, LayoutMismatch, MissingPath, UsageError
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE, adapter_id
from library.peft.read import read_peft
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE
from library.tasks.files import Example
from library.trainer.optimiser import shared_start

TASK = "Say yes or no."
PROMPTED = Usage.of("prompted", TASK)
ROWS = tuple(Example.pair(f"row {i}", "yes" if i % 2 else "no") for i in range(4))


def request(**changes: Any) -> Request:
    return Request(**{"description": TASK, "examples": ROWS, "refine": 2, **changes})


def same(one: Adapter, other: Adapter) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one.factors(), other.factors(), strict=True))


def test_fresh_serves_any_base_without_library_or_checkpoint(
    base: BaseReference, tmp_path: Path
) -> None:
    bases = [base]
    for family in ("gpt2", "gemma2"):
        tiny.model(tiny.config(family)).save_pretrained(tmp_path / family)
        bases.append(resolve_base(str(tmp_path / family)))
    engine = open_engine()
    for other in bases:
        start = engine.start("fresh", _query(engine, request(seed=3), other))
        layout = layout_of(load_config(other), rank=RANK)
        assert same(start.adapter, shared_start(layout, 3)) and start.adapter.is_zero()
        assert same(start.adapter, fresh_start(other, 3)) and start.checkpoint is None
        assert engine.strategy("fresh").unavailable(other) == ""
        offer = engine.strategy("fresh").offer(other)
        assert offer is not None and offer.layout == layout
        assert not same(start.adapter, fresh_start(other, 4))


def _query(engine: Engine, made: Request, base: BaseReference) -> Query:
    return Query(made, base, engine.resources)


def test_auto_trains_from_fresh_where_there_is_nothing_else(base: BaseReference) -> None:
    bare = Engine([])
    for description, mode in ((None, "bare"), (TASK, "prompted")):
        found = bare.propose("auto", request(description=description), base)
        direct = bare.propose("fresh", request(description=description), base)
        assert same(found.adapter, direct.adapter) and found.usage == direct.usage
        assert found.usage.mode == mode and found.chosen.strategy == "fresh"
        assert not found.adapter.is_zero() and found.refined is not None
        assert found.refined.settings.steps == 2 and found.details["refine"] == (
            found.refined.to_dict()
        )
    with pytest.raises(UsageError, match="a prompted adapter needs a description"):
        bare.propose("auto", request(description=None, mode="prompted"), base)
    with pytest.raises(LayoutMismatch, match="examples would, by training on them"):
        bare.propose("auto", request(refine=0), base)


@pytest.mark.parametrize("name", ["text-to-lora", "nearest", "compose", "multi-task", "fresh"])
def test_every_strategy_trains_its_own_start(
    name: str, several: Engine, base: BaseReference
) -> None:
    untrained = several.start(name, _query(several, request(), base))
    trained = several.propose(name, request(), base)
    assert untrained.refined is None and not same(untrained.adapter, trained.adapter)
    assert trained.adapter.layout == untrained.adapter.layout
    assert trained.usage == untrained.usage == PROMPTED and trained.parents == untrained.parents
    assert trained.refined is not None and trained.refined.used == 4
    assert trained.tried_in == "cpu-f32-torch"
    bare = several.propose(name, request(mode="bare"), base)
    assert bare.usage == BARE and not same(bare.adapter, trained.adapter)  # other prompts


@pytest.mark.parametrize("name", ["auto", "fresh", "text-to-lora"])
def test_the_same_bytes_again_and_with_any_threads(
    name: str, several: Engine, base: BaseReference
) -> None:
    first = several.generate(name, request(), base)
    said, before = json.loads(first.files.files[PROVENANCE_FILE]), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert several.generate(name, request(), base).files == first.files
            several.generate(name, request(examples=ROWS[:2], seed=4), base)
            assert several.generate(name, request(), base).files == first.files
    finally:
        torch.set_num_threads(before)
    assert said["details"]["refine"] == first.summary["refined"]
    assert said["numerics"] == "cpu-f64-torch+cpu-f32-torch" and said["examples"]
    assert said["usage"] == PROMPTED.to_dict() == first.summary["usage"]
    assert usage_of(first.files.files) == PROMPTED
    config = json.loads(first.files.files[CONFIG_FILE])
    assert adapter_id(config, first.files.sha256, said) == first.files.id
    assert adapter_id(config, first.files.sha256, {**said, "usage": None}) != first.files.id


def test_ids_tell_trained_adapters_apart(base: BaseReference) -> None:
    engine = Engine([])
    changes: list[dict[str, Any]] = [
        {}, {"refine": 3}, {"seed": 1}, {"mode": "bare"}, {"examples": ROWS[:3]},
        {"examples": ROWS[::-1]}, {"description": "Say it."}, {"rank": 2},
    ]  # fmt: skip
    made = [engine.generate("fresh", request(**change), base).files for change in changes]
    assert len({files.id for files in made}) == len(made)
    assert len({files.sha256 for files in made}) >= len(made) - 1  # the order may not matter


def test_progress_is_that_of_the_training(base: BaseReference) -> None:
    seen: list[tuple[int, int]] = []
    Engine([]).generate("fresh", request(), base, lambda *done: seen.append(done))
    assert seen[-1] == (6, 6)  # two steps of the whole and of two halves


def test_multi_task_is_the_stored_adapter(
    several: Engine, multi_task: Path, base: BaseReference, small_checkpoint: Path
) -> None:
    plain = Request(TASK)
    found = several.propose("multi-task", plain, base)
    stored = read_for_base(multi_task, base)
    assert same(found.adapter, stored) and found.usage == PROMPTED
    assert found.checkpoint == file_digest(multi_task / WEIGHTS_FILE)
    other = several.propose("multi-task", Request("Something else."), base)
    assert same(other.adapter, stored) and other.usage.message("x") == "Something else.\n\nx"
    offer = several.strategy("multi-task").offer(base)
    assert offer is not None and offer.layout == read_peft(multi_task).layout
    with pytest.raises(UsageError, match="mode bare is none"):
        several.propose("multi-task", replace(plain, mode="bare"), base)
    assert several.propose("multi-task", request(mode="bare"), base).usage == BARE


def test_multi_task_is_for_one_base(several: Engine, base: BaseReference, tmp_path: Path) -> None:
    tiny.model(tiny.config("llama"), seed=5).save_pretrained(tmp_path / "other")
    other = resolve_base(str(tmp_path / "other"))
    strategy = several.strategy("multi-task")
    assert "is for" in strategy.unavailable(other) and strategy.offer(other) is None
    with pytest.raises(LayoutMismatch, match=rf"is for .*, not for {tmp_path}"):
        several.propose("multi-task", Request(TASK), other)
    missing = Engine([], multi_task=[tmp_path / "none"])
    assert "no multi-task adapter" in missing.strategy("multi-task").unavailable(base)
    with pytest.raises(LayoutMismatch, match="no multi-task adapter"):
        missing.propose("multi-task", Request(TASK), base)


def test_each_base_has_its_own_multi_task_adapter(
    multi_task: Path, base: BaseReference, tmp_path: Path
) -> None:
    tiny.model(tiny.config("llama"), seed=5).save_pretrained(tmp_path / "other")
    other = resolve_base(str(tmp_path / "other"))
    its = tmp_path / "its"
    write_teacher(its, other.name, tiny.adapter(layout_of(load_config(other), rank=3)))
    for folders in ([its, multi_task], [multi_task, its]):
        strategy = Engine([], multi_task=folders).strategy("multi-task")
        assert isinstance(strategy, MultiTask)
        for asked, folder in ((base, multi_task), (other, its)):
            assert strategy.unavailable(asked) == ""
            assert strategy.stored(asked).weights_digest == file_digest(folder / WEIGHTS_FILE)
            assert same(strategy.stored(asked).adapter_for(asked), read_for_base(folder, asked))
            teacher = strategy.teacher(TASK, asked)
            assert same(teacher.adapter, read_for_base(folder, asked))


def test_a_base_under_another_name_is_known_by_its_folder(
    multi_task: Path, base: BaseReference, tmp_path: Path
) -> None:
    served = replace(base, name="mine")  # as a service calls it
    assert not (multi_task / PROVENANCE_FILE).exists()
    strategy = Engine([], multi_task=[multi_task]).strategy("multi-task")
    assert strategy.unavailable(served) == ""
    other = replace(base, name="other", path=str(tmp_path))
    tiny.model(tiny.config("llama"), seed=5).save_pretrained(tmp_path)
    several = Engine([], multi_task=[multi_task, multi_task]).strategy("multi-task")
    assert several.unavailable(other) == "no multi-task adapter is for other"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (CONFIG_FILE, None),
        (CONFIG_FILE, b"{"),
        (CONFIG_FILE, b'{"peft_type": "LORA"}'),
        (WEIGHTS_FILE, None),
        (WEIGHTS_FILE, b"short"),
        (PROVENANCE_FILE, b"{"),
        (PROVENANCE_FILE, b'["ad_0"]'),
    ],
)
def test_a_damaged_multi_task_adapter_is_told(
    name: str, content: bytes | None, multi_task: Path, base: BaseReference, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(multi_task, folder)
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(AdapterFileError, match=str(folder)):
        require_serving([folder], [replace(base, name="mine")])


def test_every_folder_that_is_named_has_to_serve_a_base(
    multi_task: Path, base: BaseReference, tmp_path: Path
) -> None:
    tiny.model(tiny.config("llama"), seed=5).save_pretrained(tmp_path / "other")
    other, far = resolve_base(str(tmp_path / "other")), BaseReference("far", str(tmp_path))
    require_serving([multi_task], [other, base])
    require_serving([multi_task], [far, base])  # one that cannot be read now
    with pytest.raises(LayoutMismatch, match=rf"{multi_task} is of no use: .*; .* 'far' cannot be"):
        require_serving([multi_task], [other, far])
    with pytest.raises(LayoutMismatch, match="there is no base model"):
        require_serving([multi_task], [])
    with pytest.raises(MissingPath, match="there is nothing at"):
        require_serving([tmp_path / "none"], [base])


def test_auto_takes_it_where_the_instruction_may_stand_in_the_prompt(
    several: Engine, base: BaseReference
) -> None:
    far = "Name the capital of the country."
    for asked in (Request(far), Request(far, mode="prompted")):
        proposal = several.propose("auto", asked, base)
        assert proposal.chosen.strategy == proposal.details["strategy"] == "multi-task"
        assert "reads the instruction in its prompt" in proposal.chosen.reason
    bare = several.propose("auto", Request(far, mode="bare"), base)
    assert bare.chosen.strategy == "text-to-lora" and bare.usage == BARE
    near = several.propose("auto", Request(tiny.LIBRARY_TASKS["sum"]), base)
    assert near.chosen.strategy == "nearest"
    for made, start in ((request(), "multi-task"), (request(description=None), "fresh")):
        trained = several.propose("auto", made, base)
        assert trained.chosen.strategy == start and trained.refined is not None
        assert same(trained.adapter, several.propose(start, made, base).adapter)
