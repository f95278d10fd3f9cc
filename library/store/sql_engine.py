"""Where a catalogue lies, and its connections: SQLite in the library, or PostgreSQL by URL.

SQLite keeps its ordinary journal: write-ahead logging does not work on network file systems, where
libraries may lie. Who is about to write takes the lock at once and waits for others.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.canonical import digest
from library.errors import CatalogueError, UsageError
from library.files import cache_dir
from library.store.folder import LibraryFolder
from library.store.sql_types import URL, Connection, Engine

FILE = "catalogue.sqlite"
WAIT = 60  # seconds for another writer
REACH = 10  # seconds for a server to answer
_LOCK = int(digest(b"lorasmith catalogue")[:15], 16)
_DAMAGE = (1, 11, 26)  # SQLITE_ERROR (tables amiss), SQLITE_CORRUPT, SQLITE_NOTADB


@dataclass(frozen=True)
class Place:
    """Where a catalogue lies.

    Attributes:
        url: of the database.
        library: what the library's rows are known by in it.
        file: the SQLite file, where it is the library's own and may be made again.
    """

    url: URL
    library: str
    file: Path | None = None

    def __str__(self) -> str:
        return str(self.file) if self.file else self.url.render_as_string(hide_password=True)


def place_of(folder: LibraryFolder, url: str | None) -> Place:
    """`url`, or a file in the library, or for one that cannot be written a file in the cache.

    Raises UsageError as `parsed` does.
    """
    from sqlalchemy.engine import URL as Parts

    if url is not None:
        return Place(parsed(url), folder.url)
    if folder.local is not None and os.access(folder.local, os.W_OK):
        file, library = folder.local / FILE, "."  # the folder may be moved
    else:
        file = cache_dir() / "catalogues" / f"{digest(folder.url.encode())[:40]}.sqlite"
        library = folder.url
    return Place(Parts.create("sqlite", database=str(file)), library, file)


def parsed(text: str) -> URL:
    """The URL of a database. Raises UsageError for what is no URL of SQLite or PostgreSQL."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise UsageError("the catalogue's URL cannot be read") from error
    kind = url.get_backend_name()
    if kind in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise UsageError(f"a catalogue is sqlite:/// or postgresql://, not {kind}://")
    return url


def engine_of(place: Place) -> Engine:
    """Connections for a place. Raises CatalogueError without a driver for it, or a folder."""
    from sqlalchemy import NullPool, create_engine, event

    sqlite = place.url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"timeout": WAIT} if sqlite else {"connect_timeout": REACH}
    try:
        if place.file:
            place.file.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(place.url, poolclass=NullPool, connect_args=options)
    except ModuleNotFoundError as error:
        raise CatalogueError(
            "a catalogue in PostgreSQL needs psycopg: pip install 'lorasmith[postgres]'"
        ) from error
    except OSError as error:
        raise CatalogueError(f"cannot write {place}: {error.strerror or error}") from error
    if sqlite:
        event.listen(engine, "connect", _connected)
        event.listen(engine, "begin", _begun)
    return engine


def _connected(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # sqlite3 would begin and commit on its own
    connection.execute("PRAGMA foreign_keys = ON")


def _begun(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that no other writer of a catalogue shares."""
    with engine.execution_options(writes=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        yield connection


def migrate(engine: Engine, place: Place) -> None:
    """Bring the tables up to this version. Raises CatalogueError if they are of a newer one."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    migrations = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", migrations.replace("%", "%%"))
    with engine.connect() as connection:
        if _is_current(connection, config, place):
            return
    with writing(engine) as connection:
        if not _is_current(connection, config, place):  # nobody else was first
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _is_current(connection: Connection, config: Any, place: Place) -> bool:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    there = set(MigrationContext.configure(connection).get_current_heads())
    scripts = ScriptDirectory.from_config(config)
    unknown = there - {script.revision for script in scripts.walk_revisions()}
    if unknown:
        raise CatalogueError(
            f"the catalogue {place} has version {min(unknown)}, "
            f"but this lorasmith knows versions up to {scripts.get_current_head()}"
        )
    return there == set(scripts.get_heads())


def is_damage(error: Exception) -> bool:
    """Whether SQLite says that its file is no database of ours."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None) or 0
    return code & 0xFF in _DAMAGE
