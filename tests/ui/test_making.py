"""From a description to an adapter, as a person goes: made, tried, trained, published, taken."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from jobs import (  # noqa: F401  (fixtures)
    EXAMPLES,
    Halt,
    engine,
    gate_of,
    library,
    made,
    service,
    settings,
    stored,
    tasks,
)
from playwright.sync_api import Page, expect
from rest import TASK

from api.service.service import Service
from api.service.settings import Settings

LINES = "\n".join(json.dumps(example) for example in EXAMPLES)
START_SECONDS = 120  # the most that a process of training takes to start on a busy machine
INPUTS = ["It was long.", "Great film!"]


def describe(page: Page, text: str = TASK) -> None:
    page.get_by_label("What should the model do?").fill(text)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def add_many(part: Any, lines: str) -> None:
    part.get_by_text("Add many at once").click()
    part.get_by_label("One a line").fill(lines)
    part.get_by_role("button", name="Add these").click()


def adapter_of(page: Page) -> str:
    """The id of the adapter that is shown, once it is."""
    page.wait_for_url(re.compile("#/adapters/ad_"), timeout=1000 * START_SECONDS)
    expect(page.get_by_role("heading", name="How far to trust it")).to_be_visible()
    return page.url.rsplit("/", 1)[1]


def make(page: Page, text: str = TASK) -> str:
    describe(page, text)
    press(page, "Make the adapter")
    return adapter_of(page)


def train(page: Page, steps: str = "3") -> None:
    """Ask for an adapter that is trained."""
    describe(page)
    add_many(page.locator("#make"), LINES)
    page.get_by_text("More settings").click()
    page.get_by_label("Steps of training").first.fill(steps)
    press(page, "Make the adapter")


def card(page: Page, title: str) -> Any:
    return page.get_by_role("region", name=title)


def answered(origin: str, model: str, content: str) -> str:
    message = {"role": "user", "content": content}
    body = {"model": model, "messages": [message], "temperature": 0, "max_tokens": 64}
    answer = httpx.post(f"{origin}/v1/chat/completions", json=body, timeout=60)
    return answer.json()["choices"][0]["message"]["content"]


def test_an_adapter_is_shown_with_what_the_api_says_of_it(page: Page, origin: str) -> None:
    identity = make(page)
    body = httpx.get(f"{origin}/v1/adapters/{identity}").json()
    reason = body["chosen"]["reason"]
    expect(page.locator("[data-reason]")).to_have_text(f"{reason[0].upper()}{reason[1:]}.")
    near = card(page, "Why this one").get_by_role("link")
    expect(near).to_have_text([neighbour["task"] for neighbour in body["chosen"]["neighbours"]])
    for finding in body["report"]["findings"]:
        expect(page.locator("[data-findings]")).to_contain_text(finding["message"][1:])
    expect(page.locator("[data-template]")).to_have_text(body["usage"]["template"])
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    assert "lorasmith" in page.title()


def test_base_and_adapter_answer_side_by_side(page: Page, origin: str) -> None:
    identity = make(page)
    page.get_by_label("Inputs, one a line").fill("\n\n".join(INPUTS))
    press(page, "Ask both")
    expect(page.get_by_text("2 inputs are answered.")).to_be_visible(timeout=60_000)
    template = httpx.get(f"{origin}/v1/adapters/{identity}").json()["usage"]["template"]
    for row, text in zip(page.locator(".answers tbody tr").all(), INPUTS, strict=True):
        content = template.replace("{input}", text)
        cells = [row.get_by_role("rowheader"), *row.get_by_role("cell").all()]
        base, adapted = (answered(origin, m, content) for m in ("tiny", f"generated/{identity}"))
        assert [cell.text_content() for cell in cells] == [text, base, adapted]
        assert base != adapted


def test_what_is_wrong_is_said_in_the_sentence_of_the_api(page: Page, origin: str) -> None:
    press(page, "Make the adapter")
    detail = httpx.post(f"{origin}/v1/adapters", json={}).json()["detail"]
    expect(page.get_by_role("alert")).to_have_text(f"{detail[0].upper()}{detail[1:]}.")
    describe(page)
    press(page, "Add an example")
    page.locator("#make").get_by_label("Input", exact=True).fill("Great film!")
    press(page, "Make the adapter")
    expect(page.get_by_role("alert")).to_have_text("Example 1 has no output.")
    page.get_by_role("button", name="Remove example 1").click()
    page.get_by_text("More settings").click()
    page.get_by_label("Rank").fill("many")
    press(page, "Make the adapter")
    expect(page.get_by_role("alert")).to_contain_text("Rank: ")
    page.get_by_label("Rank").fill("")
    make(page)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_inputs_are_asked_to_be_written(page: Page) -> None:
    """The tiny base has nobody who writes them, which the API says."""
    describe(page)
    page.get_by_text("More settings").click()
    count = page.get_by_label("Inputs to write")
    for number, words in (("201", "from 1 to 200"), ("6", "the inputs: ")):
        count.fill(number)
        press(page, "Make the adapter")
        expect(page.get_by_role("alert")).to_contain_text(words)


def test_lines_of_text_become_examples_or_are_refused_by_their_number(page: Page) -> None:
    part = page.locator("#make")
    add_many(part, 'a b\tyes\n\n{"input": "{c}", "output": "no"}\n')
    rows = part.get_by_role("listitem")
    expect(rows).to_have_count(2)
    values = [
        [field.input_value() for field in row.locator("textarea").all()] for row in rows.all()
    ]
    assert values == [["a b", "yes"], ["{c}", "no"]]
    for lines, wrong in (("x\ty\nno tab", "Line 2"), ('{"input": 1}', "Line 1"), ("", "no line")):
        part.get_by_label("One a line").fill(lines)
        press(page, "Add these")
        expect(part.get_by_role("alert")).to_contain_text(wrong)
    expect(rows).to_have_count(2)


def test_training_is_followed_also_after_a_reload(page: Page, service: Service) -> None:
    halt = Halt(service)
    train(page)
    page.wait_for_url(re.compile("#/jobs/job_"))
    assert halt.started.wait(START_SECONDS)
    for _ in range(2):
        expect(page.get_by_role("progressbar")).to_have_attribute("value", re.compile("0"))
        expect(page.get_by_text("Working …")).to_be_visible()
        page.reload()
    halt.go.set()
    adapter_of(page)
    expect(page.locator("[data-facts]")).to_contain_text("trained 3 steps")
    expect(card(page, "How far to trust it")).to_contain_text("held back from training")


def test_a_cancelled_job_stores_nothing(page: Page, service: Service, settings: Settings) -> None:
    halt = Halt(service)
    train(page)
    assert halt.started.wait(START_SECONDS)
    press(page, "Cancel")
    expect(page.get_by_text("It was cancelled, and nothing was stored.")).to_be_visible()
    assert stored(settings) == []
    page.get_by_role("link", name="Back to the description").click()
    expect(page.get_by_label("What should the model do?")).to_have_value(TASK)


def test_an_adapter_is_trained_further_into_a_new_one(page: Page, origin: str) -> None:
    first = make(page)
    part = card(page, "Train it further")
    add_many(part, LINES)
    part.get_by_label("Steps of training").fill("2")
    part.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_url(re.compile("#/jobs/"))
    second = adapter_of(page)
    body = httpx.get(f"{origin}/v1/adapters/{second}").json()
    assert (body["start"], body["refined"]["steps"]) == (first, 2)
    page.get_by_role("link", name="Your adapters").click()
    expect(page.locator("[data-view=adapters] .cards a")).to_have_count(2)


def test_slower_checks_take_the_place_of_the_quick_ones(page: Page, service: Service) -> None:
    service.hooks.clear()
    gate = gate_of(service)
    make(page)
    press(page, "Run the slower checks")
    assert gate.started.wait(START_SECONDS)
    expect(page.get_by_role("progressbar")).to_have_attribute("value", "0.5")
    gate.go.set()
    expect(page.get_by_text("All checks have run.")).to_be_visible()
    expect(page.locator("[data-findings]")).to_contain_text("The gate was opened.")


def test_a_name_is_published_promoted_and_taken_back(page: Page, origin: str) -> None:
    for text in (TASK, "Add the two numbers."):
        page.goto(f"{origin}/#/")
        make(page, text)
        part = card(page, "Name and publish")
        part.get_by_label("Name").fill("Router")
        part.get_by_role("button", name="Publish").click()
        expect(part.get_by_role("alert")).to_contain_text("lower-case letters")
        part.get_by_label("Name").fill("router")
        if text == TASK:
            add_many(part, "Great film!\tno such answer")
        part.get_by_role("button", name="Publish").click()
        expect(part.get_by_text(re.compile(r"Published as router@v\d\."))).to_be_visible()
        part.get_by_role("button", name=re.compile(r"Make v\d current")).last.click()
        expect(
            part.get_by_text(re.compile(r"^v\d is current, as it passed 0 of 1 tests"))
        ).to_be_visible()
    assert httpx.get(f"{origin}/v1/names/router").json()["current"] == 2
    page.get_by_role("link", name="Your adapters").click()
    page.locator("[data-names]").get_by_role("link", name="router").click()
    press(page, "Go back to the version before")
    expect(page.get_by_text("Back to v1.", exact=True).first).to_be_visible()
    assert httpx.get(f"{origin}/v1/names/router").json()["current"] == 1
    page.on("dialog", lambda dialog: dialog.accept())
    press(page, "Delete the name")
    page.wait_for_url(re.compile("#/adapters$"))
    assert httpx.get(f"{origin}/v1/names").json() == {"names": []}


def test_a_version_that_passes_fewer_tests_stays_back(page: Page, origin: str) -> None:
    first = make(page)
    template = httpx.get(f"{origin}/v1/adapters/{first}").json()["usage"]["template"]
    answer = answered(origin, f"generated/{first}", template.replace("{input}", INPUTS[0]))
    row = {"input": INPUTS[0], "output": answer}
    for version, text in enumerate((TASK, "Add the two numbers."), start=1):
        page.goto(f"{origin}/#/")
        make(page, text)
        part = card(page, "Name and publish")
        part.get_by_label("Name").fill("router")
        if version == 1:
            add_many(part, json.dumps(row))
        part.get_by_role("button", name="Publish").click()
        part.get_by_role("button", name=f"Make v{version} current").click()
        ending = ("is current, as it passed 1 of 1", "stays back, as it passed 0 of 1")[version - 1]
        expect(part.get_by_text(re.compile(f"^v{version} {ending} tests"))).to_be_visible()
    assert httpx.get(f"{origin}/v1/names/router").json()["current"] == 1


@pytest.mark.parametrize("button", ["Download all (tar)", "provenance.json"])
def test_files_are_those_of_the_api(page: Page, origin: str, button: str) -> None:
    identity = make(page)
    with page.expect_download() as download:
        press(page, button)
    whole = button.startswith("Download")
    path = "archive" if whole else f"files/{button}"
    expected = httpx.get(f"{origin}/v1/adapters/{identity}/{path}").content
    assert Path(download.value.path()).read_bytes() == expected
    assert download.value.suggested_filename == (f"{identity}.tar" if whole else button)


def test_a_deleted_adapter_is_gone(page: Page, origin: str, settings: Settings) -> None:
    identity = make(page)
    page.once("dialog", lambda dialog: dialog.dismiss())
    press(page, "Delete the adapter")
    assert stored(settings) == [identity]
    page.once("dialog", lambda dialog: dialog.accept())
    press(page, "Delete the adapter")
    expect(page.get_by_text("There are none yet. Make the first.")).to_be_visible()
    assert stored(settings) == []
    page.goto(f"{origin}/#/adapters/{identity}")
    expect(page.get_by_role("alert")).to_have_text("There is no such adapter.")
