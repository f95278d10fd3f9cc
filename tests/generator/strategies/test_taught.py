"""Requests with inputs and no answers: the start, the prompt, what is said, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from generator.engine import Engine
from generator.refine.limits import MAX_INPUTS, UNDESCRIBED
from generator.request import NEITHER, Query, Request
from generator.strategies.auto import BOTH_REASON, INPUTS_REASON
from library.base.models import BaseReference, resolve_base
from library.base.stored_adapters import read_for_base
from library.base.usage import BARE, Usage
from library.canonical import file_digest
from library.errors import LayoutMismatch, UsageError
from library.peft.provenance import README_FILE
from library.peft.write import WEIGHTS_FILE
from library.tasks.files import Example
from library.tasks.identity import inputs_digest

TASK = "Say yes or no."
INPUTS = tuple(f"row {i}" for i in range(6))


@pytest.fixture(scope="module")
def engine(multi_task: Path) -> Engine:
    return Engine([], multi_task=[multi_task])


def request(**changes: Any) -> Request:
    return Request(**{"description": TASK, "inputs": INPUTS, "refine": 2, **changes})


def test_auto_starts_from_the_teacher_and_ends_with_bare_prompts(
    engine: Engine, base: BaseReference, multi_task: Path
) -> None:
    digest = file_digest(multi_task / WEIGHTS_FILE)
    stored = read_for_base(multi_task, base)
    for mode in ("best", "bare"):
        start = engine.start("auto", Query(request(mode=mode), base, engine.resources))
        assert (start.chosen.strategy, start.chosen.reason) == ("multi-task", INPUTS_REASON)
        assert start.usage == BARE and start.checkpoint == digest
        for a, b in zip(start.adapter.factors(), stored.factors(), strict=True):
            assert torch.equal(a, b)
    teacher = engine.teachers.teacher(TASK, base)
    assert teacher.usage == Usage.of("prompted", TASK) and teacher.digest == digest
    assert engine.start("fresh", Query(request(), base, engine.resources)).usage == BARE


def test_what_is_said_of_it_promises_nothing(
    engine: Engine, base: BaseReference, multi_task: Path
) -> None:
    made = engine.generate("auto", request(), base)
    about = made.summary["refined"]["inputs"]
    assert about["given"] == 6 and about["digest"] == inputs_digest(INPUTS)
    assert about["teacher"] == file_digest(multi_task / WEIGHTS_FILE)
    assert about["agreement"]["of"] == 1 and about["used"] == 5 and about["kept_step"] == 2
    assert made.summary["expected"] is None and made.summary["usage"] == BARE.to_dict()
    provenance = made.files.provenance
    assert provenance["details"]["refine"] == made.summary["refined"]
    assert provenance["description"] == TASK and provenance["examples"] is None
    codes = [finding["code"] for finding in made.summary["report"]["findings"]]
    assert "expected-unknown" in codes and made.summary["report"]["verdict"] == "warn"
    page = made.files.files[README_FILE].decode()
    assert "the input alone" in page and "answers of a teacher" in page and "of 1 inputs" in page


def test_the_same_request_gives_the_same_bytes(engine: Engine, base: BaseReference) -> None:
    one, before = engine.generate("auto", request(), base).files, torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert engine.generate("auto", request(), base).files.files == one.files
    finally:
        torch.set_num_threads(before)
    for change in ({"seed": 1}, {"inputs": INPUTS[::-1]}, {"refine": 3}, {"inputs": INPUTS[:5]}):
        other = engine.generate("auto", request(**change), base)
        assert other.files.id != one.id and other.files.sha256 != one.sha256


def test_with_examples_what_was_held_out_counts(engine: Engine, base: BaseReference) -> None:
    rows = tuple(Example.pair(f"other {i}", "yes") for i in range(4))
    made = engine.generate("auto", request(examples=rows), base)
    assert made.summary["chosen"]["reason"] == BOTH_REASON
    refined = made.summary["refined"]
    assert refined["examples_used"] == 4 and refined["held_out"]["of"] == 4
    assert refined["inputs"]["used"] == 5 and made.summary["expected"] is None
    assert made.files.provenance["examples"] == request(examples=rows).examples_digest
    codes = [finding["code"] for finding in made.summary["report"]["findings"]]
    assert "expected-unknown" not in codes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "prompted"}, "inputs make an adapter for bare prompts"),
        ({"refine": 0}, "inputs are there to be trained on"),
        ({"inputs": ("row", " \n")}, "an input is empty"),
        ({"inputs": ("row",) * 10_000}, f"1 to {MAX_INPUTS} inputs are needed, not 10,000"),
        ({"inputs": ("\ud800",)}, "not valid UTF-8"),
        ({"inputs": (), "description": None, "refine": None}, NEITHER),
    ],
)
def test_requests_that_cannot_be_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        request(**changes)
    assert words in str(refused.value)


def test_without_a_description_or_a_teacher_nothing_begins(
    engine: Engine, base: BaseReference, tmp_path: Path
) -> None:
    for name in ("auto", "fresh", "multi-task"):
        undescribed = Query(request(description=None), base, engine.resources)
        with pytest.raises(UsageError, match=UNDESCRIBED):
            engine.start(name, undescribed)
    shipped, absent = Engine([]), Engine([], multi_task=[tmp_path / "none"])
    for other, words in (
        (shipped, "no multi-task adapter is for"),
        (absent, "has no multi-task adapter"),
    ):
        for name in ("auto", "fresh"):
            with pytest.raises(LayoutMismatch, match="nothing can answer the inputs: .*" + words):
                other.start(name, Query(request(), base, other.resources))
    own = shipped.teachers.teacher(TASK, resolve_base())
    assert not own.adapter.is_zero()
