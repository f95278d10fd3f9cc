"""When owners last used their adapters, a column of the store's table of owners."""

from collections.abc import Callable

from sqlalchemy import Connection

from api.service.database import run

NOTE_SECONDS = 3600  # within which uses are noted once, to spare the disk


class Uses:
    """Notes uses, and finds what was not used for a time to live.

    Args:
        ttl: in seconds; None if nothing expires.
        clock: the time, in seconds since 1970.
    """

    def __init__(self, ttl: int | None, clock: Callable[[], float]) -> None:
        self.ttl, self._clock = ttl, clock
        self._seconds = NOTE_SECONDS if ttl is None else min(NOTE_SECONDS, ttl / 10)

    def is_new(self, used: float) -> bool:
        """Whether a use now is to be noted, where the last one was noted at `used`."""
        return abs(self._clock() - used) > self._seconds  # clocks are also put back

    def note(self, rows: Connection, owner: str | None, identity: str) -> None:
        """Note that an owner, or each of them if None, uses an adapter now."""
        noted = "UPDATE owners SET used = :now WHERE id = :id AND key = coalesce(:owner, key)"
        run(rows, noted, now=self._clock(), id=identity, owner=owner)

    def expired(self, rows: Connection) -> tuple[float, list[tuple[str, str]]]:
        """The time since when what has expired was not used, and that: (owner, id).

        Of what was used in the future, as the clock was put back, or before uses were noted, the
        time begins now.
        """
        now = self._clock()
        since = now - (self.ttl or 0)
        if self.ttl is None:
            return since, []
        run(rows, "UPDATE owners SET used = :now WHERE used = 0 OR used > :now", now=now)
        found = "SELECT key, id FROM owners WHERE used < :since ORDER BY used"
        return since, [(row.key, row.id) for row in run(rows, found, since=since)]
