"""What the routes call: the loaded strategies behind their waiting line, the store, the jobs."""

import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, cast

from anyio import to_thread
from fastapi import Depends, Request

from api.cli.common import SHIPPED, shipped_library
from api.errors import NotReady
from api.http.schemas import AdapterRequest, ProofBody, VerifyRequest
from api.service.admission import Admission
from api.service.hooks import configured, hooks_of
from api.service.job_store import JobRow, JobStore
from api.service.jobs import Jobs, Progress
from api.service.settings import Settings
from api.service.store import LOCAL, Store, StoredRecord
from generator.generate import Generator
from generator.request import Request as Wish
from generator.strategies.strategies import DEFAULT_GENERATOR, Strategies, require_known
from index.encoders.descriptions import DescriptionEncoder
from index.search.searcher import Result, Searcher
from index.search.sources import By
from index.segments.metadata import Filter
from library.base.models import BaseReference
from library.errors import LorasmithError, MissingPath, UsageError
from library.peft.write import WEIGHTS_FILE
from library.store.catalogue import open_library
from library.tasks.files import Example
from verification import run
from verification.artifact import Artifact, Context
from verification.report import reported, summary
from verification.scores.agreement import AGREEMENT_HOOK
from verification.scores.behaviour_hook import BEHAVIOUR_HOOK
from verification.zk.backend import read_srs, require_ezkl
from verification.zk.bundle import require_count, require_nonce
from verification.zk.hook import Challenge, zk_hook
from verification.zk.report import ZK_HOOK

FOLLOW_SECONDS = 2  # between two looks at what changed in the library


@dataclass(frozen=True)
class Made:
    """A stored adapter.

    Attributes:
        record: what is known about it.
        weights: the content of its safetensors file.
        new: whether it was not there before.
        milliseconds: what each hook took, this time.
    """

    record: StoredRecord
    weights: bytes
    new: bool
    milliseconds: dict[str, float]


