"""docs/systems.md names what there is, and nothing else."""

import json
import re
from pathlib import Path

import pytest
import tiny

from generator.models.base import registered
from index.gate.systems import SYSTEMS
from index.merge.methods import METHODS
from library.placement.registry import PLACEMENTS
from library.trainer.recipes.registry import RECIPES
from library.trainer.recipes.updates import UPDATES

PAGE = (tiny.ROOT / "docs" / "systems.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("option", "known", "of_no_paper"),
    [
        ("recipe", {*RECIPES}, {"share-lora-b", "peft:lora", "peft:randlora", "peft:vera"}),
        ("update", {*UPDATES}, {"adamw"}),
        ("placement", {*PLACEMENTS}, {"uniform"}),
        ("method", {*METHODS}, {*METHODS}),
        ("generator", {*registered()}, set[str]()),
    ],
)
def test_options_are_names_that_are_registered(
    option: str, known: set[str], of_no_paper: set[str]
) -> None:
    named = set(re.findall(rf"--{option} ((?:peft:)?[a-z0-9-]+)", PAGE))
    assert named and named <= known, named - known
    assert known - of_no_paper <= named, known - of_no_paper - named


def test_every_gate_has_its_line() -> None:
    gates = PAGE.split("## Gates")[1].split("\n## ")[0]
    named = {line.split("`")[1] for line in gates.splitlines() if line.count("`") >= 2}
    assert {*SYSTEMS} <= named


def test_architectures_are_rows_of_the_report() -> None:
    report = json.loads((tiny.ROOT / "docs" / "results" / "architectures.json").read_text())
    rows = {row["name"] for row in report["rows"] if set(row["steps"].values()) == {"ok"}}
    table = PAGE.split("| System | Rows |")[1].split("\n## ")[0]
    named = set(re.findall(r"`([a-z0-9_]+)`", table))
    assert len(named) > 10 and named <= rows, named - rows


def test_links_lead_to_what_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert len(links) > 20
    for link in links:
        assert (Path(tiny.ROOT) / "docs" / link).exists(), link
