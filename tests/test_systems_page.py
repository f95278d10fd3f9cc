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
GATES = PAGE.split("## Gates")[1].split("\n## ")[0]


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


def options(text: str, name: str) -> set[str]:
    """The values that a text gives an option, with their settings."""
    return set(re.findall(rf"--{name} ([^` ]+)`", text))


def test_every_gate_has_its_line() -> None:
    named = {line.split("`")[1] for line in GATES.splitlines() if line.count("`") >= 2}
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


@pytest.mark.parametrize(
    ("file", "option", "key"),
    [
        ("recipes.json", "recipe", "recipe"),
        ("recipes-peft.json", "recipe", "recipe"),
        ("recipes.json", "update", "update"),
        ("placement.json", "placement", "placement"),
    ],
)
def test_what_is_shown_by_a_report_is_a_row_of_it(file: str, option: str, key: str) -> None:
    report = json.loads((tiny.ROOT / "docs" / "results" / file).read_text())
    measured = {row[key] for row in report["results"]}
    lines = [line for line in PAGE.splitlines() if f"--{option} " in line]
    linked = {o for line in lines if file in line for o in options(line, option)}
    others = {o for line in lines if file not in line for o in options(line, option)}
    assert linked and linked <= measured, linked - measured
    assert not others & (measured - {"lora"}), "measured, and not shown"


def test_every_gate_s_scores_are_the_report_s() -> None:
    report = json.loads((tiny.ROOT / "docs" / "results" / "routing.json").read_text())
    scores = {
        (row["system"], row["mode"], row["in_domain"]): f"{row['rouge_l']:.1f}"
        for row in report["results"]
    }
    for name in SYSTEMS:
        (line,) = (line for line in GATES.splitlines() if f"| `{name}`" in line)
        shown = [scores[name, mode, own] for own in (True, False) for mode in ("bare", "prompted")]
        assert "{} / {}, {} / {}".format(*shown) in line, name