class Service:
    """One checkpoint, one library, one store, one waiting line, one queue of jobs.

    Args:
        settings: what it is started with.
        loaded: a generator to use at once; otherwise `load` reads the configured one.
    Raises:
        MissingPath, ProofFileError: the configured tasks or SRS cannot be used.

    Attributes:
        on_failure: called with the reason if `load` fails; logs it by default.
    """

    def __init__(self, settings: Settings, loaded: Generator | None = None) -> None:
        if settings.tasks is not None and not settings.tasks.exists():
            raise MissingPath(f"there is no task folder at {settings.tasks}")
        self.settings = settings
        self.store = Store(settings.data, quota_bytes=settings.quota_bytes)
        self.admission = Admission(
            "requests", waiting=settings.queue_length, retry_after=settings.retry_after
        )
        self.hooks = hooks_of(settings, lambda: self.strategies)
        self.jobs = Jobs(
            JobStore(settings.data),
            self._verify,
            waiting=settings.job_queue_length,
            retry_after=settings.retry_after,
        )
        self._srs = None if settings.zk_srs is None else read_srs(settings.zk_srs)
        self.on_failure: Callable[[Exception], None] = _log_failure
        self._searcher: Searcher | None = None
        self._followed = 0.0
        self._strategies = None if loaded is None else _warm(loaded, settings)

    @property
    def strategies(self) -> Strategies:
        """Every way to make an adapter. Raises NotReady until all that they need is loaded."""
        if self._strategies is None:
            raise NotReady("the generator is still being loaded", self.settings.retry_after)
        return self._strategies

    async def load(self) -> None:
        """Read checkpoint and library in a thread, unless that is done. Never raises."""
        if self._strategies is not None:
            return
        try:
            self._strategies = await to_thread.run_sync(
                lambda: _warm(Generator(self.settings.checkpoint), self.settings)
            )
        except Exception as error:
            self.on_failure(error)

    async def create(self, wanted: AdapterRequest) -> Made:
        """Make and keep an adapter; the same request finds the one that is kept."""
        name = wanted.generator or DEFAULT_GENERATOR
        require_known(name, examples=bool(wanted.examples))
        made = self.strategies
        base = self.settings.base(wanted.base)
        given = wanted.model_dump(
            include={"description", "rank", "strength", "seed", "profile"}, exclude_none=True
        )
        examples = tuple(Example.pair(e.input, e.output) for e in wanted.examples or ())
        wish = Wish(**given, examples=examples)
        return await self.admission.run(self._create, made, name, wish, base)

    async def verify(self, identity: str, wanted: VerifyRequest) -> JobRow:
        """Queue a verification of an adapter.

        Raises NotFound, UnknownName, UsageError, MissingExtra, NotReady, and as Jobs.submit.
        """
        await to_thread.run_sync(self.store.require, LOCAL, identity)
        names = [*self.hooks] if wanted.hooks is None else wanted.hooks
        run.require_known_hooks(names, (*self.hooks, ZK_HOOK))
        if len(set(names)) < len(names):
            raise UsageError("hooks: each may be named once")
        if wanted.examples and BEHAVIOUR_HOOK not in names:
            raise UsageError(
                "examples: they are for the hook behaviour, which is not among the hooks"
            )
        if {AGREEMENT_HOOK, BEHAVIOUR_HOOK} & {*names}:
            _ = self.strategies  # what they need is loaded, or the client comes again
        challenge = _challenge(names, wanted)
        if challenge is not None:
            await to_thread.run_sync(self._require_modules, identity, challenge["modules"])
        asked: dict[str, Any] = {"hooks": names, "zk": challenge}
        asked["examples"] = [example.model_dump() for example in wanted.examples or ()]
        return await self.jobs.submit(identity, asked)

    def job(self, identity: str) -> JobRow:
        """A job of an adapter that may be seen. Raises NotFound."""
        found = self.jobs.store.get(identity)
        self.store.require(LOCAL, found.adapter)
        return found

    def _verify(self, job: JobRow, progress: Progress) -> dict[str, Any]:
        """Every hook in its turn; ends when the adapter is deleted meanwhile."""
        record = self.store.get(LOCAL, job.adapter)
        files = self._files(record)
        examples = [Example.pair(row["input"], row["output"]) for row in job.request["examples"]]

        def advance(share: float) -> None:
            self.store.require(LOCAL, job.adapter)
            progress(share)

        base = configured(self.settings, record["base_model"])
        context = Context(base=base, examples=examples, progress=advance)
        known = [*self.hooks.values()]
        if job.request["zk"] is not None:
            known.append(zk_hook(Challenge(**job.request["zk"]), self._srs))
        policy = run.Policy(hooks=tuple(job.request["hooks"]))
        return summary(run.run_hooks(Artifact(files), context, policy, hooks=known))

    def _require_modules(self, identity: str, count: int | None) -> None:
        """Raise UsageError if fewer modules could be proved than are asked for."""
        files = self._files(self.store.get(LOCAL, identity))
        require_count(len(Artifact(files).pairs), count)

    def _create(self, made: Strategies, name: str, wish: Wish, base: BaseReference) -> Made:
        adapter = made.generate(name, [wish], base)[0]
        checked = reported(adapter.files, base)
        files = checked.files.files
        known = {**adapter.summary(), "report": checked.report}
        record, new = self.store.put(LOCAL, known, files)
        return Made(record, files[WEIGHTS_FILE], new, checked.milliseconds)

    async def search(
        self, text: str | None, adapter: str | None, by: By | None, k: int, wanted: Filter
    ) -> list[Result]:
        """The adapters of the library that are nearest to a text, a stored adapter, or both.

        Raises NotFound, and as Searcher does.
        """
        encoder = self.strategies.encoder
        return await self.admission.run(self._search, encoder, text, adapter, by, k, wanted)

    def _search(
        self,
        encoder: DescriptionEncoder,
        text: str | None,
        adapter: str | None,
        by: By | None,
        k: int,
        wanted: Filter,
    ) -> list[Result]:
        """One at a time, as the waiting line has it; the first opens the index, or makes one."""
        files = None if adapter is None else self._files(self.store.get(LOCAL, adapter))
        now = time.monotonic()
        if self._searcher is None:
            self._searcher = Searcher(self.settings.library or SHIPPED, lambda: encoder)
            self._followed = now
        elif now - self._followed > FOLLOW_SECONDS:
            self._searcher.follow()
            self._followed = now
        return self._searcher.search(text, files, by=by, k=k, wanted=wanted)

    def _files(self, record: StoredRecord) -> dict[str, bytes]:
        """What a stored adapter's files hold. Raises NotFound."""
        return {name: self.store.read(LOCAL, record["id"], name)[0] for name in record["files"]}


def _challenge(names: list[str], wanted: VerifyRequest) -> dict[str, Any] | None:
    """What proofs are asked for, with a nonce in any case. Raises UsageError, MissingExtra."""
    if ZK_HOOK not in names:
        if wanted.zk is not None:
            raise UsageError("zk: it is for the hook zk, which is not among the hooks")
        return None
    require_ezkl()
    asked = wanted.zk or ProofBody()
    nonce = secrets.token_hex(16) if asked.nonce is None else asked.nonce
    require_nonce(nonce)
    return {"nonce": nonce, "modules": None if asked.modules == "all" else asked.modules}


def _warm(loaded: Generator, settings: Settings) -> Strategies:
    """The strategies with encoder and library read, which the first request should not wait for."""
    place = settings.library or shipped_library()
    made = Strategies(loaded, open_library(place) if place else None)
    _ = loaded.encoder
    with suppress(LorasmithError):  # a request for this base will be told
        made.shelf(settings.base()).nearest("Anything.", 1)
    return made


def _log_failure(error: Exception) -> None:
    logging.getLogger("lorasmith.api").error("the generator cannot be loaded: %s", error)


def _of(request: Request) -> Service:
    return cast(Any, request.app).state.service


ServiceOf = Annotated[Service, Depends(_of)]
