"""A catalogue on SQLite and on PostgreSQL, and agents whose journals go into it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import func, insert, select

from hub.db import catalogue, journals
from hub.db.database import Database
from hub.db.migrate import upgrade
from hub.db.tables import entries, nodes, roots, users, workspaces
from hub.services.ingest import Ingest
from protocol.digest import EMPTY_RUN, combine, object_number, run_on
from protocol.messages import Ack, Change, Cursor, Events, IndexLevel, Nak, Progress, Row, ScanState
from protocol.names import NodeId, RootId, WorkspaceId

Content = tuple[int, int, str]

_DATABASES = itertools.count()


class World:
    """A database, an ingest on it, and short ways to fill it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.time = 1_700_000_000_000_000
        self.indexed = 2**62
        self.changes = 0
        self.ids = itertools.count(1000)
        self.ingest = Ingest(database=database, clock=self, changed=self._changed, indexed=lambda: self.indexed)

    def now(self) -> int:
        self.time += 1
        return self.time

    def _changed(self) -> None:
        self.changes += 1

    async def user(self, name: str | None = None) -> int:
        user = next(self.ids)
        name = name or f"user{user}"
        async with self.database.write() as connection:
            row = {"id": user, "username": name, "email": f"{name}@x", "password": "x", "admin": False, "created_at": 0}
            await connection.execute(insert(users).values(row))
        return user

    async def node(self, name: str | None = None) -> NodeId:
        node, owner = next(self.ids), await self.user()
        async with self.database.write() as connection:
            row = {"id": node, "name": name or f"node{node}", "owner_id": owner, "key": node.to_bytes(32, "big")}
            await connection.execute(insert(nodes).values(row | {"joined_at": 0}))
        return NodeId(node)

    async def root(self, node: NodeId, level: IndexLevel = IndexLevel.NAMES, name: str | None = None) -> RootId:
        root = next(self.ids)
        async with self.database.write() as connection:
            row = {"id": root, "node_id": node, "name": name or f"root{root}", "kind": "private", "bucket": f"b{root}"}
            row |= {"prefix": "", "layout": "prefix", "level": str(level), "created_at": 0}
            await connection.execute(insert(roots).values(row))
        return RootId(root)

    async def workspace(self, root: RootId, prefix: str, *, owner: int | None = None, name: str | None = None) -> WorkspaceId:
        """Make a workspace as the service does: the row and its entries in one transaction."""
        workspace = WorkspaceId(next(self.ids))
        owner = owner or await self.user()
        async with self.database.write() as connection:
            row = {"id": workspace, "root_id": root, "owner_id": owner, "name": name or f"w{workspace}", "prefix": prefix}
            await connection.execute(insert(workspaces).values(row | {"created_at": 0}))
            await catalogue.assign(connection, root, prefix, workspace)
        return workspace

    async def live(self, root: RootId) -> dict[str, Content]:
        async with self.database.read() as connection:
            found = await connection.execute(select(entries).where(entries.c.root_id == root, ~entries.c.gone))
        return {row.key: (row.size, row.mtime, row.etag) for row in found}

    async def tombstones(self, root: RootId) -> set[str]:
        async with self.database.read() as connection:
            found = await connection.execute(select(entries.c.key).where(entries.c.root_id == root, entries.c.gone))
        return {row.key for row in found}

    async def check(self, root: RootId) -> None:
        """Every total and the digest equal what the entries give when counted from nothing."""
        async with self.database.read() as connection:
            rows = (await connection.execute(select(entries).where(entries.c.root_id == root, ~entries.c.gone))).all()
            total = (await connection.execute(select(roots).where(roots.c.id == root))).one()
            places = (await connection.execute(select(workspaces).where(workspaces.c.root_id == root))).all()
            revisions = [one.revision for one in await connection.execute(select(entries.c.revision))]
            newest = await connection.scalar(select(func.max(entries.c.revision)))
        digest = combine(0, added=(object_number(row.key, row.size, row.mtime, row.etag) for row in rows))
        assert (total.objects, total.bytes, total.digest) == (len(rows), sum(row.size for row in rows), digest)
        for row in rows:
            home = next((place.id for place in places if row.key.startswith(place.prefix)), 0)
            assert row.workspace_id == home, row.key
        for place in places:
            here = [row for row in rows if row.workspace_id == place.id]
            assert (place.objects, place.bytes) == (len(here), sum(row.size for row in here))
        assert len(set(revisions)) == len(revisions)
        assert newest is None or newest <= await self.newest()

    async def cursor(self, node: NodeId) -> Cursor:
        """Where a node's journal stands, asked without beginning a session."""
        async with self.database.read() as connection:
            return await journals.cursor(connection, node)

    async def newest(self) -> int:
        async with self.database.write() as connection:
            return await Database.take_revisions(connection, 0) - 1


