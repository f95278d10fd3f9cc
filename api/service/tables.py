"""The tables of a service: what is stored of adapters, keys, jobs and answers.

An SQLite file has one group of them; PostgreSQL has all.
"""

from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

# SQLite's strict tables know few types; bytes order text on PostgreSQL too, as SQLite does.
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
_WHOLE = Integer().with_variant(BigInteger(), "postgresql")
_SECONDS = REAL().with_variant(Double(), "postgresql")  # since 1970
_SINCE = text("0")  # of rows from before there was such a column

STORED, KEYS, JOBS, REPLIES = MetaData(), MetaData(), MetaData(), MetaData()


def _column(name: str, type: Any, *more: Any, **options: Any) -> Column[Any]:
    return Column(name, type, *more, **{"nullable": False, **options})


def _texts(*names: str) -> list[Column[Any]]:
    return [_column(name, _TEXT) for name in names]


def _key(*names: str) -> list[Column[Any]]:
    return [_column(name, _TEXT, primary_key=True) for name in names]


def _number() -> Column[Any]:
    return _column("number", _WHOLE, primary_key=True)


def _table(name: str, group: MetaData, *parts: Any) -> Table:
    return Table(name, group, *parts, sqlite_strict=True)


_table("adapters", STORED, *_key("id"), _column("bytes", _WHOLE), *_texts("record"))
_table(
    "owners",
    STORED,
    *_key("key"),
    _column("id", _TEXT, ForeignKey("adapters.id"), primary_key=True),
    _column("used", _SECONDS, server_default=_SINCE),
    Index("owners_by_id", "id"),
)
_table(
    "names",
    STORED,
    *_key("owner", "name"),
    _column("last", _WHOLE),
    _column("suite", _TEXT, nullable=True),
)
_table(
    "versions",
    STORED,
    *_key("owner", "name"),
    _column("number", _WHOLE, primary_key=True, autoincrement=False),
    *_texts("adapter", "created"),
    UniqueConstraint("owner", "name", "adapter"),
    ForeignKeyConstraint(["owner", "name"], ["names.owner", "names.name"]),
    ForeignKeyConstraint(["owner", "adapter"], ["owners.key", "owners.id"]),
    Index("versions_by_adapter", "owner", "adapter"),
)
_table(
    "moves",
    STORED,
    _number(),
    *_texts("owner", "name", "time", "action"),
    _column("before", _WHOLE, nullable=True),
    _column("after", _WHOLE),
    _column("scores", _TEXT, nullable=True),
    _column("suite", _TEXT, nullable=True),
    ForeignKeyConstraint(["owner", "name"], ["names.owner", "names.name"]),
    Index("moves_by_name", "owner", "name"),
)
_table(
    "keys",
    KEYS,
    *_key("id"),
    *_texts("name", "scopes"),
    _column("quota_bytes", _WHOLE, nullable=True),
    _column("rate", _TEXT, nullable=True),
    *_texts("created"),
    _column("revoked", _TEXT, nullable=True),
    *_texts("secret_sha256"),
    _column("made", _SECONDS, server_default=_SINCE),
)
jobs = _table(
    "jobs",
    JOBS,
    _number(),
    _column("id", _TEXT, unique=True),
    *_texts("adapter", "worker", "state"),
    _column("progress", _SECONDS),
    *_texts("wanted"),
    _column("result", _TEXT, nullable=True),
    _column("error", _TEXT, nullable=True),
    # Jobs from before there were keys have no owner of their own, which is LOCAL.
    _column("owner", _TEXT, server_default="local"),
    _column("asked", _SECONDS, server_default=_SINCE),
    _column("heard", _SECONDS, server_default=_SINCE),
)
_table(
    "replies",
    REPLIES,
    *_key("owner", "key"),
    *_texts("fingerprint"),
    _column("status", _WHOLE),
    *_texts("headers"),
    _column("body", LargeBinary, nullable=True),
    _column("kept", _SECONDS),
)
