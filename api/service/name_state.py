"""What a name is at one moment: its versions, its suite, its history, and what follows from them.

The current version is nowhere stored: it is where the history leads.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from api.errors import Conflict, NotFound
from api.service.suites import Suite

Action = Literal["promoted", "refused", "rolled-back"]
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
REFERENCE = re.compile(rf"({NAME.pattern})(?:@(?:v([1-9][0-9]{{0,8}})|current))?")


@dataclass(frozen=True)
class Version:
    """An adapter under a name.

    Attributes:
        number: from 1; never given twice, also after the name was deleted.
        adapter: its id.
        created: when, in UTC.
    """

    number: int
    adapter: str
    created: str

    def to_dict(self) -> dict[str, Any]:
        """As REST and `--json` show it."""
        return {"version": self.number, "adapter": self.adapter, "created": self.created}


@dataclass(frozen=True)
class Scores:
    """Rows of a suite that two versions pass.

    Attributes:
        before: of the current version; None if there was none.
        after: of the one that is to follow it.
        of: all rows.
        at_least: how many were asked for; None for no more than the current version passes.
    """

    before: int | None
    after: int
    of: int
    at_least: int | None = None

    @property
    def enough(self) -> bool:
        """Whether the gate lets the new version pass."""
        return self.after >= max(self.before or 0, self.at_least or 0)

    def to_dict(self) -> dict[str, Any]:
        """As REST and `--json` show it."""
        return {"from": self.before, "to": self.after, "of": self.of, "at_least": self.at_least}


@dataclass(frozen=True)
class Move:
    """An entry of a name's history.

    Attributes:
        time: when, in UTC.
        action: promoted and rolled-back change the current version, refused does not.
        before: the version that was current; None if none was.
        after: the version that it moved to, or was refused.
        scores: of the gate; None of a rollback.
        suite: digest of what the scores are of.
    """

    time: str
    action: Action
    before: int | None
    after: int
    scores: Scores | None = None
    suite: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As REST and `--json` show it."""
        return {
            "time": self.time,
            "action": self.action,
            "from": self.before,
            "to": self.after,
            "scores": None if self.scores is None else self.scores.to_dict(),
            "suite": self.suite,
        }


@dataclass(frozen=True)
class Contest:
    """What the gate compares.

    Attributes:
        candidate: the version that is to become the current one.
        current: None if there is none yet.
    """

    name: str
    candidate: Version
    current: Version | None
    suite: Suite


@dataclass(frozen=True)
class Name:
    """A name with all that is known of it.

    Attributes:
        versions: by number, ascending; one or more.
        history: oldest first.
    """

    name: str
    versions: tuple[Version, ...]
    suite: Suite | None
    history: tuple[Move, ...]

    @property
    def current(self) -> Version | None:
        """The version that the bare name stands for."""
        path = _path(self.history)
        return self.version(path[-1]) if path else None

    @property
    def before_current(self) -> Version:
        """The version that a rollback goes back to. Raises Conflict if there is none."""
        path = _path(self.history)
        if len(path) < 2:
            raise Conflict(f"there is no version of {self.name} to go back to")
        return self.version(path[-2])

    def version(self, number: int) -> Version:
        """The version with a number. Raises NotFound."""
        for version in self.versions:
            if version.number == number:
                return version
        raise NotFound(f"{self.name} has no version {number}")

    def contest(self, number: int | None = None) -> Contest:
        """What the gate compares for a version, or for the newest one.

        Raises NotFound; Conflict without a suite, or if it is the current one already.
        """
        candidate = self.versions[-1] if number is None else self.version(number)
        if self.suite is None:
            raise Conflict(f"{self.name} has no suite to promote by; publish a version with one")
        if candidate == self.current:
            raise Conflict(f"v{candidate.number} is the current version of {self.name} already")
        return Contest(self.name, candidate, self.current, self.suite)

    def summary(self) -> dict[str, Any]:
        """What lists show of it."""
        current = self.current
        return {
            "name": self.name,
            "current": None if current is None else current.number,
            "newest": self.versions[-1].number,
        }

    def to_dict(self) -> dict[str, Any]:
        """As REST and `--json` show it."""
        return {
            **self.summary(),
            "versions": [version.to_dict() for version in self.versions],
            "suite": None if self.suite is None else self.suite.to_dict(),
            "history": [move.to_dict() for move in self.history],
        }


def _path(history: Sequence[Move]) -> list[int]:
    """The versions that were promoted one after another and were not taken back."""
    path: list[int] = []
    for move in history:
        if move.action == "promoted":
            path.append(move.after)
        elif move.action == "rolled-back":
            path.pop()
    return path
