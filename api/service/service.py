"""The service: an engine behind its waiting line, the store, the jobs. The routes call this."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO

from anyio import to_thread

import pretrained
from api.errors import NotReady
from api.service.admission import ENDING, Admission, never
from api.service.callers import Caller, caller_with
from api.service.composing import Composing, merge_json
from api.service.creating import Creating
from api.service.expiry import Expiry
from api.service.importing import Importing
from api.service.job_store import JobRow, JobStore, Keep
from api.service.jobs import Jobs, Share
from api.service.keys import KeyStore
from api.service.making import Created, Making, request_json
from api.service.metrics import Metrics
from api.service.names import NameStore
from api.service.promotion import Promotions
from api.service.replies import Replies
from api.service.searching import Searching
from api.service.settings import Settings
from api.service.store import Store
from api.service.traces import Traces
from api.service.verifying import Verifying
from generator.engine import (
    DEFAULT_STRATEGY,
    Engine,
    open_engine,
    read_generators,
    require_strategy,
    shipped_library,
)
from generator.request import Query, Request
from generator.strategies.multi_task import require_serving, shipped_multi_tasks
from index.merge.compose import MergeRequest
from index.search.plane import LibraryMap, Point
from index.search.searcher import Result
from index.search.sources import By
from index.segments.metadata import Filter
from library.errors import MissingPath
from library.tasks.files import Example
from verification.zk.hook import Challenge

UPLOADS = 4  # at once; each may take as much disk as one may have bytes


class Service:
    """One engine, one store, one waiting line, one queue of jobs.

    Args:
        settings: what it is started with.
        engine: used at once; otherwise `load` opens the configured one.
        traces: where requests, jobs and their stages are spans; nowhere by default.
    Raises:
        MissingPath, ProofFileError: the configured tasks or SRS cannot be used.
        AdapterFileError, LayoutMismatch: a configured multi-task adapter is damaged, or for none of
            the bases.

    Attributes:
        hooks: those that a verification runs if it names none, by name.
        on_failure: called with the reason if `load` fails; logs it by default.
        uploads: places for bodies that are being received; for whoever receives them.
        draining: whether no more work is to be taken, as the server is to end.
        stopping: whether its time is over, so that also answers in the making are to end.
    """

    def __init__(
        self, settings: Settings, engine: Engine | None = None, traces: Traces | None = None
    ) -> None:
        if settings.tasks is not None and not settings.tasks.exists():
            raise MissingPath(f"there is no task folder at {settings.tasks}")
        require_serving(settings.multi_task, settings.present_bases())
        self.settings = settings
        self.keys = KeyStore(settings.data, settings.database)
        self.replies = Replies(settings.data, settings.database)
        self.store = Store(
            settings.data,
            quota_bytes=settings.quota_bytes,
            quota_of=lambda owner: caller_with(self.keys, owner).quota_bytes,
            ttl=settings.ttl,
            database=settings.database,
            objects=settings.objects,
        )
        self.expiry = Expiry(self.store)
        self.names = NameStore(self.store)
        self.traces = traces or Traces()
        self.metrics = Metrics(self.traces)
        self.admission = Admission(
            "requests",
            waiting=settings.queue_length,
            retry_after=settings.retry_after,
            waited=self.metrics.waited("requests"),
        )
        self._verifying = Verifying(settings, self.store, lambda: self.engine, self.metrics)
        self.hooks = self._verifying.hooks
        self._making = Making(settings, self.store, lambda: self.engine, self.metrics)
        self._creating = Creating(self._making, self.store, self.admission)
        self.uploads = Admission("uploads", waiting=UPLOADS - 1, retry_after=settings.retry_after)
        self._importing = Importing(settings, self.store, self.metrics)
        self._composing = Composing(settings, self.store, lambda: self.engine, self.metrics)
        self._promotions = Promotions(self.names, self._making, lambda: self.engine)
        self.jobs = Jobs(
            JobStore(settings.data, settings.database),
            self._work,
            waiting=settings.job_queue_length,
            retry_after=settings.retry_after,
            waited=self.metrics.waited("jobs"),
        )
        self.metrics.watch(self.jobs, self.store)
        self.on_failure: Callable[[Exception], None] = _log_failure
        self.draining: Callable[[], bool] = never
        self.stopping: Callable[[], bool] = never
        for line in (self.admission, self.uploads):
            line.draining = lambda: self.draining()
        self._searching = Searching(
            settings.library or str(pretrained.LIBRARY),
            self.store,
            self.metrics,
            lambda: self.engine.resources.encoder(),
        )
        self._engine = engine

    def prepare(self) -> None:
        """Bring the data folder up to date, before there are requests. Raises StorageFailed."""
        for store in (self.keys, self.names, self.jobs.store, self.replies):
            store.prepare()
        self.store.clear_begun()

    def require_time(self) -> None:
        """Raise NotReady if the server is to end."""
        if self.draining():
            raise NotReady(ENDING, self.settings.retry_after)

    @property
    def engine(self) -> Engine:
        """Every way to make an adapter. Raises NotReady until all that it needs is loaded."""
        if self._engine is None:
            raise NotReady("the generator is still being loaded", self.settings.retry_after)
        return self._engine

    async def load(self) -> None:
        """Open the configured engine in a thread, unless there is one. Never raises."""
        if self._engine is not None:
            return
        try:
            self._engine = await to_thread.run_sync(_warm, self.settings)
        except Exception as error:
            self.on_failure(error)

    async def create(
        self, caller: Caller, generator: str | None, request: Request, base: str | None
    ) -> Created | JobRow:
        """Make and keep an adapter, or return the one that an equal request made.

        Args:
            caller: who owns it.
            generator: name of a strategy; the default one if None.
            base: a configured name; the default one if None.
        Returns:
            The adapter; where there are examples or inputs to train on, the job that does.
        Raises:
            Before anything is queued, all that is wrong with the request alone.
        """
        name = generator or DEFAULT_STRATEGY
        examples = bool(request.examples) and not request.refines
        require_strategy(name, examples=examples)
        self.engine.strategy(name, examples=examples)
        reference = self.settings.base(base)
        if not request.refines:
            return await self._creating.create(caller.owner, name, request, reference)
        await self.admission.run(self._making.require_start, name, request, reference)
        content = {"generator": name, "base": base, "request": request_json(request)}
        return await self.jobs.submit(caller.owner, "", {"kind": "create", **content})

    async def refine(self, caller: Caller, identity: str, request: Request) -> JobRow:
        """Queue the training of a stored adapter on examples or inputs; it stays as it is.

        Raises NotFound, UnknownName, UsageError, LayoutMismatch, NotReady, and as Jobs.submit.
        """
        _ = self.engine
        require = self._making.require_refinable
        await to_thread.run_sync(require, caller.sees, identity, request)
        content = {"adapter": identity, "request": request_json(request)}
        return await self.jobs.submit(caller.owner, "", {"kind": "refine", **content})

    async def compose(self, caller: Caller, request: MergeRequest) -> Created | JobRow:
        """Merge adapters of the caller and of the library; a job where that takes seconds.

        Raises NotFound, UnknownName, UsageError, LayoutMismatch, NotReady, Overloaded, Refused.
        """
        _ = self.engine
        takes_long = self._composing.takes_long
        if not await to_thread.run_sync(takes_long, caller.sees, request):
            merge = self._composing.compose
            return await self.admission.run(merge, caller.owner, caller.sees, request)
        content = {"kind": "compose", "request": merge_json(request)}
        return await self.jobs.submit(caller.owner, "", content)

    async def import_adapter(self, caller: Caller, upload: IO[bytes]) -> Created:
        """Check and keep an adapter that came in a tar. Raises Overloaded, and as Importing."""
        return await self.admission.run(self._importing.keep, caller.owner, upload)

    async def verify(
        self,
        caller: Caller,
        identity: str,
        hooks: Sequence[str] | None = None,
        examples: Sequence[Example] = (),
        challenge: Challenge | None = None,
    ) -> JobRow:
        """Queue a verification of an adapter.

        Args:
            hooks: names; all but zk if None.
            examples: for the behaviour hook.
            challenge: for the zk hook; one with a nonce of its own if None.
        Raises:
            NotFound, UnknownName, UsageError, MissingExtra, NotReady, and as Jobs.submit.
        """
        asking = self._verifying.asked
        asked = await to_thread.run_sync(asking, caller.sees, identity, hooks, examples, challenge)
        return await self.jobs.submit(caller.owner, identity, {"kind": "verify", **asked})

    async def promote(
        self, caller: Caller, name: str, version: int | None, at_least: int | None
    ) -> JobRow:
        """Queue the gate of a name for a version, by default the newest.

        Args:
            at_least: rows that it has to pass whatever the current version does.
        Raises:
            NotFound, Conflict, UnknownName, LayoutMismatch, NotReady, and as Jobs.submit.
        """
        _ = self.engine
        find = self._promotions.contest
        candidate = (await to_thread.run_sync(find, caller.owner, name, version)).candidate
        asked = {"name": name, "version": candidate.number, "at_least": at_least}
        content = {"kind": "promote", **asked}
        return await self.jobs.submit(caller.owner, candidate.adapter, content)

    def job(self, caller: Caller, identity: str) -> JobRow:
        """A job that may be seen: a verification as long as its adapter may. Raises NotFound."""
        job = self.jobs.store.get(identity, caller.sees)
        if job.kind == "verify":
            self.store.require(caller.sees, job.adapter)
        return job

    async def cancel(self, caller: Caller, identity: str) -> JobRow:
        """Cancel a job that has not ended; the job as it is then. Raises NotFound."""
        await to_thread.run_sync(self.job, caller, identity)
        return await self.jobs.cancel(identity)

    def _work(self, job: JobRow, share: Share) -> Keep:
        """What a job of any kind does. Raises Unauthenticated if its key was revoked."""
        with self.traces.span(f"job {job.kind}"):
            return self._work_of(job, share)

    def _work_of(self, job: JobRow, share: Share) -> Keep:
        caller = caller_with(self.keys, job.owner)
        if job.kind == "create":
            return self._making.create_by_job(job, share)
        if job.kind == "refine":
            return self._making.refine_by_job(caller.sees, job, share)
        if job.kind == "compose":
            return self._composing.compose_by_job(caller.sees, job)
        if job.kind == "promote":
            return self._promotions.promote_by_job(job, share)
        report = self._verifying.verify_by_job(caller.sees, job, share)
        return lambda: report

    async def search(
        self,
        caller: Caller,
        text: str | None,
        adapter: str | None,
        by: By | None,
        k: int,
        filter: Filter,
    ) -> list[Result]:
        """The adapters of the library that are nearest to a text, to one of the caller's, or both.

        Raises NotReady, NotFound, and as Searcher does.
        """
        _ = self.engine
        search = partial(self._searching.search, caller.sees)
        return await self.admission.run(search, text, adapter, by, k, filter)

    async def library_map(self, text: str | None) -> tuple[LibraryMap, Point | None]:
        """The library's map, and where a text lies on it. Raises as `search`."""
        _ = self.engine
        return await self.admission.run(self._searching.map, text)


def _warm(settings: Settings) -> Engine:
    """The configured engine with all that the first request would otherwise wait for."""
    engine = open_engine(
        read_generators(settings.checkpoints),
        settings.library or shipped_library(),
        multi_task=[*settings.multi_task, *shipped_multi_tasks()],
    )
    query = Query(Request("Anything."), settings.base(), engine.resources)
    _ = query.embeddings(), query.neighbours
    return engine


def _log_failure(error: Exception) -> None:
    logging.getLogger("lorasmith.api").error("the generator cannot be loaded: %s", error)
