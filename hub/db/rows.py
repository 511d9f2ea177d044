"""Table rows as frozen values, and the one statement that SQLite and PostgreSQL spell alike but elsewhere."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


def columns(table: Table, kind: type[msgspec.Struct]) -> list[Column[Any]]:
    """Return the columns that ``kind`` has fields for, in the order of its fields: ``kind(*row)`` reads a row."""
    return [table.c[name] for name in kind.__struct_fields__]


def inserting(connection: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT that knows ON CONFLICT, in the dialect of this connection."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def storable(text: str) -> bool:
    """Say whether a database can hold this text at all: what it cannot hold, it does not have to be asked for.

    PostgreSQL refuses NUL, both refuse halves of surrogate pairs.
    """
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
