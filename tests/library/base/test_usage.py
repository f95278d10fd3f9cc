"""Usage: the prompt of an adapter, as it is built, stored in provenance and read again."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.base.folder_readme import folder_readme
from library.base.prompts import user_turn
from library.base.usage import BARE, PLACEHOLDER, Usage, usage_of
from library.errors import UsageError
from library.peft.provenance import PROVENANCE_FILE, adapter_id, encode_provenance

# Texts with braces and placeholders of their own, which no template may trip over.
texts = st.lists(
    st.sampled_from([PLACEHOLDER, "{", "}", "{}", "{0}", "%s", "\n\n", "é", "in", " "]) | st.text()
).map("".join)
instructions = texts.filter(bool)


def kept(usage: Usage) -> Usage:
    """A usage after it was written to provenance and read again."""
    return usage_of({PROVENANCE_FILE: encode_provenance({"usage": usage.to_dict()})})


@given(instructions, texts)
def test_the_input_goes_where_the_last_placeholder_stands(instruction: str, text: str) -> None:
    assert Usage.of("prompted", instruction).message(text) == user_turn(
        "prompted", instruction, text
    )
    assert Usage.of("bare", instruction) == BARE == Usage.of("bare", None)
    assert BARE.message(text) == text


@given(texts, texts.filter(lambda text: PLACEHOLDER not in text), texts)
def test_a_template_of_ones_own(before: str, after: str, text: str) -> None:
    # "{inp" before "ut}" would be a placeholder too: only what follows the last one counts.
    usage = Usage("prompted", f"{before}{PLACEHOLDER}{after}")
    where = usage.template.rindex(PLACEHOLDER)
    assert usage.message(text) == usage.template[:where] + text + usage.template[where + 7 :]
    assert usage.message(PLACEHOLDER) == usage.template


@given(instructions.filter(lambda text: text.isprintable()))
def test_it_is_read_from_provenance_as_it_was_written(instruction: str) -> None:
    for usage in (BARE, Usage.of("prompted", instruction)):
        assert kept(usage) == usage


def test_files_that_state_none_are_bare() -> None:
    stated: list[Any] = [{}, [], 5, None, {"usage": None}, {"usage": []}, {"usage": {}}]
    stated += [{"usage": {"mode": "bare"}}, {"usage": {"mode": "odd", "template": PLACEHOLDER}}]
    stated += [{"usage": {"mode": "prompted", "template": t}} for t in ("no place", 5, None)]
    for content in stated:
        assert usage_of({PROVENANCE_FILE: json.dumps(content).encode()}) == BARE, content
    for raw in (b"", b"{", b"\xff"):
        assert usage_of({PROVENANCE_FILE: raw}) == BARE
    assert usage_of({}) == BARE


def test_what_is_no_usage_is_refused() -> None:
    for instruction in (None, ""):
        with pytest.raises(UsageError, match="needs a description"):
            Usage.of("prompted", instruction)
    for template in ("", "{inputs}", "{ input}"):
        with pytest.raises(UsageError, match="a usage has a mode and a template"):
            Usage("prompted", template)


def test_ids_cover_a_usage_where_there_is_one() -> None:
    request = {"generator": "auto", "description": "Say yes.", "seed": 0}
    without = adapter_id({}, "s", request)
    assert adapter_id({}, "s", {**request, "usage": None}) == without  # as before there were any
    stated = [BARE, Usage.of("prompted", "Say yes."), Usage.of("prompted", "Say no.")]
    ids = [adapter_id({}, "s", {**request, "usage": usage.to_dict()}) for usage in stated]
    assert len({without, *ids}) == 4
    assert adapter_id({}, "s", {**request, "expected": {"score": 1}}) == without


@pytest.mark.parametrize("instruction", ["Say yes.", "Say `yes`\nor {input}."])
def test_the_page_for_people_states_its_facts(instruction: str) -> None:
    expected = {"score": 50.0, "low": 40.0, "high": 60.0, "calibration": "of 9 tasks"}
    for usage in (BARE, Usage.of("prompted", instruction)):
        said = {
            "id": "ad_1",
            "generator": "auto",
            "base": {"id": "some/base"},
            "description": instruction,
            "usage": usage.to_dict(),
            "expected": expected,
            "report": {"verdict": "accept"},
        }
        page = folder_readme(said)
        assert page.startswith("# LoRA adapter ad_1\n") and page.count("\n- ") == 5
        assert "some/base" in page and "40 to 60 of 100" in page and "accept" in page
        assert ("the input alone" in page) is (usage == BARE)
        unknown = folder_readme({**said, "expected": None, "description": None, "report": None})
        assert "not measured" in unknown and "examples alone" in unknown
        assert "Verified: not yet" in unknown and unknown.count("\n- ") == 5
