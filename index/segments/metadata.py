"""What an index knows of an adapter beside its vectors, and which adapters a search wants."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from index.encoders.descriptions import InvalidDescription, normalise
from library.canonical import digest
from library.errors import UnknownName


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One adapter.

    Attributes:
        base: id of its base model.
        layout: digest of its layout.
        licenses: the licence class of its task, then the names of licences.
        tags: the categories of its task.
        texts: digests of what its vectors are made of: its descriptions, the main one first; or
            its weights.
    """

    id: str
    task: str
    base: str
    layout: str
    recipe: str
    licenses: tuple[str, ...]
    tags: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def rows(self) -> int:
        """How many vectors it has: of its weights; or its main description's and, if there are
        more, their mean's.
        """
        return min(len(self.texts), 2)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "IndexEntry":
        """Raises KeyError or TypeError for anything that `to_dict` did not make."""
        known: dict[str, Any] = {name: str(data[name]) for name in _FIELDS[:5]}
        known |= {name: tuple(data[name]) for name in _FIELDS[5:]}
        return cls(**known)


_FIELDS = tuple(field.name for field in fields(IndexEntry))


@dataclass(frozen=True)
class Filter:
    """Which adapters count: all for which everything that is given holds."""

    base: str | None = None
    layout: str | None = None
    recipe: str | None = None
    license: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def conditions(self) -> tuple[tuple[str, str], ...]:
        """Pairs of an entry's field and the value that it must have, or hold."""
        given = (
            ("base", self.base),
            ("layout", self.layout),
            ("recipe", self.recipe),
            ("licenses", self.license),
            *(("tags", tag) for tag in self.tags),
        )
        return tuple((field, value) for field, value in given if value is not None)

    def matches(self, entry: IndexEntry) -> bool:
        return all(value in values_of(entry, field) for field, value in self.conditions)


EVERYTHING = Filter()


def values_of(entry: IndexEntry, field: str) -> tuple[str, ...]:
    """The values of a field that has one, or several."""
    value = getattr(entry, field)
    return (value,) if isinstance(value, str) else value


def require_known_values(wanted: Filter, entries: Iterable[IndexEntry]) -> None:
    """Raise UnknownName for a condition that no adapter at all meets; the message says which do."""
    every = list(entries)
    for field, value in wanted.conditions:
        known = {v for entry in every for v in values_of(entry, field) if v}
        if value not in known:
            name = {"licenses": "license", "tags": "tag"}.get(field, field)
            listed = ", ".join(sorted(known)[:8]) or "none"
            more = ", …" if len(known) > 8 else ""
            raise UnknownName(
                f"the library holds no adapter with {name} '{value}'; known: {listed}{more}"
            )


def entries_of(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[IndexEntry, list[str]]]:
    """Every adapter that has a description, by id, with its descriptions.

    Where two records name one adapter the first says what it is, and both what it is for.
    """
    found: dict[str, tuple[IndexEntry, list[str]]] = {}
    for record in records:
        before = found.get(record["id"])
        texts = _texts(record, before[1] if before else [])
        if texts:
            digests = [digest(text.encode()) for text in texts]
            found[record["id"]] = (_entry(record, before[0] if before else None, digests), texts)
    return found


def entries_of_weights(records: Sequence[Mapping[str, Any]]) -> list[IndexEntry]:
    """Every adapter, described or not; of two records of one adapter the first counts."""
    first = {record["id"]: record for record in reversed(records)}
    return [_entry(record, None, [str(record["sha256"])]) for record in first.values()]


def _entry(
    record: Mapping[str, Any], before: IndexEntry | None, digests: Sequence[str]
) -> IndexEntry:
    known = before.to_dict() if before else {
        "id": record["id"],
        "task": record["task"],
        "base": record["base_model"],
        "layout": record.get("layout_digest") or "",
        "recipe": record["recipe"],
        "licenses": [record.get("license_class") or "", *(record.get("licenses") or ())],
        "tags": record.get("categories") or (),
    }  # fmt: skip
    return IndexEntry.from_dict({**known, "texts": digests})


def _texts(record: Mapping[str, Any], before: Sequence[str]) -> list[str]:
    """The record's descriptions, each once, after those that are known; without unusable ones."""
    found = list(before)
    for given in record.get("descriptions") or [record.get("description")]:
        try:
            text = normalise(given)
        except InvalidDescription:
            continue
        if text not in found:
            found.append(text)
    return found
