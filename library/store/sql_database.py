"""A catalogue's database: SQLite in the library, or PostgreSQL by URL; its tables and their rows.

SQLite keeps its ordinary journal: write-ahead logging does not work on network file systems, where
libraries may lie. A writer takes the lock at once and waits for others. A row is known by the
library and the path of its record, as one database may hold many libraries.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.canonical import digest
from library.errors import CatalogueError, UsageError
from library.files import cache_dir
from library.store.folder import LibraryFolder
from library.store.records import Record, score_of

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, MetaData, Table

CATALOGUE_SCHEMA = (
    1  # of the tables below; raised when they change, and every catalogue is refilled
)
DATABASE_FILE = "catalogue.sqlite"
WAIT = 60  # seconds for another writer
REACH = 10  # seconds for a server to answer
_LOCK = int(digest(b"lorasmith catalogue")[:15], 16)
_DAMAGE = (1, 11, 26)  # SQLITE_ERROR (tables amiss), SQLITE_CORRUPT, SQLITE_NOTADB
_TEXTS = (
    "id", "sha256", "task", "recipe", "base_model", "base_sha256", "layout_digest", "seed",
    "license_class", "created",
)  # fmt: skip
_KINDS = {"license": "licenses", "category": "categories", "tag": "tags"}
_NUMBERS = ("variant", "rank", "shard", "steps")


@dataclass(frozen=True)
class CatalogueDatabase:
    """A database and the name of one library in it.

    Attributes:
        url: of the database.
        library: the first key of the library's rows.
        file: the SQLite file, where it is the library's own and may be made again.
    """

    url: "URL"
    library: str
    file: Path | None = None

    def __str__(self) -> str:
        return str(self.file) if self.file else self.url.render_as_string(hide_password=True)


def database_for(folder: LibraryFolder, url: str | None) -> CatalogueDatabase:
    """`url`, or a file in the library, or for one that cannot be written a file in the cache.

    Raises UsageError as `database_url` does.
    """
    from sqlalchemy import URL

    if url is not None:
        return CatalogueDatabase(database_url(url), folder.url)
    if folder.local is not None and os.access(folder.local, os.W_OK):
        file, library = folder.local / DATABASE_FILE, "."  # the folder may be moved
    else:
        file = cache_dir() / "catalogues" / f"{digest(folder.url.encode())[:40]}.sqlite"
        library = folder.url
    return CatalogueDatabase(URL.create("sqlite", database=str(file)), library, file)


def database_url(text: str) -> "URL":
    """The URL of a database. Raises UsageError unless it is one of SQLite or PostgreSQL."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise UsageError("the URL of the database cannot be read") from error
    kind = url.get_backend_name()
    if kind in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise UsageError(f"a database is sqlite:/// or postgresql://, not {kind}://")
    return url


def connect(database: CatalogueDatabase) -> "Engine":
    """Connections to a database. Raises CatalogueError without a driver for it, or a folder."""
    from sqlalchemy import NullPool, create_engine, event

    sqlite = database.url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"timeout": WAIT} if sqlite else {"connect_timeout": REACH}
    try:
        if database.file:
            database.file.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(database.url, poolclass=NullPool, connect_args=options)
    except ModuleNotFoundError as error:
        raise CatalogueError(
            "a catalogue in PostgreSQL needs psycopg: pip install 'lorasmith[postgres]'"
        ) from error
    except OSError as error:
        raise CatalogueError(f"cannot write {database}: {error.strerror or error}") from error
    if sqlite:
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # sqlite3 would begin and commit on its own
    connection.execute("PRAGMA foreign_keys = ON")


def _on_begin(connection: "Connection") -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def writing(engine: "Engine") -> "Iterator[Connection]":
    """One transaction that no other writer of a catalogue shares."""
    with engine.execution_options(writes=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        yield connection


def require_schema(engine: "Engine") -> None:
    """Make the tables; those of another schema, older or newer, are dropped with all their rows."""
    with engine.connect() as connection:
        if _schema_of(connection) == CATALOGUE_SCHEMA:
            return
    with writing(engine) as connection:
        schema = _schema_of(connection)
        if schema == CATALOGUE_SCHEMA:  # another process was first
            return
        definition = tables()
        if schema is not None:  # tables without a number are not ours to drop
            cascade = " CASCADE" if engine.dialect.name == "postgresql" else ""
            for table in reversed(definition.metadata.sorted_tables):
                connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table.name}{cascade}")
        definition.metadata.create_all(connection, checkfirst=False)
        connection.execute(definition.schema.insert().values(number=CATALOGUE_SCHEMA))


