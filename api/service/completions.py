"""Completions by a base model, alone or under a stored adapter, a few at once."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch
from anyio import to_thread

from api.errors import NotFound, NotReady
from api.service.admission import Admission
from api.service.gates import ROUTE, Gates
from api.service.hooks import require_configured
from api.service.service import Service
from api.service.store import GENERATED
from library.adapter import Adapter
from library.base.completion import Choices, Decoding, Token, window
from library.base.decode import eos_ids
from library.base.growing_text import GrowingText
from library.base.joint_completion import MOST_ROWS, Hooks, complete
from library.base.models import BaseModel
from library.base.prompts import chat_ids
from library.base.sampling import Sampling
from library.base.stored_adapters import adapter_for_base
from library.errors import LorasmithError, UsageError


@dataclass(frozen=True)
class CompletionRequest:
    """A request for a completion.

    Attributes:
        model: a configured base's name, an adapter's id with or without `generated/`, or a gate's
            name after `route:`.
        prompt: a text to go on from, or the messages of a chat.
        max_tokens: the most tokens of the answer.
        fixed: whether `max_tokens` was asked for, so that it may not be cut to what fits.
        temperature: 0 for the likeliest tokens.
        top_p: share of the probability that tokens are drawn from.
        seed: of the draws; None for another each time.
        stop: texts that end the answer before them.
        choices: the answers that are possible; any if None.
        top: how many of the likeliest tokens come with each.
    """

    model: str
    prompt: str | Sequence[Mapping[str, str]]
    max_tokens: int
    fixed: bool
    temperature: float
    top_p: float
    seed: int | None
    stop: Sequence[str]
    choices: Sequence[str] | None
    top: int


@dataclass(frozen=True)
class Prepared:
    """A request with all that it needs, which is known to be possible."""

    base: BaseModel
    adapter: Adapter | Hooks | None
    prompt: list[int]
    decoding: Decoding
    stop: Sequence[str]


@dataclass(frozen=True)
class Piece:
    """What a token adds to an answer.

    Attributes:
        text: text that is certain by now; it may be empty.
        offset: characters of the answer before it.
        token: the token by itself, None for text that was held back to the end.
        logprob: its natural log-probability.
        top: the likeliest tokens with theirs.
    """

    text: str
    offset: int
    token: str | None = None
    logprob: float = 0.0
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a completion ended: at its end of sequence or a stop, or at the most tokens."""

    reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Model:
    """What a completion may name; `parent` is the base model of an adapter or a gate."""

    name: str
    parent: str | None