class Agent:
    """A node with one root: its storage, what it last knew of it, and its journal."""

    def __init__(self, world: World, node: NodeId, root: RootId) -> None:
        self.world = world
        self.node = node
        self.root = root
        self.storage: dict[str, Content] = {}
        self.snapshot: dict[str, Content] = {}
        self.generation = 1
        self.rows: list[Row] = []
        self.runs: list[bytes] = [EMPTY_RUN]

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.generation, len(self.rows), self.runs[-1])

    def write(self, *rows: Row) -> None:
        for row in rows:
            self.rows.append(row)
            self.runs.append(run_on(self.runs[-1], [row]))

    def put(self, key: str, size: int = 1, etag: str = "e", mtime: int = 5) -> None:
        self.storage[key] = (size, mtime, etag)
        self.look(key)

    def delete(self, key: str) -> None:
        self.storage.pop(key, None)
        self.look(key)

    def look(self, key: str) -> None:
        now, before = self.storage.get(key), self.snapshot.get(key)
        if now is None and before is not None:
            del self.snapshot[key]
            self.write(Row(Change.DELETE, self.root, key))
        elif now is not None and now != before:
            self.snapshot[key] = now
            self.write(Row(Change.PUT, self.root, key, *now))

    def scan(self) -> Progress:
        for key in sorted(self.storage.keys() | self.snapshot.keys()):
            self.look(key)
        return self.done()

    def done(self) -> Progress:
        numbers = (object_number(key, *content) for key, content in self.snapshot.items())
        digest, size = combine(0, added=numbers), sum(content[0] for content in self.snapshot.values())
        return Progress(
            self.root, ScanState.DONE, len(self.snapshot), size, 1, 2, len(self.rows), digest, None, self.generation
        )

    def lose_state(self) -> None:
        """A new generation: nothing is known, nothing was said."""
        self.generation += 1
        self.snapshot, self.rows, self.runs = {}, [], [EMPTY_RUN]

    def batch(self, first: int, last: int | None = None) -> Events:
        last = len(self.rows) if last is None else last
        return Events(self.generation, first, tuple(self.rows[first:last]), self.runs[last])

    async def send(self, first: int | None = None, last: int | None = None) -> Ack | Nak:
        """Send rows; from where the hub is, if nothing else is said."""
        if first is None:
            cursor = await self.world.cursor(self.node)
            first = cursor.sequence if cursor.generation == self.generation else 0
        return await self.world.ingest.apply(self.node, self.batch(first, last))

    async def say(self, progress: Progress) -> Nak | None:
        return await self.world.ingest.progress(self.node, progress)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database for all tests of one kind; each test makes nodes of its own in it."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('catalogue')}/hub.sqlite"
    made: str = request.getfixturevalue("new_postgres")(f"catalogue_{next(_DATABASES)}")  # made again when its turn comes again
    return made


@pytest.fixture(scope="session")
async def world(url: str) -> AsyncIterator[World]:
    await upgrade(url)
    database = Database(url)
    made = World(database)
    yield made
    await database.close()


@pytest.fixture
async def agent(world: World) -> Agent:
    node = await world.node()
    return Agent(world, node, await world.root(node))


@pytest.fixture
async def make_agent(world: World) -> Callable[[], object]:
    async def make() -> Agent:
        node = await world.node()
        return Agent(world, node, await world.root(node))

    return make


World.Agent = Agent  # type: ignore[attr-defined]  # test modules cannot import this one
