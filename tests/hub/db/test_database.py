"""Whole transactions in one go: the same promises as any other transaction."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.database import Database
from hub.db.migrate import upgrade
from hub.db.tables import settings
from protocol.errors import Conflict, Internal


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/hub.sqlite"
    else:
        make: Callable[[str], str] = request.getfixturevalue("new_postgres")
        url = make(f"database_{abs(hash(str(tmp_path)))}")
    await upgrade(url)
    made = Database(url)
    yield made
    await made.close()


async def names(connection: AsyncConnection) -> list[str]:
    return sorted(await connection.scalars(select(settings.c.name)))


def adding(name: str) -> Callable[[AsyncConnection], object]:
    async def add(connection: AsyncConnection) -> int:
        await connection.execute(insert(settings).values(name=name, value=b""))
        return len(await names(connection))

    return add


async def test_what_it_returns_is_committed_and_what_raises_is_not(database: Database) -> None:
    assert await database.run_write(adding("a")) == 1  # type: ignore[arg-type]  # it is a coroutine function

    async def fail(connection: AsyncConnection) -> None:
        await connection.execute(insert(settings).values(name="b", value=b""))
        raise Conflict("changed my mind")

    with pytest.raises(Conflict, match="changed my mind"):
        await database.run_write(fail)
    assert await database.run_read(names) == ["a"]


async def test_both_kinds_of_writing_take_turns(database: Database) -> None:
    async def other(name: str) -> None:
        async with database.write() as connection:
            await connection.execute(insert(settings).values(name=name, value=b""))

    work = [database.run_write(adding(f"a{at}")) for at in range(20)]  # type: ignore[arg-type]  # they are coroutine functions
    await asyncio.gather(*work, *(other(f"b{at}") for at in range(20)))
    assert len(await database.run_read(names)) == 40


async def test_a_transaction_that_waits_for_something_else_is_refused_and_undone(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/hub.sqlite"
    await upgrade(url)
    database = Database(url)

    async def wait(connection: AsyncConnection) -> None:
        await connection.execute(insert(settings).values(name="a", value=b""))
        await asyncio.sleep(0)

    with pytest.raises(Internal, match="waited for something else"):
        await database.run_write(wait)
    assert await database.run_read(names) == []
    await database.close()
