"""Names of SQLAlchemy's types for annotations, which cost no import and need no SQLAlchemy."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import URL, ColumnElement, Connection, Engine, MetaData, Select, Table

    Expression = ColumnElement[Any]
    Query = Select[Any]
else:
    URL = Connection = Engine = Expression = MetaData = Query = Table = Any

__all__ = ["URL", "Connection", "Engine", "Expression", "MetaData", "Query", "Table"]
