"""Answers that are kept under the keys that clients gave them, so that a repetition does no work.

What runs is known to this process alone: after a crash its keys are free, and a client that tries
again gets its work done.
"""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from api.errors import KeyInUse, KeyReused
from api.service.sqlite import SqliteFile

KEPT_SECONDS = 24 * 3600
MAX_REPLIES = 1000  # of one owner; the oldest go

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    owner TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, status INTEGER NOT NULL,
    headers TEXT NOT NULL, body BLOB, kept REAL NOT NULL, PRIMARY KEY (owner, key)
) STRICT;
"""


@dataclass(frozen=True)
class Reply:
    """An answer; the body is None if it is the weights of the adapter that the headers name."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


class Replies:
    """The answers of one data folder.

    Args:
        folder: holds `replies.sqlite3`.
    """

    def __init__(self, folder: Path) -> None:
        self._database = SqliteFile(
            folder / "replies.sqlite3", _SCHEMA, "the store of answers", version=1
        )
        self._running: dict[tuple[str, str], str] = {}
        self._guard = threading.Lock()

    def prepare(self) -> None:
        """Bring the file up to date. Raises StorageFailed."""
        self._database.prepare()

    def begin(self, owner: str, key: str, fingerprint: str) -> Reply | None:
        """The answer under a key; None if there is none yet, and then the key is taken.

        Args:
            fingerprint: equal for equal requests.
        Raises:
            KeyReused: the key is another request's.
            KeyInUse: the same request is being answered.
            StorageFailed: answers cannot be read.
        """
        with self._guard:
            running = self._running.get((owner, key))
            if running is not None:
                _require_same(running, fingerprint)
                raise KeyInUse(
                    "the first request with this Idempotency-Key is still being answered"
                )
            rows = self._database.query(
                "SELECT fingerprint, status, headers, body FROM replies"
                " WHERE owner = ? AND key = ? AND kept > ?",
                *(owner, key, time.time() - KEPT_SECONDS),
            )
            if not rows:
                self._running[owner, key] = fingerprint
                return None
        known, status, headers, body = rows[0]
        _require_same(known, fingerprint)
        return Reply(status, json.loads(headers), body)

    def keep(self, owner: str, key: str, fingerprint: str, reply: Reply) -> None:
        """Keep an answer for a day. Raises StorageFailed."""
        now = time.time()
        with self._database.transaction() as rows:
            rows.execute("DELETE FROM replies WHERE kept <= ?", (now - KEPT_SECONDS,))
            rows.execute(
                "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)",
                (owner, key, fingerprint, reply.status, json.dumps({**reply.headers}), reply.body,
                 now),
            )  # fmt: skip
            rows.execute(
                "DELETE FROM replies WHERE owner = ?1 AND rowid NOT IN (SELECT rowid FROM replies"
                " WHERE owner = ?1 ORDER BY rowid DESC LIMIT ?2)",
                (owner, MAX_REPLIES),
            )

    def end(self, owner: str, key: str) -> None:
        """Give a key back that `begin` took, whether or not there is an answer."""
        with self._guard:
            self._running.pop((owner, key), None)


def _require_same(known: str, fingerprint: str) -> None:
    if known != fingerprint:
        raise KeyReused("the Idempotency-Key is that of another request; take a new one")
