"""Adapters that nobody uses are removed while the service runs."""

import logging

import anyio
from anyio import to_thread

from api.errors import StorageFailed
from api.service.store import Store

MOST_SECONDS = 60.0  # between two looks


class Expiry:
    """Sweeps a store again and again; a store whose adapters do not expire is left alone."""

    def __init__(self, store: Store) -> None:
        self._store, self._ttl = store, store.uses.ttl
        self._stopped: anyio.Event | None = None

    async def run(self) -> None:
        """Sweep until `stop`. A store that cannot be used now is tried again."""
        if self._ttl is None:
            return
        self._stopped = stopped = anyio.Event()
        while not stopped.is_set():
            await to_thread.run_sync(self._sweep)
            with anyio.move_on_after(min(MOST_SECONDS, self._ttl / 10)):
                await stopped.wait()

    def stop(self) -> None:
        """End `run`. For the event loop's thread only."""
        if self._stopped is not None:
            self._stopped.set()

    def _sweep(self) -> None:
        try:
            swept = self._store.sweep()
        except StorageFailed as error:
            _log.error("expired adapters cannot be removed: %s", error)
            return
        except Exception:  # an accident, which is not to end the service's other work
            _log.exception("expired adapters cannot be removed")
            return
        if swept:
            _log.info("removed adapters that were not used: %d", swept)


_log = logging.getLogger("lorasmith.api")
