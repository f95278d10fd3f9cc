"""Records: one JSON file an adapter, which hold all that is known about it and are the truth.

Here they are written, read, filtered and sorted; a catalogue in SQL answers the same, only faster.
"""

import datetime
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from library.errors import OutputError
from library.store.folder import RECORDS, LibraryFolder

Record = dict[str, Any]
Sort = Literal["task", "score", "created"]
Position = tuple[str, int, str, str]  # task, variant, id and path: the order by task
SCORE = "tune_accuracy"  # what `library list` shows and sorts by
_TEXT = (str, type(None))
_REQUIRED: dict[str, tuple[type, ...]] = {
    "id": _TEXT,
    "sha256": _TEXT,
    "task": (str,),
    "variant": (int,),
    "recipe": (str,),
    "base_model": (str,),
    "rank": (int,),
    "scores": (dict,),
}


@dataclass(frozen=True)
class RecordEntry:
    """An adapter in one line; `path` is where its record lies in the library."""

    path: str
    id: str
    sha256: str
    task: str
    recipe: str
    base_model: str
    rank: int
    variant: int
    score: float | None

    @property
    def position(self) -> Position:
        """Where it stands in the order by task."""
        return self.task, self.variant, self.id, self.path

    def to_dict(self) -> dict[str, Any]:
        """As `library list --json` prints it."""
        return {k: v for k, v in asdict(self).items() if k not in ("path", "variant")}


@dataclass(frozen=True)
class Selection:
    """A filter of adapters, and their order.

    Attributes:
        task: its name, or a pattern with `*` and `?`.
        sort: by task; or the best score first; or the newest first.
        limit: how many at most.
        after: only what stands behind this position; for the order by task.
    """

    task: str | None = None
    recipe: str | None = None
    license_class: str | None = None
    base: str | None = None
    rank: int | None = None
    sort: Sort = "task"
    limit: int | None = None
    after: Position | None = None

    @property
    def exact(self) -> dict[str, Any]:
        """Values that fields of a record have to be equal to."""
        fields = {
            "recipe": self.recipe,
            "license_class": self.license_class,
            "base_model": self.base,
            "rank": self.rank,
            "task": None if self.pattern else self.task,
        }
        return {field: value for field, value in fields.items() if value is not None}

    @property
    def pattern(self) -> str | None:
        """A regular expression for the task, if it is given as a pattern."""
        if self.task is None or not set(self.task) & {"*", "?"}:
            return None
        return "^" + re.escape(self.task).replace(r"\*", ".*").replace(r"\?", ".") + "$"


def new_record(
    *, task: str, description: str, recipe: str, base: Mapping[str, Any], **fields: Any
) -> Record:
    """A record of an adapter; fields that are not given get defaults.

    Args:
        base: {"id", "sha256"} of the base model.
        fields: any other member; `layout_digest` and `rank` are always among them.
    """
    defaults: Record = {
        "id": None,
        "sha256": None,
        "variant": 0,
        "categories": [],
        "licenses": [],
        "license_class": "",
        "seed": 0,
        "parents": [],
        "shard": None,
        "steps": 0,
        "best_step": 0,
        "restarts": 0,
        "scores": {},
    }
    named = {"task": task, "description": description, "recipe": recipe}
    return {**defaults, **named, "base_model": base["id"], "base_sha256": base["sha256"], **fields}


def write_record(folder: LibraryFolder, path: str, record: Record) -> Record:
    """Write a record with the time; from now on its adapter counts. Returns what was written."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    folder.write_json(path, written := {**record, "created": now})
    return written


def record_stamps(folder: LibraryFolder) -> dict[str, str]:
    """The path of every record, with a stamp that changes when it is written again."""
    stamps = {}
    for shard in folder.names(RECORDS):
        for name, stamp in folder.stamps(f"{RECORDS}/{shard}").items():
            if name.endswith(".json") and name[0] != ".":
                stamps[f"{RECORDS}/{shard}/{name}"] = stamp
    return stamps


def read_record(folder: LibraryFolder, path: str) -> Record:
    """One record. Raises OutputError if it is damaged, FileNotFoundError if it is not there."""
    record = folder.read_json(path)
    for field, types in _REQUIRED.items():
        if not isinstance(record, dict) or not isinstance(record.get(field, ...), types):
            raise OutputError(
                f"{folder.location}/{path} is damaged: no record, or one without {field}"
            )
    return record


def score_of(record: Record, name: str = SCORE) -> float | None:
    """A score that is a number, or None."""
    score = record["scores"].get(name)
    return float(score) if isinstance(score, int | float) and not math.isnan(score) else None


def entry_of(path: str, record: Record) -> RecordEntry:
    fields = {field: record[field] for field in RecordEntry.__annotations__ if field in record}
    return RecordEntry(**fields | {"path": path, "score": score_of(record)})


def select_records(
    records: Iterable[tuple[str, Record]], selection: Selection
) -> list[RecordEntry]:
    """Filter and sort."""
    rows = [
        (path, record)
        for path, record in records
        if record["id"] is not None
        and all(record.get(field) == value for field, value in selection.exact.items())
        and (selection.pattern is None or re.search(selection.pattern, record["task"]))
        and (selection.after is None or _position(path, record) > selection.after)
    ]
    rows.sort(key=lambda row: _position(*row))
    if selection.sort == "created":
        rows.sort(key=lambda row: row[1].get("created") or "", reverse=True)
    elif selection.sort == "score":
        rows.sort(key=lambda row: _merit(score_of(row[1])), reverse=True)
    return [entry_of(path, record) for path, record in rows[: selection.limit]]


def _position(path: str, record: Record) -> Position:
    return record["task"], record["variant"], record["id"], path


def _merit(score: float | None) -> float:
    return -math.inf if score is None else score
