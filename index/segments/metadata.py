"""An adapter's entry in an index, beside its vectors, and filters over entries."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
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
        texts: digests of what its vectors are of: its descriptions, the main one first; or its
            weights.
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
        """Number of its vectors: one of its weights; or its main description's and, if there are
        more, their mean's.
        """
        return min(len(self.texts), 2)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "IndexEntry":
        """Raises KeyError or TypeError for anything that `to_dict` did not make."""
        values: list[Any] = [str(data[name]) for name in _FIELDS[:5]]
        return cls(*values, *(tuple(data[name]) for name in _FIELDS[5:]))


_FIELDS = tuple(field.name for field in fields(IndexEntry))


@dataclass(frozen=True)
class Filter:
    """Conditions on an entry, all of which must hold; None: no condition."""

    base: str | None = None
    layout: str | None = None
    recipe: str | None = None
    license: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def conditions(self) -> tuple[tuple[str, str], ...]:
        """Pairs of an entry's field and the value that it must have or contain."""
        pairs = (
            ("base", self.base),
            ("layout", self.layout),
            ("recipe", self.recipe),
            ("licenses", self.license),
            *(("tags", tag) for tag in self.tags),
        )
        return tuple((field, value) for field, value in pairs if value is not None)

    def matches(self, entry: IndexEntry) -> bool:
        return all(value in values_of(entry, field) for field, value in self.conditions)


EVERYTHING = Filter()


def values_of(entry: IndexEntry, field: str) -> tuple[str, ...]:
    """The values of a field that has one, or several."""
    value = getattr(entry, field)
    return (value,) if isinstance(value, str) else value


def require_known_values(filter: Filter, entries: Iterable[IndexEntry]) -> None:
    """Raise UnknownName for a value that no adapter has; the message lists those that some have."""
    entries = list(entries)
    for field, value in filter.conditions:
        values = {v for entry in entries for v in values_of(entry, field) if v}
        if value not in values:
            name = {"licenses": "license", "tags": "tag"}.get(field, field)
            listed = ", ".join(sorted(values)[:8]) or "none"
            more = ", …" if len(values) > 8 else ""
            raise UnknownName(
                f"the library holds no adapter with {name} '{value}'; known: {listed}{more}"
            )


def entries_of(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[IndexEntry, list[str]]]:
    """Every adapter that has a description, by id, with its descriptions.

    Of two records of one adapter the first that has a description gives the metadata, and both
    give descriptions.
    """
    described: dict[str, tuple[IndexEntry, list[str]]] = {}
    for record in records:
        first, texts = described.get(record["id"], (None, []))
        if texts := _texts(record, texts):
            digests = tuple(digest(text.encode()) for text in texts)
            entry = replace(first, texts=digests) if first else _entry(record, digests)
            described[record["id"]] = entry, texts
    return described


def entries_of_weights(records: Sequence[Mapping[str, Any]]) -> list[IndexEntry]:
    """Every adapter, described or not; of two records of one adapter the first counts."""
    first = {record["id"]: record for record in reversed(records)}
    return [_entry(record, [str(record["sha256"])]) for record in first.values()]


def _entry(record: Mapping[str, Any], texts: Sequence[str]) -> IndexEntry:
    return IndexEntry.from_dict({
        "id": record["id"],
        "task": record["task"],
        "base": record["base_model"],
        "layout": record.get("layout_digest") or "",
        "recipe": record["recipe"],
        "licenses": [record.get("license_class") or "", *(record.get("licenses") or ())],
        "tags": record.get("categories") or (),
        "texts": texts,
    })  # fmt: skip


def _texts(record: Mapping[str, Any], earlier: Sequence[str]) -> list[str]:
    """Earlier descriptions and the record's, each once, except those that cannot be embedded."""
    texts = list(earlier)
    for description in record.get("descriptions") or [record.get("description")]:
        with suppress(InvalidDescription):
            texts.append(normalise(description))
    return list(dict.fromkeys(texts))
