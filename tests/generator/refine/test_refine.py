"""Refinement: any start, each adapter by itself, the same bytes again, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel

import lorasmith
from api.cli.main import main
from generator.refine.limits import MAX_STEPS, require_trainable
from generator.refine.training import Refinement, RefineSettings, example_rows, refine_adapters
from library.adapter import Adapter
from library.base.example_loss import mean_losses
from library.base.models import (
    DEFAULT_BASE,
    BaseModel,
    BaseReference,
    base_layout,
    load_base,
    load_model,
    resolve_base,
)
from library.base.usage import Usage
from library.errors import LayoutMismatch, MissingPath, TaskFileError, UsageError
from library.layout import Layout, layout_of
from library.peft.read import read_peft
from library.tasks.files import Example
from library.trainer.optimiser import StackedAdamW, shared_start
from library.trainer.recipes.registry import RECIPES

PAIRS = [("1 2 3", "yes"), ("3 2", "no"), ("4 4 4", "yes"), ("9", "no"), ("5 1", "no")]
EXAMPLES = [Example.pair(text, output) for text, output in PAIRS]
FEW = RefineSettings(steps=6, lr=1e-2)


@pytest.fixture(scope="module")
def loaded(base: BaseReference) -> BaseModel:
    return load_base(base)


@pytest.fixture(scope="module")
def layout(loaded: BaseModel) -> Layout:
    return layout_of(loaded.model.config, rank=4)


def start(layout: Layout, seed: int) -> Adapter:
    return tiny.adapter(layout, seed=seed).scaled(0.1)


def rescaled(adapter: Adapter, factor: float) -> Adapter:
    """The same ΔW in another gauge: A times a factor, B divided by it."""
    a = {key: value * factor for key, value in adapter.A.items()}
    return replace(adapter, A=a, B={key: value / factor for key, value in adapter.B.items()})


def assert_same_update(one: Adapter, other: Adapter, atol: float) -> None:
    others = tiny.deltas(other)
    for name, delta in tiny.deltas(one).items():
        torch.testing.assert_close(delta, others[name], atol=atol, rtol=1e-4)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.floats(-3, 3))
def test_a_start_keeps_its_update_and_is_balanced(seed: int, exponent: float) -> None:
    """What lies in the slot is the start's ΔW, with A of the shared start's size in any gauge."""
    layout = layout_of(tiny.config("llama"), rank=3)
    adapter = tiny.adapter(layout, seed=seed).to(dtype=torch.float64)
    adapter = rescaled(adapter, 10.0**exponent)
    shared = shared_start(layout, 0, torch.float64)
    optimiser = StackedAdamW(shared, 2, RECIPES["lora"])
    optimiser.reset(1, adapter)
    placed = optimiser.adapters()
    assert_same_update(placed[[1]], adapter, atol=1e-6)
    for key, a in placed.A.items():
        norms, expected = (value.flatten(2).norm(dim=2) for value in (a[1:], shared.A[key]))
        torch.testing.assert_close(norms, expected, atol=1e-5, rtol=1e-4)
    assert all(not b[0].any() for b in placed.B.values())  # the other slot is as it was


def test_another_layout_is_refused(layout: Layout) -> None:
    optimiser = StackedAdamW(shared_start(layout, 0), 1, RECIPES["lora"])
    with pytest.raises(LayoutMismatch):
        optimiser.reset(0, tiny.adapter(layout.with_rank(2)))


def test_the_gauge_of_a_start_does_not_matter(loaded: BaseModel, layout: Layout) -> None:
    rows, first = example_rows(loaded, EXAMPLES), start(layout, 1)
    scaled = [Refinement(rescaled(first, factor), rows) for factor in (1.0, 8.0)]
    one, other = refine_adapters(loaded, layout, scaled, FEW)
    assert_same_update(one.adapter, other.adapter, atol=1e-5)
    assert one.step == other.step == FEW.steps


def test_each_is_trained_by_itself(loaded: BaseModel, layout: Layout) -> None:
    rows = example_rows(loaded, EXAMPLES)
    mine = Refinement(start(layout, 1), rows)
    together = refine_adapters(
        loaded,
        layout,
        [mine, Refinement(shared_start(layout, 0), rows[:2]), Refinement(start(layout, 2), rows)],
        FEW,
    )
    (alone,) = refine_adapters(loaded, layout, [mine], FEW)
    assert_same_update(together[0].adapter, alone.adapter, atol=1e-5)
    assert any(delta.any() for delta in tiny.deltas(together[1].adapter).values())


def test_it_learns_the_examples(loaded: BaseModel, layout: Layout) -> None:
    first = start(layout, 3)
    rows = example_rows(loaded, EXAMPLES)
    many = RefineSettings(steps=40, lr=1e-2)
    nothing = Refinement(shared_start(layout, 0), rows)
    fresh, refined = refine_adapters(loaded, layout, [nothing, Refinement(first, rows)], many)
    adapters = [first, refined.adapter, fresh.adapter]
    losses, used = mean_losses(loaded, adapters, EXAMPLES, 1024)
    assert used == len(EXAMPLES)
    assert losses[1] < 0.7 * losses[0] and losses[2] < 0.7 * losses[0]


def test_rows_carry_the_instruction_where_the_mode_has_it(loaded: BaseModel) -> None:
    bare, prompted = (
        example_rows(loaded, EXAMPLES[:1], Usage.of(mode, "Say yes."))[0]
        for mode in ("bare", "prompted")
    )
    assert bare.answer == prompted.answer and len(bare.prompt) < len(prompted.prompt)


def test_the_command_and_python_give_the_same_bytes(
    tiny_base: Path, tmp_path: Path, capsys: Any
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"input": i, "output": o}) + "\n" for i, o in PAIRS))
    fresh = lorasmith.refine(PAIRS, base=str(tiny_base), steps=3)
    command = ["refine", "--examples", str(rows), "--steps", "3", "--base", str(tiny_base)]
    assert main([*command, "--out", str(tmp_path / "a"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {key: printed[key] for key in fresh.summary} == fresh.summary
    assert printed["start"] is None and printed["expected"] == fresh.summary["expected"]
    assert printed["usage"] == {"mode": "bare", "template": "{input}"}
    assert printed["refined"]["examples_used"] == 5 and printed["refined"]["steps"] == 3
    assert printed["refined"]["held_out"]["of"] == 5
    written = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    assert written == fresh.files
    # From there on: provenance names the start, another seed is another adapter, PEFT loads it.
    again = lorasmith.refine(rows, tmp_path / "a", base=str(tiny_base), steps=3, seed=1)
    provenance = json.loads(again.files["provenance.json"])
    assert provenance["parents"] == [fresh.id] and provenance["generator"] == "refine"
    assert provenance["details"]["refine"] == again.summary["refined"] and provenance["examples"]
    assert provenance["usage"] == again.summary["usage"]
    other = lorasmith.refine(rows, tmp_path / "a", base=str(tiny_base), steps=3, seed=2)
    assert other.id != again.id and other.sha256 != again.sha256
    reference = resolve_base(str(tiny_base))
    PeftModel.from_pretrained(load_model(reference), tmp_path / "a")
    assert lorasmith.verify(tmp_path / "a", base=str(tiny_base)).verdict in ("accept", "warn")
    assert main([*command, "--out", str(tmp_path / "a")]) == 2  # it is there
    assert {f.name: f.read_bytes() for f in (tmp_path / "a").iterdir()} == fresh.files
    layout = base_layout(reference, read_peft(tmp_path / "a").layout)
    stored = tiny.deltas(read_peft(tmp_path / "a", layout))
    assert all(delta.any() for delta in stored.values())


def test_what_a_start_has_seen_is_not_held_out_from_it(tiny_base: Path, tmp_path: Path) -> None:
    options: Any = {"base": str(tiny_base), "steps": 2}
    fresh = lorasmith.refine(PAIRS, **options)
    assert fresh.summary["refined"]["held_out"]["of"] == len(PAIRS)
    start = fresh.save(tmp_path / "start")
    again = lorasmith.refine(PAIRS, start, **options)
    assert again.summary["refined"]["held_out"] is None
    others = [(f"{text} 7", output) for text, output in PAIRS]
    assert lorasmith.refine(others, start, **options).summary["refined"]["held_out"] is not None


def test_what_cannot_be_trained_on_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    base = str(tiny_base)
    for pairs in ([], [("a", " ")], [("a", "yes"), ("a", "no")], [("a", "b")] * 201):
        with pytest.raises(UsageError):
            lorasmith.refine(pairs, base=base)
    for steps in (0, -1, MAX_STEPS + 1):
        with pytest.raises(UsageError):
            lorasmith.refine(PAIRS, base=base, steps=steps)
    with pytest.raises(UsageError):
        lorasmith.refine([("1 " * 2000, "yes")], base=base)
    with pytest.raises(MissingPath):
        lorasmith.refine(PAIRS, tmp_path / "none", base=base)
    with pytest.raises(LayoutMismatch):
        adapter = lorasmith.refine(PAIRS, base=base, steps=1).save(tmp_path / "a")
        lorasmith.refine(PAIRS, adapter, base=DEFAULT_BASE)
    broken = tmp_path / "broken.jsonl"
    broken.write_text("no JSON")
    with pytest.raises(TaskFileError):
        lorasmith.refine(broken, base=base)
    require_trainable(EXAMPLES + EXAMPLES, None)  # the same pair twice is no contradiction
