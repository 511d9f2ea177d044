"""Accounts and tokens."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.rows import columns, storable
from hub.db.tables import tokens, users


class UserRow(msgspec.Struct, frozen=True):
    """An account. ``repr`` leaves the password's hash out."""

    id: int
    username: str
    email: str
    password: str
    admin: bool
    disabled_at: int | None
    created_at: int

    def __repr__(self) -> str:
        return f"UserRow({self.username})"


class TokenRow(msgspec.Struct, frozen=True):
    """A token, by its hash."""

    id: int
    hash: bytes
    user_id: int
    label: str
    created_at: int
    expires_at: int


class Holder(msgspec.Struct, frozen=True):
    """Whose token that is, and until when."""

    id: int
    username: str
    admin: bool
    expires_at: int


_BY_NAME: Final = select(*columns(users, UserRow)).where(users.c.username == bindparam("name"))
_BY_ID: Final = select(*columns(users, UserRow)).where(users.c.id == bindparam("id"))
_HOLDER: Final = (
    select(users.c.id, users.c.username, users.c.admin, tokens.c.expires_at)
    .join(tokens, tokens.c.user_id == users.c.id)
    .where(
        tokens.c.hash == bindparam("digest"),
        tokens.c.revoked_at.is_(None),
        tokens.c.expires_at > bindparam("now"),
        users.c.disabled_at.is_(None),
    )
)


async def add(connection: AsyncConnection, user: UserRow) -> None:
    """Add an account; raises IntegrityError where name or address are taken."""
    await connection.execute(insert(users).values(msgspec.structs.asdict(user)))


async def by_email(connection: AsyncConnection, email: str) -> UserRow | None:
    """Return the account with this address, lower case."""
    if not storable(email):
        return None
    row = (await connection.execute(select(*columns(users, UserRow)).where(users.c.email == email))).first()
    return None if row is None else UserRow(*row)


async def by_name(connection: AsyncConnection, username: str) -> UserRow | None:
    """Return the account with this name."""
    if not storable(username):
        return None
    row = (await connection.execute(_BY_NAME, {"name": username})).first()
    return None if row is None else UserRow(*row)


async def by_id(connection: AsyncConnection, user: int) -> UserRow | None:
    """Return the account with this id."""
    row = (await connection.execute(_BY_ID, {"id": user})).first()
    return None if row is None else UserRow(*row)


async def disable(connection: AsyncConnection, user: int, at: int) -> None:
    """End an account and its tokens."""
    await connection.execute(update(users).where(users.c.id == user).values(disabled_at=at))
    await connection.execute(
        update(tokens).where(tokens.c.user_id == user, tokens.c.revoked_at.is_(None)).values(revoked_at=at)
    )


async def enable(connection: AsyncConnection, user: int) -> None:
    """Let somebody sign in again; the tokens they had stay ended."""
    await connection.execute(update(users).where(users.c.id == user).values(disabled_at=None))


async def add_token(connection: AsyncConnection, token: TokenRow) -> None:
    """Add a token."""
    await connection.execute(insert(tokens).values(msgspec.structs.asdict(token)))


async def revoke_token(connection: AsyncConnection, digest: bytes, at: int) -> None:
    """End one token."""
    await connection.execute(update(tokens).where(tokens.c.hash == digest).values(revoked_at=at))


async def holder(connection: AsyncConnection, digest: bytes, now: int) -> Holder | None:
    """Return who holds the token with this hash, if it is good."""
    row = (await connection.execute(_HOLDER, {"digest": digest, "now": now})).first()
    return None if row is None else Holder(*row)
