"""Completions as OpenAI's clients read them: whole, and in chunks."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.service.completions import Ended, Piece

Reason = Literal["stop", "length"]


class TokensUsed(BaseModel):
    """Tokens of a request and its answer."""

    prompt_tokens: int
    completion_tokens: int = Field(description="With the end of sequence.")
    total_tokens: int


class TextLogprobs(BaseModel):
    """One entry for each token, the end of sequence among them."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int] = Field(description="Characters of the answer before the token.")


class TextChoice(BaseModel):
    """An answer to a text."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Reason


class TextCompletion(BaseModel):
    """A completed text."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: TokensUsed


class SpokenToken(BaseModel):
    """A token with its log-probability."""

    token: str
    logprob: float
    bytes: list[int] | None = Field(description="Null where they do not make up characters.")


class ChatToken(SpokenToken):
    """A token of an answer, and the likeliest in its place."""

    top_logprobs: list[SpokenToken]


class ChatLogprobs(BaseModel):
    """One entry for each token, the end of sequence among them."""

    content: list[ChatToken]


class AnswerMessage(BaseModel):
    """The message that answers a chat."""

    role: Literal["assistant"]
    content: str


class ChatChoice(BaseModel):
    """An answer to a chat."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Reason


class ChatCompletion(BaseModel):
    """An answered chat."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: TokensUsed


class ModelInfo(BaseModel):
    """What a completion may name."""

    id: str
    object: Literal["model"]
    created: int = Field(description="When the service started.")
    owned_by: str
    parent: str | None = Field(description="Base model of an adapter.")


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelInfo]


@dataclass(frozen=True)
class AnswerShape:
    """The form of one answer, of a text or of a chat.

    Attributes:
        chat: whether it answers a chat.
        model: the name that was asked for.
        shows: whether log-probabilities are part of it.
    """

    chat: bool
    model: str
    shows: bool
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, pieces: Sequence[Piece], ended: Ended) -> dict[str, Any]:
        """The answer at once."""
        text = "".join(piece.text for piece in pieces)
        content = {"message": {"role": "assistant", "content": text}} if self.chat else {
            "text": text
        }  # fmt: skip
        choice = self._choice(content, pieces, ended.reason)
        total = ended.prompt_tokens + ended.completion_tokens
        usage = TokensUsed(
            prompt_tokens=ended.prompt_tokens,
            completion_tokens=ended.completion_tokens,
            total_tokens=total,
        )
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [choice], "usage": usage.model_dump()}

    def first(self) -> dict[str, Any] | None:
        """The chunk before all others, where there is one: it says who speaks."""
        return self._chunk({"role": "assistant", "content": ""}, (), None) if self.chat else None

    def part(self, piece: Piece) -> dict[str, Any]:
        """The chunk of a piece."""
        delta = {"content": piece.text} if self.chat else piece.text
        return self._chunk(delta, (piece,), None)

    def last(self, ended: Ended) -> dict[str, Any]:
        """The chunk that says how the answer ended."""
        return self._chunk({} if self.chat else "", (), ended.reason)

    def _chunk(self, delta: Any, pieces: Sequence[Piece], reason: str | None) -> dict[str, Any]:
        choice = self._choice({"delta" if self.chat else "text": delta}, pieces, reason)
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        identity = f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}"
        return {"id": identity, "object": kind, "created": self.created, "model": self.model}

    def _choice(
        self, content: dict[str, Any], pieces: Sequence[Piece], reason: str | None
    ) -> dict[str, Any]:
        spoken = [piece for piece in pieces if piece.token is not None]
        logprobs = None
        if self.shows and spoken:
            logprobs = _chat_logprobs(spoken) if self.chat else _text_logprobs(spoken)
        return {"index": 0, **content, "logprobs": logprobs, "finish_reason": reason}


def _text_logprobs(pieces: Sequence[Piece]) -> dict[str, Any]:
    return {
        "tokens": [piece.token for piece in pieces],
        "token_logprobs": [piece.logprob for piece in pieces],
        # Where two tokens read the same, the likelier one stays.
        "top_logprobs": [dict(reversed(piece.top)) for piece in pieces],
        "text_offset": [piece.offset for piece in pieces],
    }


def _chat_logprobs(pieces: Sequence[Piece]) -> dict[str, Any]:
    return {
        "content": [
            {
                **_spoken(piece.token or "", piece.logprob),
                "top_logprobs": [_spoken(*token) for token in piece.top],
            }
            for piece in pieces
        ]
    }


def _spoken(token: str, logprob: float) -> dict[str, Any]:
    known = None if "\ufffd" in token else list(token.encode())
    return {"token": token, "logprob": logprob, "bytes": known}