class Completions:
    """The completions of a service, in a line of their own.

    Raises UsageError, MissingPath or CheckpointError if a configured gate cannot be used.

    Attributes:
        started: when the service started, in seconds since 1970.
    """

    def __init__(self, service: Service) -> None:
        self._service, settings = service, service.settings
        self._gates = Gates(settings, lambda: service.engine.resources)
        self.started = int(time.time())
        self.admission = Admission(
            "completions",
            at_once=MOST_ROWS,
            waiting=settings.queue_length,
            retry_after=settings.retry_after,
            waited=service.metrics.waited("requests"),
        )

    def models(self, owner: str | None) -> list[Model]:
        """Bases, gates if the library fits one, then adapters of `owner`'s; everybody's if None."""
        models = [Model(name, None) for name in self._service.settings.bases]
        with suppress(LorasmithError):
            base = self._gates.base_name()
            models += [Model(name, base) for name in self._gates.models]
        records = self._service.store.owned(owner)
        return models + [Model(f"{GENERATED}{r['id']}", r["base_model"]) for r in records]

    async def prepare(self, owner: str | None, asked: CompletionRequest) -> Prepared:
        """Load what a request needs; an adapter has to be `owner`'s.

        Raises:
            NotFound, UnknownName: there is no such model, or not its base.
            UsageError: the prompt does not fit the base, a choice cannot be spelt, or a gate has
                too few adapters.
            NotReady, Overloaded: not now.
            BaseModelError, LayoutMismatch, UnsupportedModel: the model cannot be used.
        """
        self.admission.require_place()
        return await to_thread.run_sync(self._prepare, owner, asked)

    async def run(self, prepared: Prepared, emit: Callable[[Piece], None]) -> Ended:
        """Complete, as soon as there is a place in the batch; a thread emits every piece.

        Raises Overloaded; NotReady when the service stops.
        """
        return await self.admission.run(self._run, prepared, emit)

    def _prepare(self, owner: str | None, asked: CompletionRequest) -> Prepared:
        base, adapter = self._model(owner, asked.model, asked.prompt)
        prompt = _prompt_ids(base, asked.prompt)
        room = window(base) - len(prompt)
        if room < 1:
            raise UsageError(
                f"the prompt has {len(prompt):,} tokens, and the base model's window is "
                f"{window(base):,}"
            )
        decoding = Decoding(
            max_new_tokens=asked.max_tokens if asked.fixed else min(asked.max_tokens, room),
            sampling=_sampling(asked.temperature, asked.seed),
            top_p=asked.top_p,
            choices=None if asked.choices is None else Choices.of(base, asked.choices),
            top=asked.top,
        )
        if decoding.longest > room:
            raise UsageError(
                f"max_tokens: after a prompt of {len(prompt):,} tokens, {room:,} are left in the "
                f"base model's window of {window(base):,}"
            )
        return Prepared(base, adapter, prompt, decoding, asked.stop)

    def _model(
        self, owner: str | None, name: str, prompt: str | Sequence[Mapping[str, str]]
    ) -> tuple[BaseModel, Adapter | Hooks | None]:
        """A base and the adapter on it, or a gate's hooks, if one is named."""
        settings, store = self._service.settings, self._service.store
        models = self._service.engine.resources
        if name in settings.bases:
            return models.model(settings.base(name)), None
        if name.startswith(ROUTE):
            texts = [prompt] if isinstance(prompt, str) else [m["content"] for m in prompt]
            base, hooks = self._gates.find(name, "\n".join(texts))
            return models.model(base), hooks
        try:
            record = store.get(owner, name.removeprefix(GENERATED))
        except NotFound as error:
            raise NotFound(f"there is no model '{name}'; /v1/models lists them") from error
        base = models.model(require_configured(settings, record["base_model"]))
        return base, adapter_for_base(store.files(owner, record), base)

    def _run(self, prepared: Prepared, emit: Callable[[Piece], None]) -> Ended:
        base, text = prepared.base, GrowingText(prepared.base, prepared.stop)
        ends, count, ended = eos_ids(base), 0, False

        def follow(token: Token) -> bool:
            nonlocal count, ended
            if self._service.stopping():
                raise NotReady("the service is being stopped", self.admission.retry_after)
            count, ended, offset = count + 1, token.id in ends, text.length
            new = text.finish() if ended else text.push(token.id)
            spoken = base.tokenizer.decode([token.id])
            top = tuple((base.tokenizer.decode([i]), logprob) for i, logprob in token.top)
            emit(Piece(new, offset, spoken, token.logprob, top))
            return not text.stopped

        complete(base, prepared.prompt, prepared.adapter, prepared.decoding, follow)
        offset, rest = text.length, text.finish()
        if rest:
            emit(Piece(rest, offset))
        stopped = ended or text.stopped
        return Ended("stop" if stopped else "length", len(prepared.prompt), count)


def _prompt_ids(base: BaseModel, prompt: str | Sequence[Mapping[str, str]]) -> list[int]:
    """Raises UsageError for an empty prompt, and as chat_ids does."""
    if not isinstance(prompt, str):
        return chat_ids(base.tokenizer, prompt)
    ids = base.tokenizer(prompt)["input_ids"]
    if not ids:
        raise UsageError("prompt: it has no tokens")
    return ids


def _sampling(temperature: float, seed: int | None) -> Sampling | None:
    if temperature == 0:
        return None
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return Sampling(temperature, generator)
