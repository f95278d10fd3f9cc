"""The catalogue in SQL: what the records say, where it can be searched.

It is an index. Records are written without it, and every command first brings it up to date from
them: whatever happens to it, nothing is lost.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from library.errors import CatalogueError, OutputError
from library.store.folder import LibraryFolder
from library.store.records import SCORE, Record, RecordEntry, Selection, read_record, record_stamps
from library.store.sql_engine import engine_of, is_damage, migrate, place_of, writing
from library.store.sql_schema import record_rows, tables
from library.store.sql_types import Connection, Expression, Query

T = TypeVar("T")
warn = logging.getLogger("lorasmith.library").warning
Found = dict[str, tuple[str, Record | OutputError]]  # stamp and content, by path


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
        self.place = place_of(folder, url)
        self._engine = engine_of(self.place)

    def refresh(self) -> None:
        """Bring it up to date: what was written, written again or removed since."""
        self._guarded(self._refresh)

    def entries(self, wanted: Selection) -> list[RecordEntry]:
        """The adapters that are wanted, in the order that is."""
        adapters = tables().adapters.c
        where = [adapters[field] == value for field, value in wanted.exact.items()]
        if wanted.pattern is not None:
            where.append(adapters.task.regexp_match(wanted.pattern))
        return self._guarded(lambda: self._select(where, wanted))

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
            if self.place.file is None or not is_damage(error):
                raise self._explained(error) from error
        try:
            self._start_again()
            return action()
        except SQLAlchemyError as error:
            raise self._explained(error) from error

    def _start_again(self) -> None:
        file = self.place.file
        assert file is not None
        self._note(f"{file} was damaged; it is only an index, made again from the records")
        try:
            for path in (file.with_name(f"{file.name}-journal"), file):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise CatalogueError(f"cannot replace {file}: {error.strerror or error}") from error
        self._refresh()

    def _explained(self, error: Exception) -> CatalogueError:
        lines = str(getattr(error, "orig", None) or error).strip().splitlines() or ["no reason"]
        return CatalogueError(f"the catalogue {self.place} cannot be used: {lines[0]}")

    def _refresh(self) -> None:
        migrate(self._engine, self.place)
        stamps = record_stamps(self.folder)
        with self._engine.connect() as connection:
            known = self._known(connection)
        if stamps == known:
            self.broken = ()
            return
        found = self._read({p: s for p, s in stamps.items() if known.get(p) != s})
        with writing(self._engine) as connection:
            self._update(connection, found)

    def _update(self, connection: Connection, found: Found) -> None:
        """Make rows and records the same. Others may have written since `found` was read."""
        stamps, known = record_stamps(self.folder), self._known(connection)
        changed = {p: s for p, s in stamps.items() if known.get(p) != s}
        late = {p: s for p, s in changed.items() if found.get(p, ("",))[0] != s}
        found = {**found, **self._read(late)}
        self._delete(connection, [p for p, s in known.items() if stamps.get(p) != s])
        contents = {p: (s, found[p][1]) for p, s in changed.items() if p in found}
        self._insert(connection, contents)
        wrong = {p: str(c) for p, (_, c) in contents.items() if isinstance(c, OutputError)}
        self.broken = tuple(wrong[path] for path in sorted(wrong))

    def _read(self, stamps: Mapping[str, str]) -> Found:
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
            return {path: (stamp, made) for (path, stamp), made in contents if made is not None}

    def _known(self, connection: Connection) -> dict[str, str]:
        from sqlalchemy import select

        adapters = tables().adapters
        rows = select(adapters.c.path, adapters.c.stamp)
        ours = rows.where(adapters.c.library == self.place.library)
        return {row.path: row.stamp for row in connection.execute(ours)}

    def _delete(self, connection: Connection, paths: Iterable[str]) -> None:
        from sqlalchemy import bindparam, delete

        adapters = tables().adapters
        ours = adapters.c.library == self.place.library
        gone = delete(adapters).where(ours, adapters.c.path == bindparam("gone"))
        if parameters := [{"gone": path} for path in paths]:
            connection.execute(gone, parameters)

    def _insert(self, connection: Connection, found: Found) -> None:
        from sqlalchemy import insert

        rows: dict[str, list[dict[str, Any]]] = {}
        for path, (stamp, content) in found.items():
            if not isinstance(content, OutputError):
                for name, more in record_rows(content, self.place.library, path, stamp).items():
                    rows.setdefault(name, []).extend(more)
        for table in tables().metadata.sorted_tables:
            if rows.get(table.name):
                connection.execute(insert(table), rows[table.name])

    def _select(self, where: Sequence[Expression], wanted: Selection) -> list[RecordEntry]:
        query = _entries(self.place.library).where(*where).order_by(*_order(wanted))
        with self._engine.connect() as connection:
            return [RecordEntry(*row) for row in connection.execute(query.limit(wanted.limit))]


def _entries(library: str) -> Query:
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


def _order(wanted: Selection) -> list[Expression]:
    adapters, score = tables().adapters.c, tables().scores.c.value
    by_task = [adapters.task, adapters.variant, adapters.id, adapters.path]
    first = {
        "task": [],
        "score": [score.desc().nulls_last()],
        "created": [adapters.created.desc().nulls_last()],
    }
    return [*first[wanted.sort], *by_task]
