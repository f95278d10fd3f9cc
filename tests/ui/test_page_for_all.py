"""The page for everybody: with keys, by keyboard, read out, on a phone, in the dark, cut off."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from jobs import (  # noqa: F401  (fixtures)
    engine,
    library,
    service,
    settings,
    tasks,
)
from playwright.sync_api import Browser, Page, expect
from rest import TASK, serving

from api.http.app import create_app
from api.service.keys import KeyStore
from api.service.service import Service
from api.service.settings import Settings

VIEWS = ["make", "adapter", "adapters", "name", "library"]


def make(page: Page) -> None:
    page.get_by_label("What should the model do?").fill(TASK)
    page.get_by_role("button", name="Make the adapter").click()
    expect(page.get_by_role("heading", name="How far to trust it")).to_be_visible()


def visit(page: Page, origin: str) -> Iterator[str]:
    """Every view in turn, filled."""
    page.get_by_role("button", name="Fill in an example task").click()
    page.get_by_text("More settings").click()
    page.locator("#make").get_by_text("Add many at once").click()
    yield "make"
    page.reload()
    make(page)
    page.get_by_label("Inputs, one a line").fill("It was long.")
    page.get_by_role("button", name="Ask both").click()
    expect(page.get_by_text("It is answered.")).to_be_visible(timeout=60_000)
    page.get_by_role("combobox", name="Name").fill("router")
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("button", name="Make v1 current")).to_be_visible()
    yield "adapter"
    page.get_by_role("link", name="Your adapters").click()
    expect(page.locator("[data-names]").get_by_role("link", name="router")).to_be_visible()
    yield "adapters"
    page.locator("[data-names]").get_by_role("link", name="router").click()
    expect(page.get_by_role("heading", name="router", level=1)).to_be_visible()
    yield "name"
    page.get_by_role("link", name="Library").click()
    page.get_by_label("Find by description").fill("Add two numbers.")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nearest to your description")).to_be_visible()
    page.locator(".results a").first.click()
    expect(page.get_by_role("button", name="Use this description")).to_be_visible()
    yield "library"


@pytest.mark.parametrize(
    "look",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"viewport": {"width": 360, "height": 740}, "has_touch": True},
    ],
    ids=["light", "dark", "phone"],
)
def test_every_view_is_accessible_and_fits(page: Page, origin: str, look: dict[str, Any]) -> None:
    seen = []
    for name in visit(page, origin):
        found = Axe().run(page)
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        seen.append(name)
    assert seen == VIEWS


def test_the_keyboard_alone_makes_an_adapter(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    expect(page.get_by_role("heading", name="Describe a task")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.type(TASK)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Make the adapter":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.get_by_role("heading", level=1)).to_have_text(TASK)


def test_removing_an_example_leaves_the_focus_beside_it(page: Page) -> None:
    for _ in range(3):
        page.get_by_role("button", name="Add an example").first.click()
    for left in (2, 1):
        page.get_by_role("button", name="Remove example 1").click()
        expect(page.locator("#make").get_by_role("listitem")).to_have_count(left)
        expect(page.get_by_role("button", name="Remove example 1")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Add an example").first).to_be_focused()


def test_the_library_is_searched_mapped_and_taken_from(page: Page) -> None:
    page.get_by_role("link", name="Library").click()
    circles = page.locator(".map circle")
    expect(circles).to_have_count(3)
    expect(page.locator(".results a")).to_have_text(["task0", "task1", "task2"])
    circles.nth(2).click()
    expect(page.get_by_role("heading", name="task2")).to_be_focused()
    expect(page.locator("[data-record]")).to_contain_text("Add the two numbers.")
    expect(circles.nth(2)).to_have_class(re.compile("chosen"))
    page.get_by_label("Find by description").fill("What is the colour?")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".results a").first).to_have_text("task0")
    expect(page.locator(".map .query")).to_have_count(1)
    expect(page.locator(".map text").first).to_have_text("1")
    page.locator(".results a").first.click()
    page.get_by_role("button", name="Use this description").click()
    expect(page.get_by_label("What should the model do?")).to_have_value("Name the colour.")
    page.get_by_role("link", name="Library").click()
    page.get_by_label("Find by description").fill("")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("heading", name="All adapters")).to_be_visible()
    expect(page.locator(".map text, .map .query")).to_have_count(0)


def test_a_key_is_asked_for_kept_in_the_tab_and_forgotten(
    browser: Browser, origin: str, settings: Settings
) -> None:
    text = KeyStore(settings.data).create("laptop")[1]
    context = browser.new_context()
    page = context.new_page()
    page.goto(origin)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    expect(dialog.get_by_label("Key")).to_be_focused()
    expect(dialog.get_by_role("alert")).to_have_count(0)
    dialog.get_by_label("Key").fill("lsk_nonsense")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_be_visible()
    dialog.get_by_label("Key").fill(text)
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    make(page)
    page.reload()
    expect(page.get_by_role("heading", name="How far to trust it")).to_be_visible()
    assert page.evaluate("localStorage.length") == 0 and context.cookies() == []
    other = context.new_page()
    other.goto(origin)
    expect(other.get_by_role("dialog")).to_be_visible()
    page.get_by_role("button", name="Forget the key").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    page.get_by_role("button", name="Not now").click()
    expect(page.get_by_role("alert").first).to_have_text(re.compile("A key is needed"))
    page.get_by_role("button", name="Enter a key").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    context.close()


def test_a_service_that_still_loads_is_waited_for(
    page: Page, origin: str, service: Service
) -> None:
    engine, service._engine = service._engine, None
    page.reload()
    loading = page.get_by_text("The generator is still being loaded")
    expect(loading).to_be_visible()
    service._engine = engine
    expect(loading).to_be_hidden(timeout=2000 * service.settings.retry_after)
    expect(page.get_by_label("Generator").get_by_role("option")).not_to_have_count(1)


def test_a_service_that_is_gone_is_said_to_be(browser: Browser, service: Service) -> None:
    context = browser.new_context()
    page = context.new_page()
    with serving(create_app(service)) as port:
        page.goto(f"http://127.0.0.1:{port}")
        page.get_by_label("What should the model do?").fill(TASK)
    page.get_by_role("button", name="Make the adapter").click()
    expect(page.get_by_role("alert")).to_have_text("The service does not answer.")
    context.close()
