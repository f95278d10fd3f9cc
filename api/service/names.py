"""Names of adapters with versions, in the store's database: an owner's own, moved as it says.

A version refers to its owner's row of the adapter, so that neither can be there without the other,
whoever publishes and deletes at once. The row of a deleted name stays for its last number.
"""

import json
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from api.errors import Conflict, NotFound, QuotaExceeded
from api.service.database import run, utc_now
from api.service.name_state import NAME, REFERENCE, Contest, Move, Name, Scores, Version
from api.service.store import ADAPTER_ID, UNKNOWN, Store
from api.service.suites import Suite
from library.errors import UsageError

MAX_NAMES = 100  # of an owner: suites count for no quota
UNKNOWN_NAME = "there is no such name"

_NAMED = "WHERE owner = :owner AND name = :name"


def require_name(name: str) -> str:
    """The name itself. Raises UsageError unless it is one, such as support-router."""
    if NAME.fullmatch(name) is None:
        raise UsageError(
            "a name is 1 to 63 lower-case letters, digits and hyphens, and begins with no hyphen"
        )
    return name


class NameStore:
    """The names of one store's adapters. Owners see their own names alone.

    Raises of its methods, where they say so: NotFound for names and versions that the owner does
    not have, and StorageFailed.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._database = store, store.database

    def prepare(self) -> None:
        """Bring the store's tables, names and adapters, up to date. Raises StorageFailed."""
        self._database.prepare()

    def publish(
        self, owner: str, name: str, adapter: str, suite: Suite | None = None
    ) -> tuple[Version, bool]:
        """Make an adapter of the owner's the newest version of a name; current stays.

        Args:
            adapter: its id; one that is a version already stays this version.
            suite: in place of the one that the name has; None leaves that.
        Returns:
            The version, and whether it is new.
        Raises:
            UsageError, NotFound, QuotaExceeded, StorageFailed.
        """
        require_name(name)
        self._store.get(owner, adapter)
        try:
            with self._database.transaction() as rows:
                return self._published(rows, owner, name, adapter, suite)
        except IntegrityError as error:  # it was deleted a moment ago
            raise NotFound(UNKNOWN) from error

    def all(self, owner: str) -> list[Name]:
        """The owner's names, in alphabetical order. Raises StorageFailed."""
        with self._database.snapshot() as rows:
            named = "SELECT DISTINCT name FROM versions WHERE owner = :owner ORDER BY name"
            found = run(rows, named, owner=owner).scalars().all()
            return [_read(rows, owner, name) for name in found]

    def get(self, owner: str, name: str) -> Name:
        """All that is known of a name. Raises NotFound, StorageFailed."""
        with self._database.snapshot() as rows:
            return _read(rows, owner, name)

    def resolve(self, owner: str, reference: str) -> str:
        """The adapter's id that NAME, NAME@current or NAME@v2 stands for; an id is itself.

        Raises NotFound, also for a name without a current version; StorageFailed.
        """
        if ADAPTER_ID.fullmatch(reference):
            return reference
        parts = REFERENCE.fullmatch(reference)
        if parts is None:
            raise NotFound(UNKNOWN)
        name = self.get(owner, parts[1])
        version = name.current if parts[2] is None else name.version(int(parts[2]))
        if version is None:
            raise NotFound(f"no version of {name.name} was promoted yet")
        return version.adapter

    def record(self, owner: str, contest: Contest, scores: Scores) -> Move:
        """What the gate says of a contest, in the history; moves the name if that is enough.

        Raises NotFound, StorageFailed; Conflict if the name has changed since the contest began.
        """
        with self._database.transaction() as rows:
            now = _read(rows, owner, contest.name).contest(contest.candidate.number)
            if now != contest:
                raise Conflict(f"{contest.name} changed while it was measured; promote it again")
            before = None if contest.current is None else contest.current.number
            action = "promoted" if scores.enough else "refused"
            move = Move(
                utc_now(), action, before, contest.candidate.number, scores, contest.suite.digest
            )
            _insert(rows, owner, contest.name, move)
        return move

    def rollback(self, owner: str, name: str) -> Move:
        """Move a name back to the version before. Raises NotFound, StorageFailed, Conflict."""
        with self._database.transaction() as rows:
            state = _read(rows, owner, name)
            target, current = state.before_current, state.current
            assert current is not None
            move = Move(utc_now(), "rolled-back", current.number, target.number)
            _insert(rows, owner, name, move)
        return move

    def delete(self, owner: str, name: str) -> None:
        """Delete a name: versions, suite and history; adapters stay. Raises NotFound."""
        with self._database.transaction() as rows:
            _read(rows, owner, name)
            changes = "DELETE FROM versions", "DELETE FROM moves", "UPDATE names SET suite = NULL"
            for change in changes:
                run(rows, f"{change} {_NAMED}", owner=owner, name=name)

    def _published(
        self, rows: Connection, owner: str, name: str, adapter: str, suite: Suite | None
    ) -> tuple[Version, bool]:
        """Raises IntegrityError if the adapter is not the owner's."""
        _require_room(rows, owner, name)
        key = {"owner": owner, "name": name}
        first = "INSERT INTO names (owner, name, last) VALUES (:owner, :name, 0)"
        run(rows, f"{first} ON CONFLICT DO NOTHING", **key)
        if suite is not None:
            run(rows, f"UPDATE names SET suite = :suite {_NAMED}", suite=suite.text, **key)
        same = f"SELECT number, adapter, created FROM versions {_NAMED} AND adapter = :adapter"
        found = run(rows, same, adapter=adapter, **key).first()
        if found:
            return Version(*found), False
        following = f"UPDATE names SET last = last + 1 {_NAMED} RETURNING last"
        version = Version(run(rows, following, **key).scalar_one(), adapter, utc_now())
        run(
            rows,
            "INSERT INTO versions (owner, name, number, adapter, created)"
            " VALUES (:owner, :name, :number, :adapter, :created)",
            **key,
            **vars(version),
        )
        return version, True


