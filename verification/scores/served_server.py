"""An OpenAI-compatible server that is asked for next tokens and their log-probabilities.

Only what all such servers have is used: `/v1/models`, and `/v1/completions` of one token with its
five likeliest, so that every context is chosen here and the same for every model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx2

from library.errors import LorasmithError, UsageError
from verification.asking import NoAnswer, ServerAnswer, ask, is_address, one_line

KEY_VARIABLE = "LORASMITH_SERVED_KEY"
TOP = 5  # the most that OpenAI's API promises
_SECONDS, _MOST = 60.0, 2**20

UNREACHABLE, UNAUTHORISED = "served-unreachable", "served-unauthorised"
NOT_OPENAI, NO_LOGPROBS = "served-not-openai", "served-no-logprobs"
REFUSED, NO_MODEL = "served-refused", "served-no-model"


class ServerFailed(LorasmithError):
    """A server that does not answer what it is asked; `reason` is the code of the finding."""

    code = "server-failed"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Served:
    """Where an adapter is said to be served.

    Attributes:
        url: of the server, with or without `/v1`.
        model: the adapter's name there.
        base: its base model's name there; None: the one that `/v1/models` tells.
        key: API key; empty for none.
    Raises:
        UsageError: the URL is none, or holds a user or a password; no header can hold the key.
    """

    url: str
    model: str
    base: str | None = None
    key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not is_address(self.url):
            raise UsageError(f"{self.url!r} is not a URL of a server, as http://127.0.0.1:8000")
        if "@" in self.url:
            raise UsageError(f"a URL holds no key: put it into {KEY_VARIABLE}")
        if not (self.key.isascii() and self.key.isprintable()):
            raise UsageError(f"{KEY_VARIABLE} holds characters that no API key has")


NextTokens = Mapping[str, float]  # log-probabilities of the likeliest next tokens, by their text


class CompletionServer:
    """A server over kept connections. Close it.

    Args:
        url: as of `Served`.
        key: likewise.
    """

    def __init__(self, url: str, key: str = "") -> None:
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._url, self._client = url.rstrip("/").removesuffix("/v1"), httpx2.Client()

    def __enter__(self) -> "CompletionServer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def base_of(self, served: Served, known: str) -> str:
        """The name of a served adapter's base model: its parent, or what is `known` by that name.

        Raises ServerFailed.
        """
        if served.base is not None:
            return served.base
        listed = self._ask("/v1/models").parsed
        try:
            parents = {str(model["id"]): model.get("parent") for model in listed["data"]}
        except (TypeError, KeyError, AttributeError) as error:
            message = f"what the server at {self._url} has at /v1/models is no list of models"
            raise ServerFailed(NOT_OPENAI, message) from error
        parent = parents.get(served.model)
        for name in (parent, known):
            if isinstance(name, str) and name in parents:
                return name
        raise ServerFailed(
            NO_MODEL,
            f"the server at {self._url} does not tell the base model of {served.model!r}: name it "
            "with --served-base",
        )

    def next_tokens(self, model: str, prompt: str) -> NextTokens:
        """The likeliest tokens after a prompt. Raises ServerFailed."""
        body = {
            "model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": TOP,
        }  # fmt: skip
        content = self._ask("/v1/completions", body, model).parsed
        try:
            found = content["choices"][0]["logprobs"]
        except (TypeError, KeyError, IndexError) as error:
            message = f"what the server at {self._url} answers is no completion of OpenAI's API"
            raise ServerFailed(NOT_OPENAI, message) from error
        try:
            (likeliest,) = found["top_logprobs"]
            logprobs = {str(token): float(value) for token, value in likeliest.items()}
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise self.without_logprobs("gives no log-probabilities of tokens") from error
        if not logprobs or not all(map(math.isfinite, logprobs.values())):
            raise self.without_logprobs("gives no log-probabilities that are numbers")
        return logprobs

    def without_logprobs(self, fault: str) -> ServerFailed:
        """The error of a server whose answers cannot be compared."""
        message = f"the server at {self._url} {fault}, so that nothing can be compared"
        return ServerFailed(NO_LOGPROBS, message)

    def _ask(self, path: str, body: Any = None, model: str = "") -> ServerAnswer:
        """An answer of success."""
        try:
            answer = ask(
                self._client, self._url + path, body, self._headers, seconds=_SECONDS, most=_MOST
            )
        except NoAnswer as error:
            message = f"the server at {self._url} cannot be asked: {error}"
            raise ServerFailed(UNREACHABLE, message) from error
        if not 200 <= answer.status < 300:
            raise self._refusal(answer, path, model)
        return answer

    def _refusal(self, answer: ServerAnswer, path: str, model: str) -> ServerFailed:
        """What an answer without success means."""
        where, status = f"the server at {self._url}", answer.status
        if status in (401, 403):
            had = "does not take the key in" if self._headers else "wants an API key: put it into"
            return ServerFailed(UNAUTHORISED, f"{where} {had} {KEY_VARIABLE}")
        if 300 <= status < 400:
            message = f"{where} leads elsewhere, which is not followed: give the address itself"
            return ServerFailed(REFUSED, message)
        detail = _detail(answer.parsed)
        told = f": {detail}" if detail else ""
        if status == 404 and detail and model:
            return ServerFailed(NO_MODEL, f"{where} does not complete text under {model!r}{told}")
        if status in (404, 405):
            return ServerFailed(NOT_OPENAI, f"{where} has nothing at {path}")
        return ServerFailed(REFUSED, f"{where} refuses with status {status}{told}")


def _detail(content: Any) -> str:
    """What a problem says, in OpenAI's form, vLLM's or RFC 9457's."""
    if not isinstance(content, dict):
        return ""
    error = content.get("error")
    told = error.get("message") if isinstance(error, dict) else error
    told = told or content.get("message") or content.get("detail")
    return one_line(told)[:200] if isinstance(told, str) else ""
