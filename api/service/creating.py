"""Adapters that need no training: each request is computed once, however often it comes."""

from collections import OrderedDict
from dataclasses import replace
from functools import partial

from anyio import CapacityLimiter, to_thread

from api.errors import NotFound
from api.service.admission import Admission
from api.service.making import Created, Making, request_json
from api.service.single_flight import SingleFlight
from api.service.store import Store
from generator.request import Request
from library.base.models import BaseReference
from library.canonical import canonical_json, digest

REMEMBERED = 100_000  # requests; the id of an adapter is kept for each


class Creating:
    """Answers requests from what is stored, from work under way, or by work in the waiting line.

    Equal requests have equal answers until the library changes, which is all that may change of an
    engine. For the event loop's thread only.

    Args:
        making: does the work.
        store: where adapters are kept.
        admission: the waiting line.
    """

    def __init__(self, making: Making, store: Store, admission: Admission) -> None:
        self._making, self._store, self._admission = making, store, admission
        self._writing = CapacityLimiter(1)
        self._flights = SingleFlight[Created]()
        self._known = OrderedDict[str, str]()  # ids by digest of a request, the latest last

    async def create(self, owner: str, name: str, request: Request, base: BaseReference) -> Created:
        """An adapter of `owner`'s by the strategy `name`. Raises as the engine and the store do."""
        asked = {
            "owner": owner,
            "generator": name,
            "base": base.name,
            "request": request_json(request),
            "library": await to_thread.run_sync(self._making.library_changes),
        }
        key = digest(canonical_json(asked))
        stored = await self._stored(owner, key)
        if stored is not None:
            return stored
        make = partial(self._make, owner, name, request, base)
        created, first = await self._flights.run(key, make)
        self._remember(key, created.record["id"])
        return created if first else replace(created, new=False)

    async def _make(self, owner: str, name: str, request: Request, base: BaseReference) -> Created:
        """A new adapter. While it is written, which waits for the disk, the next is computed."""
        with self._admission.place():
            adapter = await self._admission.in_turn(self._making.generate, name, request, base)
            keep = partial(self._making.keep, owner, adapter)
            return await to_thread.run_sync(keep, limiter=self._writing)

    async def _stored(self, owner: str, key: str) -> Created | None:
        """The answer to a request that came before, if its adapter is there as it was."""
        identity = self._known.get(key)
        if identity is None:
            return None
        try:
            record = await to_thread.run_sync(self._store.get, owner, identity)
        except NotFound:
            return None
        return Created(record, new=False, milliseconds={})

    def _remember(self, key: str, identity: str) -> None:
        self._known[key] = identity
        self._known.move_to_end(key)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
