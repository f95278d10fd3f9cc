"""API keys: each is shown once, when it is made, and recognised later by a hash.

A key is `lsk_<id>_<secret>`: the id is public and names the key in lists and as an owner; the
secret is 32 random bytes, of which only the SHA-256 is kept. Nobody can try 2^256 secrets, so a
hash that is slow on purpose, which passwords need, would only make each request slow.
"""

import hmac
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from api.errors import Unauthenticated
from api.service.database import Database, utc_now
from api.service.tables import KEYS
from library.canonical import digest
from library.errors import UnknownName, UsageError

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
USUAL: tuple[Scope, ...] = ("read", "write")
MAX_NAME = 100  # characters
MAX_BYTES = 2**63 - 1  # the largest number of the databases
RATE = re.compile(r"[1-9][0-9]{0,4}/(second|minute|hour|day)")

UNKNOWN_KEY = "the key is not one of this service's"
_KEY = re.compile(r"lsk_([0-9a-f]{16})_([0-9a-f]{64})")
_COLUMNS = "id, name, scopes, quota_bytes, rate, created, revoked"


@dataclass(frozen=True)
class Key:
    """What is known of a key; its secret is not.

    Attributes:
        name: what it is called by those who made it.
        scopes: what it is for.
        quota_bytes: limit for the files of its adapters; None for the service's alone.
        rate: how many requests it may make, as "60/minute"; None for the service's default.
        created, revoked: when, in UTC; not revoked if None.
    """

    id: str
    name: str
    scopes: tuple[Scope, ...]
    quota_bytes: int | None
    rate: str | None
    created: str
    revoked: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The key as JSON."""
        return {**asdict(self), "scopes": list(self.scopes)}


class KeyStore:
    """The keys of a service. Each call reads them anew, so that a revocation acts at once.

    Args:
        folder: holds `keys.sqlite3`.
        database: URL of PostgreSQL in place of that.
    """

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self.folder = folder
        file = folder / "keys.sqlite3"
        self._database = Database(file, KEYS, "the key store", database, version=2)

    def prepare(self) -> None:
        """Bring the table up to date. Raises StorageFailed."""
        self._database.prepare()

    def create(
        self,
        name: str,
        scopes: Sequence[str] = USUAL,
        quota_bytes: int | None = None,
        rate: str | None = None,
    ) -> tuple[Key, str]:
        """A new key and the text of it, which is kept nowhere. Raises UsageError, StorageFailed."""
        if not name.isprintable() or not 1 <= len(name.strip()) <= MAX_NAME:
            raise UsageError(f"the name must be 1 to {MAX_NAME} printable characters")
        for scope in scopes:
            if scope not in SCOPES:
                raise UnknownName(f"unknown scope {scope!r}; known: {', '.join(SCOPES)}")
        if quota_bytes is not None and not 0 < quota_bytes <= MAX_BYTES:
            raise UsageError(f"the quota must be from 1 to {MAX_BYTES} bytes, not {quota_bytes}")
        if rate is not None:
            require_rate(rate)
        granted = _in_order(scopes)
        key = Key(secrets.token_hex(8), name.strip(), granted, quota_bytes, rate, utc_now())
        secret = secrets.token_hex(32)
        self._database.query(
            f"INSERT INTO keys ({_COLUMNS}, secret_sha256, made) VALUES"
            " (:id, :name, :scopes, :quota_bytes, :rate, :created, :revoked, :sha256, :made)",
            **{**vars(key), "scopes": " ".join(granted)},
            sha256=digest(secret.encode()),
            made=time.time(),
        )
        return key, f"lsk_{key.id}_{secret}"

    def all(self) -> list[Key]:
        """Every key, also the revoked ones, in the order in which they were made."""
        rows = self._database.query(f"SELECT {_COLUMNS} FROM keys ORDER BY made, created")
        return [_key(row) for row in rows]

    def exist(self) -> bool:
        """Whether there is any key, revoked ones included."""
        return bool(self._database.query("SELECT 1 FROM keys LIMIT 1"))

    def revoke(self, identity: str) -> Key:
        """Revoke a key, for good; one that is revoked stays as it is. Raises UnknownName."""
        encodable = identity.encode("ascii", "replace").decode()  # not lone surrogates
        rows = self._database.query(
            "UPDATE keys SET revoked = coalesce(revoked, :now) WHERE id = :id"
            f" RETURNING {_COLUMNS}",
            now=utc_now(),
            id=encodable,
        )
        if not rows:
            raise UnknownName(f"there is no key with the id {identity!r}")
        return _key(rows[0])

    def find(self, text: str) -> Key:
        """The key that a text is. Raises Unauthenticated if it is none, or a revoked one."""
        match = _KEY.fullmatch(text)
        if match is None:
            raise Unauthenticated(UNKNOWN_KEY)
        # The row is looked up by the public id, and the rest compared in constant time: how long
        # an answer takes says nothing about the secret.
        key, sha256 = self._row(match[1])
        if not hmac.compare_digest(digest(match[2].encode()), sha256):
            raise Unauthenticated(UNKNOWN_KEY)
        return _active(key)

    def get(self, identity: str) -> Key:
        """The key with this id. Raises Unauthenticated if there is none, or a revoked one."""
        return _active(self._row(identity)[0])

    def _row(self, identity: str) -> tuple[Key, str]:
        """A key and its secret's hash. Raises Unauthenticated if there is none."""
        rows = self._database.query(
            f"SELECT {_COLUMNS}, secret_sha256 FROM keys WHERE id = :id", id=identity
        )
        if not rows:
            raise Unauthenticated(UNKNOWN_KEY)
        return _key(rows[0][:-1]), rows[0][-1]


def require_rate(rate: str) -> str:
    """The rate itself. Raises UsageError unless it is one, such as "60/minute"."""
    if RATE.fullmatch(rate) is None:
        raise UsageError(
            f"a rate is a number up to 99999 and second, minute, hour or day, as 60/minute, not "
            f"{rate!r}"
        )
    return rate


def _active(key: Key) -> Key:
    if key.revoked is not None:
        raise Unauthenticated(f"the key {key.id} was revoked")
    return key


def _key(row: Sequence[Any]) -> Key:
    identity, name, scopes, *others = row
    return Key(identity, name, _in_order(scopes.split()), *others)


def _in_order(scopes: Sequence[str]) -> tuple[Scope, ...]:
    return tuple(scope for scope in SCOPES if scopes.count(scope))
