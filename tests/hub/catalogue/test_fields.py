"""What was read out of objects, in the hub: only of what is there, never more than the level allows, and gone with it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select, update

from hub.db import fields as rows
from hub.db.tables import entries, fields, roots, settings
from hub.services import levels as module
from hub.services.details import Details
from hub.services.indexing import Indexing
from hub.services.levels import Levels, lowered
from hub.services.ports import Actor, Readable
from protocol.errors import BadMessage, UnknownPath
from protocol.fields import Fields, fitted, pack, unpack
from protocol.messages import Ack, Change, IndexLevel, Row
from protocol.names import UserId
from search.document import Document, Gone

PICTURE = fitted("image", {"image.width": 640}, tags={"project": "x"})
LETTER = fitted("text", {"text.words": 2}, text="dear diary")


class Engine:
    """Remembers what it is told."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.at = 0
        self.documents: dict[tuple[int, str], Document] = {}

    async def position(self) -> int:
        return self.at

    async def write(self, changes: list[Document | Gone]) -> None:
        for one in changes:
            if isinstance(one, Gone):
                self.documents.pop((one.root, one.key), None)
            else:
                self.documents[one.root, one.key] = one

    async def commit(self, position: int) -> None:
        self.at = position


class Hub:
    """An agent's root, the search index behind it, and the work on levels."""

    def __init__(self, world: Any, agent: Any, engine: Engine | None = None) -> None:
        self.world = world
        self.agent = agent
        self.engine = engine or Engine(world)
        self.indexing = Indexing(database=world.database, engine=self.engine)  # type: ignore[arg-type]  # the part it uses
        self.levels = Levels(database=world.database, clock=world, changed=lambda: None, indexed=lambda: self.engine.at)

    async def level(self, level: IndexLevel) -> None:
        """Change the level as the service does."""
        async with self.world.database.write() as connection:
            await connection.execute(update(roots).where(roots.c.id == self.agent.root).values(level=str(level)))
            await lowered(connection, self.agent.root)

    def read(self, key: str, found: Fields) -> None:
        content = self.agent.snapshot[key]
        self.agent.write(Row(Change.FIELDS, self.agent.root, key, *content, fields=pack(found)))

    async def known(self) -> dict[str, Fields]:
        async with self.world.database.read() as connection:
            found = await connection.execute(select(fields.c.key, fields.c.body).where(fields.c.root_id == self.agent.root))
        return {row.key: unpack(bytes(row.body)) for row in found}

    async def indexed(self) -> dict[str, Fields | None]:
        while await self.indexing.step():
            pass
        return {key: one.fields for (root, key), one in self.engine.documents.items() if root == self.agent.root}

    async def worked(self) -> None:
        """Bring levels down to where they should be, and let the search index follow."""
        for _ in range(1000):
            done = await self.levels.step()
            if done is False:
                return
            await self.indexed()
        raise AssertionError("it never ends")

    async def left(self) -> dict[str, int]:
        async with self.world.database.read() as connection:
            mine = {
                table.name: await connection.scalar(
                    select(func.count()).select_from(table).where(table.c.root_id == self.agent.root)
                )
                for table in (entries, fields)
            }
            notes = await connection.scalar(
                select(func.count()).select_from(settings).where(settings.c.name.endswith(f" {self.agent.root}"))
            )
        return mine | {"notes": notes}


@pytest.fixture
async def hub(world: Any, agent: Any) -> Hub:
    made = Hub(world, agent)
    await world.workspace(agent.root, "p/")
    await made.level(IndexLevel.CONTENT)
    return made


async def test_fields_lie_beside_their_file_and_reach_the_search_index(hub: Hub) -> None:
    hub.agent.put("p/a.png")
    await hub.agent.send()
    assert await hub.indexed() == {"p/a.png": None}
    hub.read("p/a.png", PICTURE)
    hub.read("p/a.png", LETTER)
    assert await hub.agent.send() == Ack(hub.agent.cursor)
    assert await hub.known() == {"p/a.png": LETTER}
    assert await hub.indexed() == {"p/a.png": LETTER}
    await hub.world.check(hub.agent.root)


async def test_put_and_fields_in_one_batch_and_a_delete_behind_them(hub: Hub) -> None:
    hub.agent.put("p/a")
    hub.read("p/a", PICTURE)
    hub.agent.put("p/b")
    hub.read("p/b", PICTURE)
    hub.agent.delete("p/b")
    await hub.agent.send()
    assert await hub.known() == {"p/a": PICTURE}
    await hub.world.check(hub.agent.root)


async def test_fields_of_another_content_or_of_nothing_are_passed_over(hub: Hub) -> None:
    hub.agent.put("p/a", 3, "new")
    for content in ((3, 5, "old"), (4, 5, "new"), (3, 6, "new")):
        hub.agent.write(Row(Change.FIELDS, hub.agent.root, "p/a", *content, fields=pack(PICTURE)))
    hub.agent.write(Row(Change.FIELDS, hub.agent.root, "p/nothing", 3, 5, "new", fields=pack(PICTURE)))
    assert await hub.agent.send() == Ack(hub.agent.cursor)
    assert await hub.known() == {}
    await hub.world.check(hub.agent.root)


