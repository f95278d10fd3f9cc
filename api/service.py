"""What the routes call: the loaded generator behind its waiting line, and the store."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, cast

from anyio import to_thread
from fastapi import Depends, Request

from api.admission import Admission
from api.errors import NotReady
from api.schemas import AdapterRequest
from api.settings import Settings
from api.store import LOCAL, Record, Store
from generator.generate import Generator
from generator.generate import Request as Wish
from index.encoder import DescriptionEncoder
from index.entries import Filter
from index.search import Result, Searcher
from library.base import BaseReference
from library.errors import UnknownName, UsageError
from library.peft_io import WEIGHTS_FILE

FOLLOW_SECONDS = 2  # between two looks at what changed in the library


@dataclass(frozen=True)
class Made:
    """A stored adapter: its record, the content of its safetensors file, whether it is new."""

    record: Record
    weights: bytes
    new: bool


class Service:
    """One generator, one store, one library to search in, one waiting line.

    Args:
        settings: what it is started with.
        loaded: a generator to use at once; otherwise `load` reads the configured one.

    Attributes:
        on_failure: called with the reason if `load` fails; logs it by default.
    """

    def __init__(self, settings: Settings, loaded: Generator | None = None) -> None:
        self.settings = settings
        self.store = Store(settings.data, quota_bytes=settings.quota_bytes)
        self.admission = Admission(waiting=settings.queue_length, retry_after=settings.retry_after)
        self.on_failure: Callable[[Exception], None] = _log_failure
        self._searcher: Searcher | None = None
        self._followed = 0.0
        self._generator = None if loaded is None else _warm(loaded)

    @property
    def generator(self) -> Generator:
        """The generator, with its encoder. Raises NotReady until both are loaded."""
        if self._generator is None:
            raise NotReady("the generator is still being loaded", self.settings.retry_after)
        return self._generator

    async def load(self) -> None:
        """Read the generator in a thread, unless there is one. Never raises."""
        if self._generator is not None:
            return
        try:
            self._generator = await to_thread.run_sync(
                lambda: _warm(Generator(self.settings.checkpoint))
            )
        except Exception as error:
            self.on_failure(error)

    async def create(self, wanted: AdapterRequest) -> Made:
        """Make and keep an adapter; the same request finds the one that is kept."""
        made = self.generator
        if wanted.generator not in (None, made.name):
            raise UnknownName(f"unknown generator '{wanted.generator}'; known: {made.name}")
        if wanted.examples:
            raise UsageError(f"{made.name} cannot use examples: it reads the description alone")
        base = self.settings.base(wanted.base)
        given = wanted.model_dump(
            include={"description", "rank", "strength", "seed", "profile"}, exclude_none=True
        )
        return await self.admission.run(self._create, made, Wish(**given), base)

    def _create(self, made: Generator, wish: Wish, base: BaseReference) -> Made:
        adapter = made.generate([wish], base)[0]
        files = adapter.files.files
        record, new = self.store.put(LOCAL, adapter.summary(), files)
        return Made(record, files[WEIGHTS_FILE], new)

    async def search(self, text: str, k: int, wanted: Filter) -> list[Result]:
        """The adapters of the library that are nearest to a text. Raises as Searcher does."""
        return await self.admission.run(self._search, self.generator.encoder, text, k, wanted)

    def _search(
        self, encoder: DescriptionEncoder, text: str, k: int, wanted: Filter
    ) -> list[Result]:
        """One at a time, as the waiting line has it; the first opens the index, or makes one."""
        now = time.monotonic()
        if self._searcher is None:
            self._searcher, self._followed = Searcher(self.settings.library, encoder), now
        elif now - self._followed > FOLLOW_SECONDS:
            self._searcher.follow()
            self._followed = now
        return self._searcher.search(text, k=k, wanted=wanted)


def _warm(loaded: Generator) -> Generator:
    """The generator with its encoder loaded, which the first request should not wait for."""
    _ = loaded.encoder
    return loaded


def _log_failure(error: Exception) -> None:
    logging.getLogger("lorasmith.api").error("the generator cannot be loaded: %s", error)


def _of(request: Request) -> Service:
    return cast(Any, request.app).state.service


ServiceOf = Annotated[Service, Depends(_of)]
