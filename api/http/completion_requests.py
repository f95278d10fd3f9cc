"""Bodies of `/v1/completions` and `/v1/chat/completions`, by OpenAI's names."""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, FailFast, Field

from api.http.requests import Strict, Text
from api.service.completions import CompletionRequest
from library.errors import UsageError

MAX_STOPS = 4
MAX_TOP = 20  # likeliest tokens that are shown
MAX_CHOICES = 1000
TEXT_TOKENS, CHAT_TOKENS = 16, 256  # most tokens where nothing is asked for
_SEEDS = 2**63


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Stops = Annotated[
    list[Annotated[Text, Field(min_length=1)]],
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
    Field(max_length=MAX_STOPS),
]


class _Completion(Strict):
    """What both kinds have. Null is the same as an absent field."""

    model: Text = Field(
        description="An adapter, `generated/{id}` or its id alone, a base model by its name, or a "
        "gate over the library's adapters, `route:NAME`: one of /v1/models."
    )
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="0 for the likeliest tokens (default: 1)."
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of the probability that tokens are drawn from (default: 1).",
    )
    seed: int | None = Field(
        default=None,
        ge=-_SEEDS,
        lt=_SEEDS,
        description="Seed of the draws (default: another each time).",
    )
    stop: Stops | None = Field(
        default=None, description=f"Up to {MAX_STOPS} texts; the answer ends before the first."
    )
    guided_choice: Annotated[list[Text] | None, FailFast()] = Field(
        default=None,
        min_length=1,
        max_length=MAX_CHOICES,
        description="Texts of which one is the answer, token by token the likeliest or a draw of "
        "what leads to one; `max_tokens` cuts none.",
    )
    n: Literal[1] | None = Field(default=None, description="One answer.")
    stream: bool | None = Field(default=None, description="Send the answer as it grows.")

    def _asked(
        self, prompt: Any, max_tokens: int | None, default: int, top: int
    ) -> CompletionRequest:
        return CompletionRequest(
            model=self.model,
            prompt=prompt,
            max_tokens=default if max_tokens is None else max_tokens,
            fixed=max_tokens is not None,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=self.stop or (),
            choices=self.guided_choice,
            top=top,
        )


class TextCompletionRequest(_Completion):
    """A text to go on from."""

    prompt: Text = Field(description="The text, without a chat template.")
    max_tokens: int | None = Field(
        default=None, ge=1, description=f"The most tokens of the answer (default: {TEXT_TOKENS})."
    )
    logprobs: int | None = Field(
        default=None,
        ge=0,
        le=MAX_TOP,
        description="Log-probabilities of the answer's tokens, and of so many likeliest ones.",
    )

    def to_request(self) -> CompletionRequest:
        """The request to the service."""
        return self._asked(self.prompt, self.max_tokens, TEXT_TOKENS, self.logprobs or 0)

    @property
    def shows_logprobs(self) -> bool:
        """Whether log-probabilities are part of the answer."""
        return self.logprobs is not None


class MessageBody(Strict):
    """A message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: Text


class ChatCompletionRequest(_Completion):
    """A chat to answer."""

    messages: Annotated[list[MessageBody], FailFast()] = Field(
        min_length=1,
        description="They go through the base model's chat template as they are; how an adapter "
        "wants to be asked is its `usage`.",
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices("max_tokens", "max_completion_tokens"),
        description=f"The most tokens of the answer (default: {CHAT_TOKENS}); "
        "`max_completion_tokens` is the same.",
    )
    logprobs: bool | None = Field(
        default=None, description="Log-probabilities of the answer's tokens."
    )
    top_logprobs: int | None = Field(
        default=None,
        ge=0,
        le=MAX_TOP,
        description="So many likeliest tokens with theirs; needs `logprobs`.",
    )

    def to_request(self) -> CompletionRequest:
        """The request to the service. Raises UsageError."""
        if self.top_logprobs is not None and not self.logprobs:
            raise UsageError("top_logprobs: it needs logprobs to be true")
        messages = [message.model_dump() for message in self.messages]
        return self._asked(messages, self.max_tokens, CHAT_TOKENS, self.top_logprobs or 0)

    @property
    def shows_logprobs(self) -> bool:
        """Whether log-probabilities are part of the answer."""
        return bool(self.logprobs)
