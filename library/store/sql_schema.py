"""The tables of the catalogue, and the rows that a record becomes.

A row is known by the library and the path of its record, as one database may hold many libraries.
`library/store/migrations` creates the same tables; a test holds the two to each other.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from library.store.records import Record, score_of
from library.store.sql_types import MetaData, Table

Rows = dict[str, list[dict[str, Any]]]
_PLAIN = (
    "id", "sha256", "task", "recipe", "base_model", "base_sha256", "layout_digest", "seed",
    "license_class", "created",
)  # fmt: skip
_KINDS = {"license": "licenses", "category": "categories", "tag": "tags"}
_NUMBERS = ("variant", "rank", "shard", "steps")


@dataclass(frozen=True)
class Tables:
    """What an adapter has one of, and what it has several of.

    Attributes:
        adapters: one row a record, also of an adapter that was given up (its id is null).
        descriptions: in order.
        parents: ids, in order.
        labels: licences, categories and tags, by kind.
        scores: by name; null where the value is not a number.
    """

    metadata: MetaData
    adapters: Table
    descriptions: Table
    parents: Table
    labels: Table
    scores: Table


@cache
def tables() -> Tables:
    import sqlalchemy as sa

    metadata = sa.MetaData()
    # Bytes order text on PostgreSQL too, as SQLite and Python do.
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

    def table(name: str, *columns: Any) -> Table:
        keys = [sa.Column(key, text, primary_key=True) for key in ("library", "path")]
        return sa.Table(name, metadata, *keys, *columns)

    def child(name: str, *columns: Any) -> Table:
        of = ["adapters.library", "adapters.path"]
        whole = sa.ForeignKeyConstraint(["library", "path"], of, ondelete="CASCADE")
        return table(name, *columns, whole)

    def position() -> Any:
        return sa.Column("position", sa.Integer, primary_key=True)

    needed = ("task", "recipe", "base_model", "variant", "rank")
    return Tables(
        metadata,
        adapters=table(
            "adapters",
            sa.Column("stamp", text, nullable=False),
            *(sa.Column(name, text, nullable=name not in needed) for name in _PLAIN),
            *(sa.Column(name, sa.Integer, nullable=name not in needed) for name in _NUMBERS),
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


def record_rows(record: Record, library: str, path: str, stamp: str) -> Rows:
    """The rows of one record, by table."""
    key = {"library": library, "path": path}
    plain = {name: next(iter(_texts([record.get(name)])), None) for name in _PLAIN}
    numbers = {name: record.get(name) for name in _NUMBERS}
    descriptions = record.get("descriptions") or [record.get("description")]
    return {
        "adapters": [{**key, "stamp": stamp, **plain, **numbers}],
        "descriptions": [
            {**key, "position": place, "text": text}
            for place, text in enumerate(_texts(descriptions))
        ],
        "parents": [
            {**key, "position": place, "parent": parent}
            for place, parent in enumerate(_texts(record.get("parents") or ()))
        ],
        "labels": [
            {**key, "kind": kind, "name": name}
            for kind, field in _KINDS.items()
            for name in sorted(set(_texts(record.get(field) or ())))
        ],
        "scores": [
            {**key, "name": name, "value": score_of(record, name)}
            for name in _texts(record["scores"])
        ],
    }


def _texts(values: Iterable[Any]) -> list[str]:
    """As text that both databases take: no NUL, no half of a surrogate pair; None is left out."""
    texts = (str(value).replace("\0", "\ufffd") for value in values if value is not None)
    return [text.encode("utf-8", "replace").decode() for text in texts]