def _read(rows: Connection, owner: str, name: str) -> Name:
    """Raises NotFound."""
    if NAME.fullmatch(name) is None:  # no database encodes lone surrogates
        raise NotFound(UNKNOWN_NAME)
    key = {"owner": owner, "name": name}
    numbered = f"SELECT number, adapter, created FROM versions {_NAMED} ORDER BY number"
    versions = run(rows, numbered, **key).all()
    if not versions:
        raise NotFound(UNKNOWN_NAME)
    text = run(rows, f"SELECT suite FROM names {_NAMED}", **key).scalar_one()
    history = f"SELECT time, action, before, after, scores, suite FROM moves {_NAMED}"
    moves = run(rows, f"{history} ORDER BY number", **key).all()
    return Name(
        name,
        tuple(Version(*row) for row in versions),
        None if text is None else Suite(text),
        tuple(_move(*row) for row in moves),
    )


def _move(*row: Any) -> Move:
    time, action, before, after, scores, suite = row
    counted = None if scores is None else Scores(**json.loads(scores))
    return Move(time, action, before, after, counted, suite)


def _insert(rows: Connection, owner: str, name: str, move: Move) -> None:
    scores = None if move.scores is None else json.dumps(vars(move.scores))
    run(
        rows,
        "INSERT INTO moves (owner, name, time, action, before, after, scores, suite)"
        " VALUES (:owner, :name, :time, :action, :before, :after, :scores, :suite)",
        **{**vars(move), "owner": owner, "name": name, "scores": scores},
    )


def _require_room(rows: Connection, owner: str, name: str) -> None:
    """Raise QuotaExceeded if the owner has too many other names."""
    others = "SELECT count(DISTINCT name) FROM versions WHERE owner = :owner AND name != :name"
    if run(rows, others, owner=owner, name=name).scalar_one() >= MAX_NAMES:
        raise QuotaExceeded(f"a key has at most {MAX_NAMES} names; delete one to make room")
