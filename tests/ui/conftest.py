"""The system's Chromium, and a service on a tiny base for it to ask. `make test-ui` runs these."""

import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright
from rest import serving

from api.http.app import create_app
from api.service.service import Service

NAMES = ("chromium", "google-chrome")
REFUSED = "Failed to load resource"  # what the console says of every problem of the API


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The first of the system's browsers, or the one that `playwright install` brought."""
    path = next((found for found in map(shutil.which, NAMES) if found), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


class Watched:
    """What a page did that it should not have."""

    def __init__(self, page: Page, origin: str) -> None:
        self.faults: list[str] = []
        self._origin = urlsplit(origin).netloc
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(REFUSED):
            self.faults.append(message.text)

    def _asked(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("blob", "data") and url.netloc != self._origin:
            self.faults.append(f"asked {request.url}")


@pytest.fixture
def origin(service: Service) -> Iterator[str]:
    """Where the service is."""
    with serving(create_app(service)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def look() -> dict[str, Any]:
    """Options of the browser's window."""
    return {}


@pytest.fixture
def page(browser: Browser, origin: str, look: dict[str, Any]) -> Iterator[Page]:
    """The page, opened; it may have errors nowhere and ask nobody but the service."""
    context = browser.new_context(**look)
    page = context.new_page()
    page.set_default_timeout(20_000)
    watched = Watched(page, origin)
    page.goto(origin)
    yield page
    context.close()
    assert not watched.faults
