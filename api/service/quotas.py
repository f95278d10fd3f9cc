"""Limits for the bytes of stored adapters, checked in the transaction that adds some."""

from sqlalchemy import Connection

from api.errors import QuotaExceeded
from api.service.database import run


def require_total(rows: Connection, identity: str, size: int, quota: int) -> None:
    """Raise QuotaExceeded unless an adapter of `size` bytes fits beside all others."""
    others = "SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM adapters WHERE id != :id"
    used = run(rows, others, id=identity).scalar_one()
    if used + size > quota:
        raise QuotaExceeded(
            f"the adapter takes {size:,} bytes and {used:,} of {quota:,} are in use; delete "
            "adapters to make room"
        )


def require_room(rows: Connection, owner: str, quota: int) -> None:
    """Raise QuotaExceeded if an owner's adapters, the one just added among them, exceed a quota."""
    own = "SELECT CAST(sum(bytes) AS BIGINT) FROM adapters JOIN owners USING (id) WHERE key = :key"
    used = run(rows, own, key=owner).scalar_one()
    if used > quota:
        raise QuotaExceeded(
            f"with this adapter, those of the key would take {used:,} bytes of {quota:,}; delete "
            "adapters to make room"
        )
