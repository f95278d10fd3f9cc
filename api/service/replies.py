"""Answers that are kept under the keys that clients gave them, so that a repetition does no work.

A request takes its key while it is being answered. A process that is killed leaves the keys that it
took: an SQLite file frees them when the next one begins, PostgreSQL after TAKEN_SECONDS.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from api.errors import KeyInUse, KeyReused, StorageFailed
from api.service.database import Database, run
from api.service.tables import REPLIES

KEPT_SECONDS = 24 * 3600
TAKEN_SECONDS = 120  # of a key, if it is not given back
MAX_REPLIES = 1000  # of one owner; the oldest go

_NAMED = "owner = :owner AND key = :key"


@dataclass(frozen=True)
class Reply:
    """An answer; the body is None if it is the weights of the adapter that the headers name."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


class Replies:
    """The answers of a service.

    A key that was taken has a row without an answer, status 0, for all replicas to see.

    Args:
        folder: holds `replies.sqlite3`.
        database: URL of PostgreSQL in place of that.
    """

    def __init__(self, folder: Path, database: str | None = None) -> None:
        file = folder / "replies.sqlite3"
        self._database = Database(file, REPLIES, "the store of answers", database, version=1)

    def prepare(self) -> None:
        """Bring the table up to date. Raises StorageFailed."""
        self._database.prepare()
        if self._database.file:  # of one process, which has begun nothing yet
            self._database.query("DELETE FROM replies WHERE status = 0")

    def begin(self, owner: str, key: str, fingerprint: str) -> Reply | None:
        """The answer under a key; None if there is none yet, and then the key is taken.

        Args:
            fingerprint: equal for equal requests.
        Raises:
            KeyReused: the key is another request's.
            KeyInUse: the same request is being answered.
            StorageFailed: answers cannot be read.
        """
        now = time.time()
        with self._database.transaction() as rows:
            found = run(
                rows,
                f"SELECT fingerprint, status, headers, body FROM replies WHERE {_NAMED} AND"
                " kept > CASE status WHEN 0 THEN :taken ELSE :kept END",
                owner=owner,
                key=key,
                taken=now - TAKEN_SECONDS,
                kept=now - KEPT_SECONDS,
            ).first()
            if found is None:
                _put(rows, owner, key, fingerprint, Reply(0, {}, None), now)
                return None
        known, status, headers, body = [*found]
        _require_same(known, fingerprint)
        if not status:
            raise KeyInUse("the first request with this Idempotency-Key is still being answered")
        return Reply(status, json.loads(headers), body)

    def keep(self, owner: str, key: str, fingerprint: str, reply: Reply) -> None:
        """Keep an answer for a day. Raises StorageFailed."""
        now = time.time()
        with self._database.transaction() as rows:
            run(rows, "DELETE FROM replies WHERE kept <= :since", since=now - KEPT_SECONDS)
            _put(rows, owner, key, fingerprint, reply, now)
            run(
                rows,
                "DELETE FROM replies WHERE owner = :owner AND status != 0 AND key NOT IN (SELECT"
                " key FROM replies WHERE owner = :owner AND status != 0"
                " ORDER BY kept DESC LIMIT :most)",
                owner=owner,
                most=MAX_REPLIES,
            )

    def end(self, owner: str, key: str) -> None:
        """Give a key back that `begin` took, whether or not there is an answer."""
        with suppress(StorageFailed):  # then it is free by itself after a while
            self._database.query(
                f"DELETE FROM replies WHERE {_NAMED} AND status = 0", owner=owner, key=key
            )


def _put(
    rows: Connection, owner: str, key: str, fingerprint: str, reply: Reply, now: float
) -> None:
    run(
        rows,
        "INSERT INTO replies (owner, key, fingerprint, status, headers, body, kept)"
        " VALUES (:owner, :key, :fingerprint, :status, :headers, :body, :now)"
        " ON CONFLICT (owner, key) DO UPDATE SET fingerprint = excluded.fingerprint,"
        " status = excluded.status, headers = excluded.headers, body = excluded.body,"
        " kept = excluded.kept",
        owner=owner,
        key=key,
        fingerprint=fingerprint,
        status=reply.status,
        headers=json.dumps({**reply.headers}),
        body=reply.body,
        now=now,
    )


def _require_same(known: str, fingerprint: str) -> None:
    if known != fingerprint:
        raise KeyReused("the Idempotency-Key is that of another request; take a new one")
