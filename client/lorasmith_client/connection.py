"""Where the service is, who asks, and how long it is asked again while it is busy."""

import os
from dataclasses import dataclass, field
from typing import Any

import httpx

from lorasmith_client.errors import retry_after

DEFAULT_URL = "http://127.0.0.1:8000"
_AGAIN = (429, 503)  # nothing was done, so any request may be sent again


@dataclass(frozen=True)
class Connection:
    """What a client is made with.

    Attributes:
        url: of the service (default: `$LORASMITH_URL`, else a service on this machine).
        key: API key (default: `$LORASMITH_API_KEY`, else none).
        timeout: seconds that connecting, or silence in an answer, may take.
        patience: seconds that the tries of one request may wait together while the service is busy.
    """

    url: str | None = None
    key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    patience: float = 60.0

    def options(self) -> dict[str, Any]:
        """Arguments of an httpx client. Raises ValueError: the URL or the key cannot be one."""
        url = _url(self.url or os.environ.get("LORASMITH_URL") or DEFAULT_URL)
        key = (self.key or os.environ.get("LORASMITH_API_KEY") or "").strip()
        if not all("!" <= character <= "~" for character in key):
            raise ValueError("the API key has characters that no key has")  # and is not shown
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # httpx follows no redirect by itself, so the key goes to this host alone.
        return {"base_url": url, "headers": headers, "timeout": self.timeout}

    def pause(self, response: httpx.Response, waited: float) -> float | None:
        """Seconds until a request is sent again; None to leave it at this answer."""
        asked = retry_after(response) if response.status_code in _AGAIN else None
        if asked is None:
            return None
        seconds = max(asked, 1.0)
        return seconds if waited + seconds <= self.patience else None


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError(f"{text!r} is no http or https URL") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{text!r} is no http or https URL")
    return url