@pytest.mark.parametrize("how", ["overwritten", "deleted"])
async def test_an_overwritten_or_deleted_file_loses_its_fields_at_once(hub: Hub, how: str) -> None:
    hub.agent.put("p/a", 3)
    hub.read("p/a", PICTURE)
    await hub.agent.send()
    if how == "deleted":
        hub.agent.delete("p/a")
    else:
        hub.agent.put("p/a", 4)
    await hub.agent.send()
    assert await hub.known() == {}
    assert await hub.indexed() == ({} if how == "deleted" else {"p/a": None})


async def test_a_file_that_is_only_confirmed_keeps_its_fields(hub: Hub) -> None:
    hub.agent.put("p/a", 3)
    hub.read("p/a", PICTURE)
    await hub.agent.send()
    hub.agent.lose_state()
    await hub.agent.say(hub.agent.scan())
    await hub.agent.send()
    assert await hub.known() == {"p/a": PICTURE}


async def test_what_a_new_generation_does_not_find_loses_its_fields(hub: Hub) -> None:
    hub.agent.put("p/a", 3)
    hub.agent.put("p/b", 3)
    hub.read("p/a", PICTURE)
    hub.read("p/b", LETTER)
    await hub.agent.send()
    hub.agent.lose_state()
    del hub.agent.storage["p/a"]
    done = hub.agent.scan()
    await hub.agent.send()
    await hub.agent.say(done)
    assert await hub.known() == {"p/b": LETTER}
    await hub.world.check(hub.agent.root)


async def test_an_agent_that_finds_nothing_any_more_takes_back_what_it_said(hub: Hub) -> None:
    hub.agent.put("p/a")
    hub.read("p/a", PICTURE)
    hub.read("p/a", Fields())
    await hub.agent.send()
    assert await hub.known() == {}


async def test_fields_that_cannot_be_read_end_the_connection(hub: Hub) -> None:
    hub.agent.put("p/a")
    for body in (b"\x01", b"", pack(PICTURE) + b"x"):
        hub.agent.rows, hub.agent.runs = hub.agent.rows[:1], hub.agent.runs[:2]
        hub.agent.write(Row(Change.FIELDS, hub.agent.root, "p/a", 1, 5, "e", fields=body))
        with pytest.raises(BadMessage):
            await hub.agent.send()
    assert await hub.world.live(hub.agent.root) == {}


# ---------------------------------------------------------------------------------------------------- levels


async def test_at_level_names_nothing_is_taken_in_and_at_metadata_no_text(hub: Hub) -> None:
    hub.agent.put("p/a")
    await hub.level(IndexLevel.NAMES)
    hub.read("p/a", LETTER)
    await hub.agent.send()
    assert await hub.known() == {}
    await hub.level(IndexLevel.METADATA)
    hub.read("p/a", LETTER)
    await hub.agent.send()
    assert await hub.known() == {"p/a": msgspec.structs.replace(LETTER, text="")}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 3)


async def filled(hub: Hub, count: int = 10) -> None:
    for number in range(count):
        hub.agent.put(f"p/{number}", number)
        hub.read(f"p/{number}", LETTER)
    hub.agent.put("outside")
    await hub.agent.send()
    assert set(await hub.indexed()) == {f"p/{number}" for number in range(count)}


@pytest.mark.usefixtures("small")
async def test_from_content_to_metadata_the_text_goes_and_the_values_stay(hub: Hub) -> None:
    await filled(hub)
    await hub.level(IndexLevel.METADATA)
    await hub.worked()
    plain = msgspec.structs.replace(LETTER, text="")
    assert await hub.known() == {f"p/{number}": plain for number in range(10)}
    assert all(one == plain for one in (await hub.indexed()).values())
    assert await hub.left() == {"entries": 11, "fields": 10, "notes": 0}


@pytest.mark.usefixtures("small")
async def test_at_level_names_all_that_was_read_goes_and_the_files_stay(hub: Hub) -> None:
    await filled(hub)
    await hub.level(IndexLevel.NAMES)
    await hub.worked()
    assert await hub.indexed() == {f"p/{number}": None for number in range(10)}
    assert await hub.left() == {"entries": 11, "fields": 0, "notes": 0}
    await hub.world.check(hub.agent.root)


@pytest.mark.usefixtures("small")
async def test_at_level_none_nothing_stays_neither_here_nor_in_the_search_index(hub: Hub) -> None:
    await filled(hub)
    await hub.level(IndexLevel.NONE)
    await hub.worked()
    assert await hub.indexed() == {}
    assert await hub.left() == {"entries": 0, "fields": 0, "notes": 0}
    await hub.world.check(hub.agent.root)
    async with hub.world.database.read() as connection:
        total = (await connection.execute(select(roots).where(roots.c.id == hub.agent.root))).one()
    assert (total.objects, total.bytes, total.digest) == (0, 0, 0)


