"""Migrations bring any database to what ``tables`` says, on both servers."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from hub.db.database import Database
from hub.db.migrate import current, newest, upgrade
from hub.db.tables import metadata
from protocol.errors import BadSetting


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/hub.sqlite"
    make: Callable[[str], str] = request.getfixturevalue("new_postgres")
    return make(f"migrate_{abs(hash(str(tmp_path)))}")


def _differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))


async def test_the_migrations_give_exactly_the_tables_that_the_code_declares(url: str) -> None:
    assert await current(url) is None
    await upgrade(url)
    assert await current(url) == newest()
    database = Database(url)
    async with database.read() as connection:
        assert await connection.run_sync(_differences) == []
    await database.close()


async def test_upgrading_again_or_from_several_workers_at_once_is_harmless(url: str) -> None:
    async with asyncio.TaskGroup() as workers:  # where one fails, none of the others goes on into the next test
        for _ in range(3):
            workers.create_task(upgrade(url))
    await upgrade(url)
    assert await current(url) == newest()


async def test_everybody_may_go_on_making_workspaces_in_managed_roots_of_before(url: str) -> None:
    await upgrade(url, to="0001")
    database = Database(url)
    async with database.write() as connection:
        await connection.execute(text("INSERT INTO users VALUES (1, 'alice', 'a@x', '-', false, NULL, 0)"))
        node = "INSERT INTO nodes (id, name, owner_id, key, config_revision, joined_at) VALUES (2, 'lab3', 1, :key, 0, 0)"
        await connection.execute(text(node), {"key": b"k"})
        fields = "id, node_id, name, kind, bucket, prefix, layout, level, pace, created_at, objects, bytes, digest, generation"
        for number, kind in enumerate(("public", "private", "unmanaged-public", "unmanaged-private")):
            values = f"{number}, 2, 'r{number}', '{kind}', 'b', '', 'prefix', 'names', 0, 0, 0, 0, 0, 0"
            await connection.execute(text(f"INSERT INTO roots ({fields}) VALUES ({values})"))  # noqa: S608 - written above
    await upgrade(url)
    async with database.read() as connection:
        rows = await connection.execute(text("SELECT root_id, role, subject_kind, subject_id FROM root_roles ORDER BY root_id"))
        assert [tuple(row) for row in rows] == [(0, "create", "everyone", 0), (1, "create", "everyone", 0)]
    await database.close()


async def test_revisions_can_be_taken_from_a_new_database(url: str) -> None:
    await upgrade(url)
    database = Database(url)
    async with database.write() as connection:
        assert await database.take_revisions(connection, 3) == 1
        assert await database.take_revisions(connection, 1) == 4
    await database.close()


async def test_a_database_of_a_newer_hub_is_refused_and_left_alone(url: str) -> None:
    await upgrade(url)
    database = Database(url)
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BadSetting, match="cannot be brought to this hub's layout"):
        await upgrade(url)
    assert await current(url) == "9999"
    await database.close()
