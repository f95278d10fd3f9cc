"""What the routes call: the loaded generator behind its waiting line, the store, the jobs."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, cast

from anyio import to_thread
from fastapi import Depends, Request

from api.admission import Admission
from api.checks import Subject, hooks_of
from api.errors import NotReady
from api.job_store import Job, JobStore
from api.jobs import Jobs, Progress
from api.schemas import AdapterRequest, VerifyRequest
from api.settings import Settings
from api.store import LOCAL, Record, Store
from generator.generate import Generator
from generator.generate import Request as Wish
from library.base import BaseReference
from library.errors import UnknownName, UsageError
from library.peft_io import WEIGHTS_FILE
from library.tasks import Instance
from verification.findings import verdict


@dataclass(frozen=True)
class Made:
    """A stored adapter: its record, the content of its safetensors file, whether it is new."""

    record: Record
    weights: bytes
    new: bool


class Service:
    """One generator, one store, one waiting line, one queue of jobs.

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
        self.hooks = hooks_of(settings, lambda: self.generator.encoder)
        self.jobs = Jobs(
            JobStore(settings.data),
            self._verify,
            waiting=settings.job_queue_length,
            retry_after=settings.retry_after,
        )
        self.on_failure: Callable[[Exception], None] = _log_failure
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

    async def verify(self, identity: str, wanted: VerifyRequest) -> Job:
        """Queue a verification of an adapter. Raises NotFound, UnknownName, and as Jobs.submit."""
        await to_thread.run_sync(self.store.require, LOCAL, identity)
        hooks = [*self.hooks] if wanted.hooks is None else wanted.hooks
        for name in hooks:
            if name not in self.hooks:
                raise UnknownName(f"unknown hook '{name}'; known: {', '.join(self.hooks)}")
        if len(set(hooks)) < len(hooks):
            raise UsageError("hooks: each may be named once")
        examples = [example.model_dump() for example in wanted.examples or ()]
        return await self.jobs.submit(identity, {"hooks": hooks, "examples": examples})

    def job(self, identity: str) -> Job:
        """A job of an adapter that may be seen. Raises NotFound."""
        found = self.jobs.store.get(identity)
        self.store.require(LOCAL, found.adapter)
        return found

    def _verify(self, job: Job, progress: Progress) -> dict[str, Any]:
        """Every hook in its turn; ends when the adapter is deleted meanwhile."""
        record = self.store.get(LOCAL, job.adapter)
        files = {name: self.store.read(LOCAL, job.adapter, name)[0] for name in record["files"]}
        examples = [
            Instance(f"example-{i}", row["input"], (row["output"],))
            for i, row in enumerate(job.wanted["examples"])
        ]
        subject = Subject(job.adapter, files, record["base_model"], examples)
        names, findings = job.wanted["hooks"], []
        for done, name in enumerate(names):

            def advance(share: float, done: int = done) -> None:
                self.store.require(LOCAL, job.adapter)
                progress((done + share) / len(names))

            findings += self.hooks[name](subject, advance)
            advance(1.0)
        return {"verdict": verdict(findings), "findings": [f.to_dict() for f in findings]}

    def _create(self, made: Generator, wish: Wish, base: BaseReference) -> Made:
        adapter = made.generate([wish], base)[0]
        files = adapter.files.files
        record, new = self.store.put(LOCAL, adapter.summary(), files)
        return Made(record, files[WEIGHTS_FILE], new)


def _warm(loaded: Generator) -> Generator:
    """The generator with its encoder loaded, which the first request should not wait for."""
    _ = loaded.encoder
    return loaded


def _log_failure(error: Exception) -> None:
    logging.getLogger("lorasmith.api").error("the generator cannot be loaded: %s", error)


def _of(request: Request) -> Service:
    return cast(Any, request.app).state.service


ServiceOf = Annotated[Service, Depends(_of)]
