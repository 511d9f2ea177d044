"""Reading objects: what is read, when it is read again, what the hub is told, and what one bad object costs the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from protocol.digest import EMPTY_RUN
from protocol.errors import Conflict, DiskFull, NotAllowed, StorageRefused, StorageUnreachable, WioError
from protocol.fields import Fields, fitted, unpack
from protocol.messages import Cursor, IndexLevel, RootConfig
from spoke_agent.index import journal
from spoke_agent.index import reading as module
from spoke_agent.index.dirty import Mark
from spoke_agent.index.reading import Reading
from tests.spoke_agent.index.conftest import Bench, MemoryNode, config_of

Content = tuple[str, dict[str, str]]


class Library(MemoryNode):
    """A storage server whose objects have bytes and tags."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: dict[str, bytes] = {}
        self.labels: dict[str, dict[str, str]] = {}
        self.reads: list[str] = []
        self.asked: list[str] = []
        self.hinder: Callable[[str, str], None] = lambda _what, _key: None
        """Called before a read and before tags are asked for, with which of them and the key; may raise."""

    def put(self, root: int, key: str, body: str = "", tags: dict[str, str] | None = None) -> None:
        super().put(root, key, body)
        self.bodies[key] = body.encode()
        self.labels[key] = tags or {}

    def copy(self, root: int, source: str, target: str) -> None:
        self.put(root, target, self.bodies[source].decode(), self.labels[source])

    async def read(self, root: RootConfig, key: str, etag: str, start: int, length: int) -> bytes:
        self.reads.append(key)
        await asyncio.sleep(0)
        self.hinder("read", key)
        if key not in self.objects[root.root] or self.objects[root.root][key].etag != etag:
            raise Conflict(f"{key} is another one.")
        return self.bodies[key][start : start + length]

    async def tags(self, root: RootConfig, key: str) -> dict[str, str]:
        del root
        self.asked.append(key)
        await asyncio.sleep(0)
        self.hinder("tags", key)
        return self.labels.get(key, {})


class Words:
    """An extractor of words: a .txt holds as many as it holds."""

    def __init__(self) -> None:
        self.version = "1"

    def wants(self, name: str, size: int) -> bool:
        del size
        return name.endswith(".txt")

    def versions(self) -> str:
        return f"image=7 text={self.version}"

    async def prepare(self) -> None:
        pass

    async def extract(
        self, name: str, size: int, level: IndexLevel, read: Callable[[int, int], Awaitable[bytes]]
    ) -> Fields | None:
        text = (await read(0, size)).decode()
        if "crash" in text:
            raise ZeroDivisionError(name)
        if "broken" in text:
            return fitted("text", {}, problem="It is broken.")
        return fitted("text", {"text.words": len(text.split())}, text=text if level is IndexLevel.CONTENT else "")


class Room(Bench):
    """A bench that reads."""

    node: Library

    async def start(self) -> None:
        await super().start()
        self.words = getattr(self, "words", None) or Words()
        self.told: list[str | None] = []
        self.quiet_hours = False
        self.reading = Reading(
            self.ledger,
            self.node,
            self.words,
            now=lambda: self.now_s,
            doubt=self.feed.mark,
            quiet=lambda _: self.quiet_hours,
            tell=self.told.append,
            pause=lambda _: asyncio.sleep(0),
        )

    async def level(self, level: IndexLevel, root: int = 1) -> None:
        self.revision = getattr(self, "revision", 1) + 1
        before = {config.root for config in self.ledger.indexed()}
        await self.ledger.configure(self.revision, [config_of(root, level=level)])
        for config in self.ledger.indexed():  # as the desk does it
            if config.root not in before:
                self.schedule.request(config.root)

    async def settled(self) -> None:
        """Do all that is to be done, and tell the hub."""
        for _ in range(500):
            await self.sync()
            await self.quiet()
            more = await self.reading.step()
            await self.sync()
            if not more and not self.feed.backlog:
                return
        raise AssertionError("it never gets done")

    async def changed(self, *keys: str) -> None:
        """Say that something happened to these keys, and follow it."""
        for key in keys:
            self.feed.mark(Mark(1, key))
        await self.settled()

    def known(self) -> dict[str, Fields]:
        """What the hub has."""
        return {key: unpack(body) for (_, key), body in self.hub.fields.items()}

    def counts(self) -> dict[str, object]:
        return {key: fields.values.get("text.words") for key, fields in self.known().items()}


