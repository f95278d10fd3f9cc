"""What goes wrong between a client and the service: one hierarchy."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from lorasmith_client.answers import Job


class ClientError(Exception):
    """Any error of this package; its text is one sentence."""


class Unreachable(ClientError):
    """The service cannot be reached, or the connection broke before its answer was whole."""


class UnexpectedAnswer(ClientError):
    """What answers is no lorasmith service, or one that this client does not understand."""


class DigestMismatch(ClientError):
    """What was downloaded is not what the service says it is; none of it is kept."""


class JobFailed(ClientError):
    """A job ended without a result; `job` is its last state."""

    def __init__(self, job: "Job") -> None:
        super().__init__(f"{job.id} is {job.state}" + (f": {job.error}" if job.error else ""))
        self.job = job

    def __reduce__(self) -> Any:  # an exception is pickled by its text alone
        return type(self), (self.job,)


class JobTimeout(ClientError):
    """A job had not ended in time; it goes on."""


class Problem(ClientError):
    """An answer of the service that is a problem (RFC 9457).

    Attributes:
        code: from the set that docs/rest.md lists, such as `invalid-field`.
        detail: one sentence about this occurrence.
        status: HTTP status.
        retry_after: seconds after which the service asks to try again; None if it does not.
    """

    def __init__(
        self, code: str, detail: str, status: int, retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.code, self.detail, self.status = code, detail, status
        self.retry_after = retry_after

    def __reduce__(self) -> Any:
        return type(self), (self.code, self.detail, self.status, self.retry_after)


class Denied(Problem):
    """The key is missing or revoked (401), or does not permit this (403)."""


class NotFound(Problem):
    """There is no such thing, or it belongs to another key (404)."""


class Conflict(Problem):
    """What is stored does not permit this now (409)."""


class Busy(Problem):
    """The service has too much to do or is not ready (429, 503)."""


_KINDS: dict[int, type[Problem]] = {
    401: Denied, 403: Denied, 404: NotFound, 409: Conflict, 429: Busy, 503: Busy
}  # fmt: skip


def problem(body: Mapping[str, Any], retry_after: float | None = None) -> Problem:
    """The error of a problem's JSON. Raises UnexpectedAnswer."""
    try:
        code, detail, status = str(body["code"]), str(body["detail"]), int(body["status"])
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer("the answer is no problem of lorasmith") from error
    return _KINDS.get(status, Problem)(code, detail, status, retry_after)


def require_success(response: httpx.Response) -> None:
    """Raise the Problem that an answer is; UnexpectedAnswer if it is neither that nor a success."""
    if response.is_success:
        return
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        message = f"the answer is {response.status_code}, and no problem of lorasmith"
        raise UnexpectedAnswer(message)
    raise problem(json_of(response), retry_after(response))


def json_of(response: httpx.Response) -> Any:
    """The body of an answer. Raises UnexpectedAnswer."""
    try:
        return response.json()
    except ValueError as error:
        raise UnexpectedAnswer("the answer is no JSON") from error


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that an answer asks to wait before the next try; None if it does not say."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdecimal() else None
