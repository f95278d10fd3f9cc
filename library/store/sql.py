"""The catalogue in SQL: the content of the records, where it can be searched.

It is an index. Records are written without it, and every command first brings it up to date from
them: whatever happens to it, nothing is lost.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from library.errors import CatalogueError, OutputError
from library.store.folder import LibraryFolder
from library.store.records import (
    SCORE,
    Position,
    Record,
    RecordEntry,
    Selection,
    read_record,
    record_stamps,
)
from library.store.sql_database import (
    connect,
    database_for,
    is_damage,
    record_rows,
    require_schema,
    tables,
    writing,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Select

T = TypeVar("T")
warn = logging.getLogger("lorasmith.library").warning
Contents = dict[str, tuple[str, Record | OutputError]]  # stamp and content, by path


class SqlCatalogue:
    """The adapters of one library, in a database that may hold others.

    Args:
        folder: the library.
        url: of SQLite or PostgreSQL; by default a file of the library's own.
        note: is told when a damaged file is made again; by default the log is.
    Raises:
        UsageError: `url` is of neither.
        CatalogueError: from every method, where the database cannot be used.
    Attributes:
        broken: a sentence for each record that could not be read.
    """

    def __init__(
        self, folder: LibraryFolder, url: str | None = None, note: Callable[[str], None] = warn
    ) -> None:
        self.folder, self.broken, self._note = folder, (), note
        self.database = database_for(folder, url)
        self.engine = connect(self.database)

    def refresh(self) -> None:
        """Bring it up to date: records written, written again or removed since."""
        self._guarded(self._refresh)

    def entries(self, selection: Selection) -> list[RecordEntry]:
        """Filter and sort."""
        adapters = tables().adapters.c
        where = [adapters[field] == value for field, value in selection.exact.items()]
        if selection.pattern is not None:
            where.append(adapters.task.regexp_match(selection.pattern))
        if selection.after is not None:
            where.append(_behind(selection.after))
        return self._guarded(lambda: self._select(where, selection))

    def named(self, identity: str) -> list[RecordEntry]:
        """The adapters with this id or for this task."""
        adapters = tables().adapters.c
        where = [(adapters.id == identity) | (adapters.task == identity)]
        return self._guarded(lambda: self._select(where, Selection()))

    def _guarded(self, action: Callable[[], T]) -> T:
        """Do it; if the library's own file turns out damaged, once more with a new one."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return action()
        except SQLAlchemyError as error:
            if self.database.file is None or not is_damage(error):
                raise self._explained(error) from error
        try:
            self._start_again(self.database.file)
            return action()
        except SQLAlchemyError as error:
            raise self._explained(error) from error

    def _start_again(self, file: Path) -> None:
        self._note(f"{file} was damaged; it is only an index, made again from the records")
        try:
            for path in (file.with_name(f"{file.name}-journal"), file):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise CatalogueError(f"cannot replace {file}: {error.strerror or error}") from error
        self._refresh()

    def _explained(self, error: Exception) -> CatalogueError:
        lines = str(getattr(error, "orig", None) or error).strip().splitlines() or ["no reason"]
        return CatalogueError(f"the catalogue {self.database} cannot be used: {lines[0]}")

    def _refresh(self) -> None:
        require_schema(self.engine)
        stamps = record_stamps(self.folder)
        with self.engine.connect() as connection:
            indexed = self._indexed(connection)
        if stamps == indexed:
            self.broken = ()
            return
        # Reading can take long, so it is done before the lock is taken.
        contents = self._read({p: s for p, s in stamps.items() if indexed.get(p) != s})
        with writing(self.engine) as connection:
            self._update(connection, contents)

    def _update(self, connection: "Connection", contents: Contents) -> None:
        """Make rows and records the same. Others may have written since `contents` were read."""
        stamps, indexed = record_stamps(self.folder), self._indexed(connection)
        changed = {p: s for p, s in stamps.items() if indexed.get(p) != s}
        late = {p: s for p, s in changed.items() if contents.get(p, ("",))[0] != s}
        contents = {**contents, **self._read(late)}
        contents = {p: (s, contents[p][1]) for p, s in changed.items() if p in contents}
        self._delete(connection, [p for p, s in indexed.items() if stamps.get(p) != s])
        self._insert(connection, contents)
        errors = {p: str(c) for p, (_, c) in contents.items() if isinstance(c, OutputError)}
        self.broken = tuple(errors[path] for path in sorted(errors))

    def _read(self, stamps: Mapping[str, str]) -> Contents:
        """Records, or why one cannot be read; without those that were removed meanwhile."""

        def read(path: str) -> Record | OutputError | None:
            try:
                return read_record(self.folder, path)
            except FileNotFoundError:
                return None
            except OutputError as error:
                return error

        with ThreadPoolExecutor() as pool:
            contents = zip(stamps.items(), pool.map(read, stamps), strict=True)
            return {path: (stamp, it) for (path, stamp), it in contents if it is not None}

    def _indexed(self, connection: "Connection") -> dict[str, str]:
        """Path and stamp of every record that has its rows."""
        adapters = tables().adapters
        rows = adapters.select().where(adapters.c.library == self.database.library)
        columns = rows.with_only_columns(adapters.c.path, adapters.c.stamp)
        return {row.path: row.stamp for row in connection.execute(columns)}

    def _delete(self, connection: "Connection", paths: Sequence[str]) -> None:
        from sqlalchemy import bindparam

        adapters = tables().adapters
        row = (adapters.c.library == self.database.library) & (
            adapters.c.path == bindparam("removed")
        )
        if paths:
            connection.execute(adapters.delete().where(row), [{"removed": path} for path in paths])

    def _insert(self, connection: "Connection", contents: Contents) -> None:
        rows: dict[str, list[dict[str, Any]]] = {}
        for path, (stamp, content) in contents.items():
            if not isinstance(content, OutputError):
                for name, more in record_rows(content, self.database.library, path, stamp).items():
                    rows.setdefault(name, []).extend(more)
        for table in tables().metadata.sorted_tables:  # parents of a foreign key first
            if rows.get(table.name):
                connection.execute(table.insert(), rows[table.name])

    def _select(
        self, where: "Sequence[ColumnElement[Any]]", selection: Selection
    ) -> list[RecordEntry]:
        query = _entries(self.database.library).where(*where).order_by(*_order(selection))
        with self.engine.connect() as connection:
            return [RecordEntry(*row) for row in connection.execute(query.limit(selection.limit))]


def _entries(library: str) -> "Select[Any]":
    from sqlalchemy import and_, select

    adapters, scores = tables().adapters, tables().scores
    score = and_(
        scores.c.library == adapters.c.library,
        scores.c.path == adapters.c.path,
        scores.c.name == SCORE,
    )
    columns = [adapters.c[field] for field in RecordEntry.__annotations__ if field != "score"]
    joined = adapters.outerjoin(scores, score)
    query = select(*columns, scores.c.value).select_from(joined)
    return query.where(adapters.c.library == library, adapters.c.id.is_not(None))


def _order(selection: Selection) -> "list[ColumnElement[Any]]":
    adapters, score = tables().adapters.c, tables().scores.c.value
    first = {
        "task": [],
        "score": [score.desc().nulls_last()],
        "created": [adapters.created.desc().nulls_last()],
    }
    return [*first[selection.sort], *_by_task()]


def _by_task() -> "list[ColumnElement[Any]]":
    adapters = tables().adapters.c
    return [adapters.task, adapters.variant, adapters.id, adapters.path]


def _behind(position: Position) -> "ColumnElement[Any]":
    from sqlalchemy import tuple_

    return tuple_(*_by_task()) > tuple_(*position)