@pytest.fixture
def node() -> Library:
    made = Library()
    made.make_root(1)
    return made


@pytest.fixture
async def room(tmp_path: Path, node: Library) -> AsyncIterator[Room]:
    made = Room(tmp_path / "index.sqlite", node)
    await made.start()
    await made.ledger.configure(1, [config_of(1, level=IndexLevel.METADATA)])
    yield made
    await made.stop()


async def imported(room: Room) -> None:
    room.schedule.request(1)
    await room.settled()


# ---------------------------------------------------------------------------------------------------- what is read


async def test_an_import_is_read_and_the_hub_told_behind_the_objects_themselves(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one two", {"project": "x"})
    node.put(1, "b.bin", "one two")
    node.put(1, "c.bin", "1", {"project": "y"})
    await imported(room)
    assert room.known() == {
        "a.txt": Fields("text", {"text.words": 2}, {"project": "x"}),
        "c.bin": Fields("", {}, {"project": "y"}),
    }
    assert node.reads == ["a.txt"]
    assert await room.ledger.reading_state() == {1: (0, 0)}
    await room.check(1)


async def test_at_level_names_nothing_is_read_not_even_tags(tmp_path: Path, node: Library) -> None:
    room = Room(tmp_path / "names.sqlite", node)
    await room.start()
    await room.ledger.configure(1, [config_of(1)])
    node.put(1, "a.txt", "one", {"a": "b"})
    await imported(room)
    await room.changed("a.txt")
    assert (node.reads, node.asked, room.hub.told) == ([], [], [])
    assert await room.ledger.reading_state() == {}
    await room.stop()


async def test_text_is_kept_at_level_content_alone(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "secret words")
    await imported(room)
    assert room.known()["a.txt"].text == ""
    await room.level(IndexLevel.CONTENT)
    await room.settled()
    assert room.known()["a.txt"].text == "secret words"
    reads = len(node.reads)
    await room.level(IndexLevel.METADATA)
    await room.settled()
    assert room.known()["a.txt"] == Fields("text", {"text.words": 2})
    assert len(node.reads) == reads, "what is to be forgotten is not read for it"
    assert await stored(room, b"secret") == 0


async def stored(room: Room, text: bytes) -> int:
    return await room.database.run(
        lambda c: c.execute("SELECT count(*) FROM read_fields WHERE instr(body, ?)", (text,)).fetchone()[0]
    )


async def test_an_overwrite_drops_what_was_read_at_once_and_what_is_there_now_follows(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one two")
    await imported(room)
    node.put(1, "a.txt", "one two three")
    room.feed.mark(Mark(1, "a.txt"))
    await room.quiet()
    await room.sync()
    assert room.known() == {}
    await room.settled()
    assert room.counts() == {"a.txt": 3}


async def test_a_deleted_file_takes_what_was_read_along(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one two")
    await imported(room)
    node.delete(1, "a.txt")
    await room.changed("a.txt")
    assert room.known() == {}
    for _ in range(3):
        room.now_s += module.TIDY_EVERY_S
        await room.reading.tidy()
    assert await stored(room, b"text") == 0


async def test_a_moved_or_copied_file_keeps_its_fields_without_a_read(room: Room, node: Library) -> None:
    node.put(1, "old.txt", "one two")
    await imported(room)
    node.reads.clear()
    node.copy(1, "old.txt", "new/name.txt")
    node.delete(1, "old.txt")
    await room.changed("old.txt", "new/name.txt")
    assert room.counts() == {"new/name.txt": 2}
    node.copy(1, "new/name.txt", "copy.txt")
    await room.changed("copy.txt")
    assert room.counts() == {"new/name.txt": 2, "copy.txt": 2}
    assert node.reads == []


async def test_a_move_that_only_a_scan_finds_is_one_too(room: Room, node: Library) -> None:
    for number in range(30):
        node.put(1, f"a/{number:02}.txt", "w " * number)
    await imported(room)
    node.reads.clear()
    for number in range(30):
        node.copy(1, f"a/{number:02}.txt", f"b/{number:02}.txt")
        node.delete(1, f"a/{number:02}.txt")
    await imported(room)
    assert room.counts() == {f"b/{number:02}.txt": number for number in range(30)}
    assert node.reads == []


async def test_the_same_bytes_under_another_kind_of_name_are_read_by_themselves(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one two")
    await imported(room)
    node.copy(1, "a.txt", "a.bin")
    await room.changed("a.bin")
    assert set(room.known()) == {"a.txt"}


async def test_objects_without_an_etag_are_never_taken_for_one_another(room: Room, node: Library) -> None:
    for key in ("a.txt", "b.txt"):
        node.put(1, key, "one two")
        node.objects[1][key] = msgspec.structs.replace(node.objects[1][key], etag="")
    node.bodies["b.txt"] = b"onetwo."
    await imported(room)
    assert room.counts() == {"a.txt": 2, "b.txt": 1}


async def test_new_tags_are_seen_without_reading_the_file_again(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one", {"state": "raw"})
    node.put(1, "b.bin", "", {"state": "raw"})
    await imported(room)
    node.reads.clear()
    node.labels = {"a.txt": {"state": "done"}, "b.bin": {}}
    await room.changed("a.txt", "b.bin")
    assert room.known()["a.txt"].tags == {"state": "done"}
    assert room.known()["b.bin"] == Fields()
    assert node.reads == []


async def test_what_is_reported_comes_before_a_long_list(room: Room, node: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OBJECTS", 2)
    for number in range(20):
        node.put(1, f"a{number:02}.txt", f"{number}")
    await room.scanner.scan_root(1)
    node.put(1, "z.txt", "late")
    room.feed.mark(Mark(1, "z.txt"))
    await room.quiet()
    await room.reading.step()
    assert node.reads[0] == "z.txt"
    assert (await room.ledger.reading_state())[1] == (19, 0)


async def test_in_quiet_hours_only_what_is_reported_is_read(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "old")
    await room.scanner.scan_root(1)
    room.quiet_hours = True
    node.put(1, "b.txt", "new")
    await room.changed("b.txt")
    assert room.counts() == {"b.txt": 1}
    room.quiet_hours = False
    await room.settled()
    assert room.counts() == {"a.txt": 1, "b.txt": 1}


# ---------------------------------------------------------------------------------------------------- what goes wrong


async def test_a_broken_file_is_listed_and_costs_no_other_anything(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "broken")
    node.put(1, "b.txt", "crash")
    node.put(1, "c.txt", "fine")
    await imported(room)
    assert room.known()["a.txt"].problem == "It is broken."
    assert room.known()["b.txt"].problem == "It could not be read: ZeroDivisionError."
    assert room.counts()["c.txt"] == 1
    assert await room.ledger.reading_state() == {1: (0, 2)}
    node.put(1, "a.txt", "mended")
    await room.changed("a.txt")
    assert await room.ledger.reading_state() == {1: (0, 1)}


async def test_a_file_that_changes_while_it_is_read_is_read_as_it_is_then(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one")
    await room.scanner.scan_root(1)
    node.put(1, "a.txt", "one two")  # and nobody says so
    await room.reading.step()
    assert room.hub.told == []
    assert room.feed.backlog == 1, "it is looked at again"
    await room.settled()
    assert room.counts() == {"a.txt": 2}


async def test_a_file_that_changes_between_reading_and_keeping_is_not_mixed_up(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one")
    await room.scanner.scan_root(1)
    plan = await room.ledger.plan_reading("", bulk=[1], limit=5)
    node.put(1, "a.txt", "one two")
    room.feed.mark(Mark(1, "a.txt"))
    await room.quiet()
    await room.ledger.keep_read([(plan.unread[0], fitted("text", {"text.words": 1}))], "")
    await room.sync()
    assert room.known() == {}
    await room.settled()
    assert room.counts() == {"a.txt": 2}


async def test_a_storage_server_that_is_away_is_waited_for(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one")
    node.put(1, "b.txt", "one two")
    await room.scanner.scan_root(1)

    def away(_what: str, key: str) -> None:
        if key == "b.txt":
            raise StorageUnreachable("away")

    node.hinder = away
    with pytest.raises(StorageUnreachable):
        await room.reading.step()
    assert (await room.ledger.reading_state())[1] == (1, 0), "what could be read is done"
    node.hinder = lambda _what, _key: None
    await room.settled()
    assert room.counts() == {"a.txt": 1, "b.txt": 2}


async def test_a_file_the_server_refuses_to_give_is_listed_with_its_words(room: Room, node: Library) -> None:
    def refuse(what: str, key: str) -> None:
        if (what, key) == ("read", "a.txt"):
            raise StorageRefused("The object was stored using a form of encryption.")

    node.put(1, "a.txt", "one")
    node.put(1, "b.txt", "one")
    node.hinder = refuse
    await imported(room)
    assert "encryption" in room.known()["a.txt"].problem
    assert room.counts()["b.txt"] == 1


@pytest.mark.parametrize("what", ["read", "tags"])
async def test_an_agent_that_may_not_look_says_so_once_and_lets_the_server_be(room: Room, node: Library, what: str) -> None:
    def forbid(asked: str, key: str) -> None:
        if asked == what:
            raise NotAllowed(f"The agent may not see {key}.", todo="Run wio-agent join once more.")

    node.hinder = forbid
    for number in range(40):
        node.put(1, f"{number}.txt", f"word {number}")
    await imported(room)
    for _ in range(5):
        await room.reading.step()
    assert len(node.reads if what == "read" else node.asked) <= module.AT_ONCE
    assert any(said and "wio-agent join" in said and "root1" in said for said in room.told)
    assert (len(room.known()) == 40) is (what == "tags"), "without tags everything else goes on"
    node.hinder = lambda _what, _key: None
    room.now_s += module.REFUSED_FOR_S + 1
    node.put(1, "new.txt", "one")
    await room.changed("new.txt")
    assert len(room.known()) == 41


async def test_nothing_is_read_while_the_hub_has_much_to_take(
    room: Room, node: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AHEAD", 10)
    for number in range(30):
        node.put(1, f"{number}.txt", "w")
    await room.scanner.scan_root(1)
    assert not await room.reading.step()
    assert node.reads == []
    await room.settled()
    assert len(room.known()) == 30


async def test_a_kill_between_reading_and_keeping_costs_a_second_read_and_nothing_else(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one")
    await room.scanner.scan_root(1)

    def killed(_what: str, _key: str) -> None:
        raise asyncio.CancelledError

    node.hinder = killed
    with pytest.raises(asyncio.CancelledError):
        await room.reading.step()
    node.hinder = lambda _what, _key: None
    await room.restart()
    await room.settled()
    assert room.counts() == {"a.txt": 1}
    await room.restart()
    await room.settled()
    assert len(room.hub.told) == 1


async def test_what_is_read_and_what_the_hub_is_told_are_kept_together_or_not_at_all(
    room: Room, node: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.put(1, "a.txt", "one")
    await room.scanner.scan_root(1)

    def full(*_: object) -> None:
        raise DiskFull("no room")

    with monkeypatch.context() as broken:
        broken.setattr(journal, "append", full)
        with pytest.raises(DiskFull):
            await room.reading.step()
    assert await stored(room, b"text") == 0
    assert (await room.ledger.reading_state())[1] == (1, 0)
    await room.settled()
    assert room.counts() == {"a.txt": 1}


# ---------------------------------------------------------------------------------------------------- said again


async def test_a_new_generation_tells_all_of_it_again_without_reading(room: Room, node: Library) -> None:
    for number in range(60):
        node.put(1, f"{number}.txt", f"{number}", {"n": f"{number}"})
    await imported(room)
    before = room.known()
    node.reads.clear()
    node.asked.clear()
    room.hub.cursor = Cursor(9, 5, EMPTY_RUN)  # a hub from another world
    room.hub.entries.clear()
    room.hub.fields.clear()
    await room.settled()
    assert room.known() == before
    assert (node.reads, node.asked) == ([], [])
    await room.check(1)


async def test_tags_that_were_reported_before_a_new_generation_are_still_asked_for(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one", {"state": "raw"})
    await imported(room)
    node.labels["a.txt"] = {"state": "done"}
    room.feed.mark(Mark(1, "a.txt"))
    await room.quiet()
    room.hub.cursor = Cursor(9, 5, EMPTY_RUN)
    await room.settled()
    assert room.known()["a.txt"].tags == {"state": "done"}


async def test_files_that_went_while_nothing_was_known_are_forgotten_in_the_end(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "gone soon")
    node.put(1, "b.txt", "stays")
    await imported(room)
    room.hub.cursor = Cursor(9, 5, EMPTY_RUN)
    node.delete(1, "a.txt")
    await room.settled()
    for _ in range(3):
        room.now_s += module.TIDY_EVERY_S
        await room.reading.tidy()
    count = await room.database.run(lambda c: c.execute("SELECT count(*) FROM read_fields").fetchone()[0])
    assert count == 1


async def test_a_content_that_comes_back_is_told_again(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one")
    first = node.objects[1]["a.txt"]
    await imported(room)
    node.put(1, "a.bin", "x")
    node.objects[1]["a.txt"] = msgspec.structs.replace(first, size=9, etag="other")
    room.feed.mark(Mark(1, "a.txt"))
    await room.quiet()
    node.objects[1]["a.txt"] = first  # restored with its old time
    await room.changed("a.txt")
    assert room.counts() == {"a.txt": 1}


# ---------------------------------------------------------------------------------------------------- levels


async def test_raising_the_level_reads_what_is_there_without_another_import(tmp_path: Path, node: Library) -> None:
    room = Room(tmp_path / "up.sqlite", node)
    await room.start()
    await room.ledger.configure(1, [config_of(1)])
    for number in range(25):
        node.put(1, f"{number}.txt", f"{number}")
    await imported(room)
    requests = node.requests
    await room.level(IndexLevel.METADATA)
    assert (await room.ledger.reading_state())[1] == (25, 0)
    await room.settled()
    assert len(room.known()) == 25
    assert node.requests == requests, "nothing was listed or looked at"
    await room.stop()


async def test_lowering_the_level_drops_what_was_read_and_raising_it_reads_again(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one")
    await imported(room)
    await room.level(IndexLevel.NAMES)
    room.hub.fields.clear()  # as the hub does by itself
    node.put(1, "a.txt", "one two")
    await room.changed("a.txt")
    assert (room.known(), await room.ledger.reading_state()) == ({}, {})
    while await room.reading.tidy():
        pass
    left = await room.database.run(
        lambda c: [c.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("unread", "read_fields", "reading")]  # noqa: S608 - fixed names
    )
    assert left == [0, 0, 0]
    await room.level(IndexLevel.METADATA)
    await room.settled()
    assert room.counts() == {"a.txt": 2}


async def test_a_level_that_goes_down_and_up_at_once_tells_everything_again_without_reading(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one")
    await imported(room)
    node.reads.clear()
    await room.level(IndexLevel.NAMES)
    room.hub.fields.clear()
    await room.level(IndexLevel.METADATA)
    await room.settled()
    assert room.counts() == {"a.txt": 1}
    assert node.reads == []


async def test_level_none_forgets_the_root_and_coming_back_scans_it(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one")
    await imported(room)
    await room.level(IndexLevel.NONE)
    assert await room.database.run(lambda c: c.execute("SELECT count(*) FROM object").fetchone()[0]) == 0
    room.hub.entries.clear()  # as the hub does by itself
    room.hub.fields.clear()
    await room.level(IndexLevel.METADATA)
    await room.settled()
    assert room.counts() == {"a.txt": 1}
    await room.check(1)


async def test_a_new_version_of_an_extractor_reads_its_files_again(room: Room, node: Library) -> None:
    node.put(1, "a.txt", "one")
    await imported(room)
    room.words.version = "2"
    await room.restart()
    await room.ledger.able(room.words.versions())
    await room.settled()
    assert node.reads == ["a.txt", "a.txt"]
    await room.restart()
    await room.ledger.able(room.words.versions())
    await room.settled()
    assert node.reads == ["a.txt", "a.txt"]


async def test_a_file_an_older_agent_wrote_is_taken_over_and_what_it_knew_is_read(tmp_path: Path, node: Library) -> None:
    import sqlite3  # noqa: PLC0415 - only here

    path = tmp_path / "old.sqlite"
    room = Room(path, node)
    await room.start()
    await room.ledger.configure(1, [config_of(1, level=IndexLevel.METADATA)])
    node.put(1, "a.txt", "one")
    await room.scanner.scan_root(1)
    await room.stop()
    with sqlite3.connect(path) as connection:
        for name in ("unread", "read_fields", "reading", "wish"):
            connection.execute(f"DROP TABLE {name}")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    await room.start()
    await room.settled()
    assert room.counts() == {"a.txt": 1}
    await room.stop()


async def test_the_loop_reads_what_comes_and_goes_on_after_trouble(room: Room, node: Library) -> None:
    failed: list[str] = []

    def once(_what: str, key: str) -> None:
        if key not in failed:
            failed.append(key)
            raise StorageUnreachable("away")

    node.hinder = once
    node.put(1, "a.txt", "one")
    running = asyncio.create_task(room.reading.run())
    try:
        room.schedule.request(1)
        await room.quiet()
        async with asyncio.timeout(10):
            while not room.known():
                await room.sync()
                await asyncio.sleep(0)
            assert room.reading.problem is None or isinstance(room.reading.problem, WioError)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert room.counts() == {"a.txt": 1}