@pytest.mark.usefixtures("small")
async def test_a_level_that_is_raised_in_the_middle_leaves_everything_right(hub: Hub) -> None:
    await filled(hub)
    await hub.level(IndexLevel.NONE)
    assert await hub.levels.step()
    assert await hub.levels.step()
    await hub.world.check(hub.agent.root)
    await hub.level(IndexLevel.NAMES)
    await hub.worked()
    await hub.world.check(hub.agent.root)
    hub.agent.lose_state()  # an agent at level none has forgotten everything
    await hub.agent.send()
    done = hub.agent.scan()
    await hub.agent.send()
    await hub.agent.say(done)
    await hub.world.check(hub.agent.root)
    assert set(await hub.indexed()) == {f"p/{number}" for number in range(10)}
    assert await hub.known() == {}


@pytest.mark.usefixtures("small")
async def test_work_that_a_hubs_end_cut_off_is_gone_on_with(hub: Hub) -> None:
    await filled(hub)
    await hub.level(IndexLevel.NONE)
    await hub.levels.step()
    again = Hub(hub.world, hub.agent, hub.engine)
    await again.worked()
    assert await again.left() == {"entries": 0, "fields": 0, "notes": 0}
    assert await again.indexed() == {}


@pytest.mark.usefixtures("small")
async def test_a_retired_root_is_forgotten_too(hub: Hub) -> None:
    await filled(hub)
    async with hub.world.database.write() as connection:
        await connection.execute(update(roots).where(roots.c.id == hub.agent.root).values(retired_at=1))
        await lowered(connection, hub.agent.root)
    await hub.worked()
    assert await hub.left() == {"entries": 0, "fields": 0, "notes": 0}
    assert await hub.indexed() == {}


# ---------------------------------------------------------------------------------------------------- shown


class Open:
    """Whoever asks may read the one workspace."""

    def __init__(self, where: Readable) -> None:
        self.where = where

    async def resolve(self, actor: Actor, path: str) -> tuple[Readable, str]:
        del actor
        return self.where, path


async def test_one_file_is_shown_with_what_its_level_allows(hub: Hub) -> None:
    async with hub.world.database.read() as connection:
        workspace = await connection.scalar(select(entries.c.workspace_id).where(entries.c.root_id == hub.agent.root))
    assert workspace is None
    hub.agent.put("p/a.txt", 7)
    hub.read("p/a.txt", LETTER)
    hub.agent.put("p/plain")
    await hub.agent.send()
    async with hub.world.database.read() as connection:
        workspace = await connection.scalar(
            select(entries.c.workspace_id).where(entries.c.root_id == hub.agent.root, entries.c.key == "p/plain")
        )
    where = Readable(workspace, "alice", "w", hub.agent.node, "lab3", hub.agent.root, "p/")
    details = Details(database=hub.world.database, reach=Open(where), roots=None)  # type: ignore[arg-type]  # not for this
    alice = Actor(UserId(1), "alice", admin=False)
    shown = await details.file(alice, "a.txt")
    assert (shown.path, shown.size, shown.kind, shown.values) == ("alice/w/a.txt", 7, "text", {"text.words": 2})
    assert shown.text == "dear diary"
    assert (await details.file(alice, "plain")).kind == ""
    await hub.level(IndexLevel.METADATA)
    assert (await details.file(alice, "a.txt")).text == "", "at once, whatever is still to be cut"
    await hub.level(IndexLevel.NAMES)
    assert (await details.file(alice, "a.txt")).values == {}
    await hub.level(IndexLevel.NONE)
    for path in ("a.txt", "", "b", "a.txt/"):
        with pytest.raises(UnknownPath):
            await details.file(alice, path)


async def test_rows_are_written_over_each_other_and_removed_in_bulk(hub: Hub) -> None:
    one = rows.FieldsRow(hub.agent.root, "k", 1, 2, "e", b"x", problem=True)
    async with hub.world.database.write() as connection:
        await rows.store(connection, [one, msgspec.structs.replace(one, key="l")])
        await rows.store(connection, [msgspec.structs.replace(one, body=b"y", problem=False)])
        found = await rows.stored(connection, [(one.root_id, "k"), (one.root_id, "l"), (one.root_id, "m")])
        assert {key: row.body for (_, key), row in found.items()} == {"k": b"y", "l": b"x"}
        assert [row.key for row in await rows.unreadable(connection, one.root_id, "", 10)] == ["l"]
        await rows.remove(connection, [(one.root_id, "l"), (one.root_id, "k"), (one.root_id, "never")])
        assert await rows.keys_of_root(connection, one.root_id, 5) == []
