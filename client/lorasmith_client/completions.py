"""Answers of base models, of stored adapters and of gates."""

from collections.abc import Sequence
from typing import Any, Unpack

import httpx

from lorasmith_client.errors import UnexpectedAnswer, json_of
from lorasmith_client.flow import Flow, get, post
from lorasmith_client.listings import Completion, Model
from lorasmith_client.parsing import listed
from lorasmith_client.requests import CompletionFields, Message


def chat(
    model: str, messages: Sequence[Message], **fields: Unpack[CompletionFields]
) -> Flow[Completion]:
    """The answer of a base model, an adapter `generated/ID` or a gate `route:NAME` to a chat."""
    body = {"model": model, "messages": list(messages), **fields}
    response = yield from post("/v1/chat/completions", body)
    return _completion(response, lambda choice: choice["message"]["content"])


def complete(model: str, prompt: str, **fields: Unpack[CompletionFields]) -> Flow[Completion]:
    """How a base model, an adapter `generated/ID` or a gate `route:NAME` goes on from a text."""
    response = yield from post("/v1/completions", {"model": model, "prompt": prompt, **fields})
    return _completion(response, lambda choice: choice["text"])


def models() -> Flow[list[Model]]:
    """What `chat` and `complete` may name."""
    return listed(Model, (yield from get("/v1/models")), "data")


def _completion(response: httpx.Response, text: Any) -> Completion:
    body = json_of(response)
    try:
        (choice,), usage = body["choices"], body["usage"]
        counts = usage["prompt_tokens"], usage["completion_tokens"]
        return Completion(text(choice), choice["finish_reason"], *counts)
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer("the answer is no completion") from error
