"""Examples in the prompt of the multi-task adapter, where it is not trained on them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lorasmith
from generator.engine import Engine
from generator.request import Request
from generator.strategies.multi_task import SHOWN, SHOWN_CHARACTERS
from library.base.models import BaseReference
from library.base.usage import BARE, Usage
from library.errors import UsageError
from library.files import write_folder
from library.tasks.files import Example
from verification.scores.behaviour import Examples
from verification.scores.sources import REQUEST, _unshown

TASK = "Say yes or no."
TWO = (Example.pair("row 1", "yes"), Example.pair("say {input}", "no"))
TEMPLATE = f"{TASK}\n\nInput: row 1\nOutput: yes\n\nInput: say {{input}}\nOutput: no\n\n{{input}}"
ASKED = Request(TASK, examples=TWO, refine=0)


def test_the_prompt_shows_them_and_the_weights_are_the_same(
    several: Engine, base: BaseReference
) -> None:
    shown = several.propose("multi-task", ASKED, base)
    assert shown.usage == Usage("prompted", TEMPLATE)
    assert shown.usage.message("row 3") == TEMPLATE.removesuffix("{input}") + "row 3"
    assert "its prompt shows 2 of 2 examples" in shown.chosen.reason and shown.refined is None
    plain, told = Request(TASK), Request(TASK, examples=TWO[:1], refine=0)
    made = [several.generate("multi-task", r, base) for r in (plain, told, ASKED)]
    assert len({one.files.sha256 for one in made}) == 1 and len({one.files.id for one in made}) == 3


@pytest.mark.parametrize("mode", ["best", "prompted"])
def test_auto_shows_them(several: Engine, base: BaseReference, mode: Any) -> None:
    found = several.propose("auto", replace(ASKED, mode=mode), base)
    assert found.usage == Usage("prompted", TEMPLATE)
    assert found.details["strategy"] == found.chosen.strategy == "multi-task"


def test_auto_compares_answers_where_no_prompt_holds_them(
    several: Engine, alone: Engine, base: BaseReference
) -> None:
    for engine, request in ((several, replace(ASKED, mode="bare")), (alone, ASKED)):
        found = engine.propose("auto", request, base)
        assert "the least loss a token on 2 examples" in found.chosen.reason
        assert found.usage == BARE


def test_what_cannot_be_shown_is_refused(several: Engine, base: BaseReference) -> None:
    with pytest.raises(UsageError, match="mode bare is none"):
        several.propose("multi-task", replace(ASKED, mode="bare"), base)
    with pytest.raises(UsageError, match="a description is needed"):
        several.propose("multi-task", replace(ASKED, description=None), base)
    long = replace(ASKED, examples=(Example.pair("the " * (SHOWN_CHARACTERS // 4), "y"),))
    with pytest.raises(UsageError, match="every example is longer than the 2,000 characters"):
        several.propose("multi-task", long, base)
    assert "least loss" in several.propose("auto", long, base).chosen.reason


@pytest.mark.parametrize(
    ("lengths", "kept"),
    [
        ([1] * (SHOWN + 1), range(SHOWN)),
        ([SHOWN_CHARACTERS + 1, 1], [1]),
        ([SHOWN_CHARACTERS], [0]),
        ([SHOWN_CHARACTERS - 2, 3, 2], [0, 2]),
    ],
)
def test_a_prompt_shows_the_first_that_fit(
    several: Engine, base: BaseReference, lengths: list[int], kept: Any
) -> None:
    rows = tuple(Example.pair("x" * (size - 1), str(i)) for i, size in enumerate(lengths))
    shown = several.propose("multi-task", replace(ASKED, examples=rows), base)
    blocks = [f"Input: {rows[i].input}\nOutput: {i}" for i in kept]
    assert shown.usage.template == "\n\n".join([TASK, *blocks, "{input}"])
    assert f"shows {len(blocks)} of {len(rows)} examples" in shown.chosen.reason


def test_training_on_goes_without_them(
    several: Engine, base: BaseReference, multi_task: Path, tmp_path: Path
) -> None:
    """The prompt would hold the very answers that are to be learned."""
    pairs = [(example.input, example.output) for example in TWO]
    shown = lorasmith.generate(
        TASK,
        examples=pairs,
        refine=0,
        generator="multi-task",
        base=base.name,
        multi_task=multi_task,
    )
    assert shown.summary["usage"]["template"] == TEMPLATE
    folder = shown.save(tmp_path / "shown")
    assert json.dumps(TEMPLATE) in (folder / "README.md").read_text()
    further = lorasmith.refine([("row 4", "yes")], folder, base=base.name, steps=1)
    assert further.summary["usage"] == Usage.of("prompted", TASK).to_dict()
    said = json.loads(further.files["provenance.json"])
    assert said["usage"] == further.summary["usage"] and said["description"] == TASK
    same = [*pairs, ("row 5", "yes"), ("row 6", "no")]
    four = lorasmith.generate(
        TASK, examples=same, refine=0, generator="multi-task", base=base.name, multi_task=multi_task
    ).save(tmp_path / "four")
    held_out = lorasmith.refine(same, four, base=base.name, steps=1).summary["refined"]["held_out"]
    assert held_out["of"] == 4  # its weights have not seen them


def test_what_shows_examples_merges_with_what_does_not(
    several: Engine, base: BaseReference, multi_task: Path, tmp_path: Path
) -> None:
    made = [
        several.generate("multi-task", request, base).files.files
        for request in (Request(TASK), ASKED, Request("Another task."))
    ]
    folders = [tmp_path / str(i) for i in range(3)]
    for folder, files in zip(folders, made, strict=True):
        write_folder(folder, files)

    def usage_of_sum(*parents: Path) -> dict[str, str]:
        return lorasmith.compose(list(parents)).summary["usage"]

    assert usage_of_sum(folders[1], folders[1])["template"] == TEMPLATE
    assert usage_of_sum(*folders[:2]) == Usage.of("prompted", TASK).to_dict()
    assert usage_of_sum(*folders[1:]) == BARE.to_dict()


def test_nothing_is_expected_of_it_and_examples_that_it_shows_measure_nothing(
    several: Engine, base: BaseReference
) -> None:
    proposal = several.propose("multi-task", ASKED, base)
    assert proposal.saw_examples
    assert not several.propose("multi-task", Request(TASK), base).saw_examples
    usage, told = proposal.usage, [(row.input, row.output) for row in TWO]
    assert [usage.shows(*pair) for pair in (*told, ("row 1", "no"), ("row 7", "yes"))] == [
        True, True, False, False,
    ]  # fmt: skip
    assert _unshown(Examples((*TWO, Example.pair("row 7", "yes")), REQUEST), usage).rows == [
        Example.pair("row 7", "yes")
    ]
