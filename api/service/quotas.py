"""Limits for the bytes of stored adapters, checked in the transaction that adds some."""

import sqlite3

from api.errors import QuotaExceeded


def require_total(rows: sqlite3.Connection, identity: str, size: int, quota: int) -> None:
    """Raise QuotaExceeded unless an adapter of `size` bytes fits beside all others."""
    (used,) = rows.execute(
        "SELECT coalesce(sum(bytes), 0) FROM adapters WHERE id != ?", (identity,)
    ).fetchone()
    if used + size > quota:
        raise QuotaExceeded(
            f"the adapter takes {size:,} bytes and {used:,} of {quota:,} are in use; delete "
            "adapters to make room"
        )


def require_room(rows: sqlite3.Connection, owner: str, quota: int) -> None:
    """Raise QuotaExceeded if an owner's adapters, the one just added among them, exceed a quota."""
    (used,) = rows.execute(
        "SELECT sum(bytes) FROM adapters JOIN owners USING (id) WHERE key = ?", (owner,)
    ).fetchone()
    if used > quota:
        raise QuotaExceeded(
            f"with this adapter, those of the key would take {used:,} bytes of {quota:,}; delete "
            "adapters to make room"
        )
