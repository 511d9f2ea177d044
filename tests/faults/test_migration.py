"""SIGKILL of a hub that brings its database to a newer layout: it starts again, goes on, and nothing of the data is lost."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from alembic.ddl.impl import DefaultImpl
from sqlalchemy import text

from deploy.federation import Hub
from deploy.running import until
from hub.db.database import Database
from hub.db.migrate import current, newest, upgrade
from tests.faults.postgres import Postgres
from tests.faults.runner import FIRST, SEEDS, SOAK
from tests.faults.stand import ROOT, START_S, start

pytestmark = pytest.mark.real

FROM: Final = "0001"
ROWS: Final = 20_000 if SOAK else 2_000
_ENDS: Final = ("hub.db.migrate:_upgrade:after", "hub.db.migrate:upgrade:after")
"""All of it is done, and not committed; committed, and nobody has been told."""
_STATEMENT: Final = "alembic.ddl.impl:DefaultImpl._exec"
_numbers = itertools.count(1)


@pytest.fixture(params=["sqlite", "postgresql"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    """A hub that does not run, whose database an older one has left."""
    made = Hub(tmp_path / "hub")
    made.data.mkdir()
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{made.data}/hub.sqlite"
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.database(f"migration{next(_numbers)}")
    made.environment["WIO_DATABASE_URL"] = url
    asyncio.run(_filled(url))
    yield made
    made.kill()


async def _filled(url: str) -> None:
    await upgrade(url, to=FROM)
    database = Database(url)
    root = "id, node_id, name, kind, bucket, prefix, layout, level, pace, created_at, objects, bytes, digest, generation"
    entry = "root_id, key, workspace_id, size, mtime, etag, actor_id, revision, gone, generation"
    async with database.write() as connection:
        await connection.execute(text("INSERT INTO users VALUES (1, 'alice', 'a@x', '-', false, NULL, 0)"))
        node = "INSERT INTO nodes (id, name, owner_id, key, config_revision, joined_at) VALUES (2, 'lab3', 1, :key, 0, 0)"
        await connection.execute(text(node), {"key": b"k" * 32})
        values = f"3, 2, 'homes', 'private', 'b', '', 'prefix', 'names', 0, 0, {ROWS}, 7, 7, 1"
        await connection.execute(text(f"INSERT INTO roots ({root}) VALUES ({values})"))  # noqa: S608 - written above
        rows = [{"key": f"alice/k{number:06}", "size": number, "etag": f"{number:032x}"} for number in range(ROWS)]
        insert = f"INSERT INTO entries ({entry}) VALUES (3, :key, 0, :size, 5, :etag, 0, :size, false, 1)"  # noqa: S608 - as above
        await connection.execute(text(insert), rows)
    await database.close()


async def _kept(url: str) -> dict[str, list[Any]]:
    """Return all that was there before, in order."""
    database = Database(url)
    ask = {
        "users": "SELECT id, username, email FROM users ORDER BY id",
        "nodes": "SELECT id, name, owner_id FROM nodes ORDER BY id",
        "roots": "SELECT id, node_id, name, objects FROM roots ORDER BY id",
        "entries": "SELECT root_id, key, size, mtime, etag FROM entries ORDER BY key",
    }
    try:
        async with database.read() as connection:
            return {name: [tuple(row) for row in await connection.execute(text(sql))] for name, sql in ask.items()}
    finally:
        await database.close()


def _statements() -> int:
    """Return how many statements all the migrations since FROM are."""
    count = 0
    execute = DefaultImpl._exec

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return execute(*arguments, **options)

    async def migrate(folder: Path) -> None:
        url = f"sqlite+aiosqlite:///{folder}/count.sqlite"
        await upgrade(url, to=FROM)
        DefaultImpl._exec = counted  # type: ignore[method-assign]  # put back below
        try:
            await upgrade(url)
        finally:
            DefaultImpl._exec = execute  # type: ignore[method-assign]  # as it was

    with TemporaryDirectory() as folder:
        asyncio.run(migrate(Path(folder)))
    return count


@pytest.fixture(scope="module")
def statements() -> int:
    return _statements()


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_a_hub_that_dies_while_it_migrates_starts_again_with_all_that_was_there(hub: Hub, statements: int, seed: int) -> None:
    chance = random.Random(f"migration-{seed}")  # noqa: S311 - repeatable on purpose
    url = hub.environment["WIO_DATABASE_URL"]
    before = asyncio.run(_kept(url))
    assert len(before["entries"]) == ROWS
    middle = chance.randrange(1, statements + 1)
    calm = list(hub.command)
    points = (f"{_STATEMENT}:{chance.choice(['before', 'after'])}:{middle}", chance.choice(_ENDS))
    for point in points if SOAK or "sqlite" in url else points[:1]:
        hub.command = [sys.executable, "-m", "tests.faults.dying", "--at", point, "--", "hub.cli", "serve"]
        hub.environment["PYTHONPATH"] = str(ROOT)
        with hub.log.open("ab") as log:
            log.write(f"-- {point}\n".encode())
        assert _ended(hub) == -signal.SIGKILL, f"{point}: {hub.tail()}"
        done = point == _ENDS[1]
        assert asyncio.run(current(url)) == (newest() if done else FROM), point
        assert asyncio.run(_kept(url)) == before, point
    hub.command = calm
    start(hub)
    assert asyncio.run(current(url)) == newest()
    assert asyncio.run(_kept(url)) == before


def _ended(hub: Hub) -> int | None:
    """Start it, and return how it ended."""
    ready, hub.ready = hub.ready, lambda: True  # type: ignore[method-assign]  # it never gets that far
    try:
        hub.start()
    finally:
        hub.ready = ready  # type: ignore[method-assign]  # as above
    process = hub.process
    assert process is not None
    until("it has ended", lambda: process.poll() is not None, seconds=START_S)
    hub.kill()
    return process.returncode