def _schema_of(connection: "Connection") -> int | None:
    """The number of the tables that are there; None if there are none."""
    from sqlalchemy import inspect, select

    schema = tables().schema
    if not inspect(connection).has_table(schema.name):
        return None
    return connection.execute(select(schema.c.number)).scalar()


def is_damage(error: Exception) -> bool:
    """True if SQLite says that its file is no database of ours."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None) or 0
    return code & 0xFF in _DAMAGE


@dataclass(frozen=True)
class Tables:
    """The catalogue's tables.

    Attributes:
        schema: one row, the number of the schema.
        adapters: one row a record, also of an adapter that was given up (its id is null).
        descriptions: in order.
        parents: ids, in order.
        labels: licences, categories and tags, by kind.
        scores: by name; null where the value is not a number.
    """

    metadata: "MetaData"
    schema: "Table"
    adapters: "Table"
    descriptions: "Table"
    parents: "Table"
    labels: "Table"
    scores: "Table"


@cache
def tables() -> Tables:
    import sqlalchemy as sa

    metadata = sa.MetaData()
    # Bytes order text on PostgreSQL too, as SQLite and Python do.
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

    def table(name: str, *columns: Any) -> "Table":
        keys = [sa.Column(key, text, primary_key=True) for key in ("library", "path")]
        return sa.Table(name, metadata, *keys, *columns)

    def child(name: str, *columns: Any) -> "Table":
        parent = ["adapters.library", "adapters.path"]
        key = sa.ForeignKeyConstraint(["library", "path"], parent, ondelete="CASCADE")
        return table(name, *columns, key)

    def position() -> Any:
        return sa.Column("position", sa.Integer, primary_key=True)

    required = ("task", "recipe", "base_model", "variant", "rank")
    return Tables(
        metadata,
        schema=sa.Table(
            "catalogue_schema", metadata, sa.Column("number", sa.Integer, nullable=False)
        ),
        adapters=table(
            "adapters",
            sa.Column("stamp", text, nullable=False),
            *(sa.Column(name, text, nullable=name not in required) for name in _TEXTS),
            *(sa.Column(name, sa.Integer, nullable=name not in required) for name in _NUMBERS),
            sa.Index("adapters_by_id", "library", "id"),
            sa.Index("adapters_by_task", "library", "task"),
        ),
        descriptions=child("descriptions", position(), sa.Column("text", text, nullable=False)),
        parents=child("parents", position(), sa.Column("parent", text, nullable=False)),
        labels=child(
            "labels",
            sa.Column("kind", text, primary_key=True),
            sa.Column("name", text, primary_key=True),
        ),
        scores=child(
            "scores", sa.Column("name", text, primary_key=True), sa.Column("value", sa.Float)
        ),
    )


def record_rows(
    record: Record, library: str, path: str, stamp: str
) -> dict[str, list[dict[str, Any]]]:
    """The rows of one record, by table."""
    key = {"library": library, "path": path}
    texts = {name: next(iter(_clean([record.get(name)])), None) for name in _TEXTS}
    numbers = {name: record.get(name) for name in _NUMBERS}
    descriptions = _clean(record.get("descriptions") or [record.get("description")])
    parents = _clean(record.get("parents") or ())
    return {
        "adapters": [{**key, "stamp": stamp, **texts, **numbers}],
        "descriptions": [
            {**key, "position": position, "text": text}
            for position, text in enumerate(descriptions)
        ],
        "parents": [
            {**key, "position": position, "parent": parent}
            for position, parent in enumerate(parents)
        ],
        "labels": [
            {**key, "kind": kind, "name": name}
            for kind, field in _KINDS.items()
            for name in sorted(set(_clean(record.get(field) or ())))
        ],
        "scores": [
            {**key, "name": name, "value": score_of(record, name)}
            for name in _clean(record["scores"])
        ],
    }


def _clean(values: Iterable[Any]) -> list[str]:
    """As text that both databases take: no NUL, no half of a surrogate pair; None is left out."""
    texts = (str(value).replace("\0", "\ufffd") for value in values if value is not None)
    return [text.encode("utf-8", "replace").decode() for text in texts]
