"""Folders and searches as a person sees them: only what they may read, whatever they ask."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from hub.db.tables import nodes
from hub.domain.paths import readings
from hub.services.indexing import Indexing
from hub.services.ports import Actor, Readable
from hub.services.searching import Searching, resolve_places
from protocol.api import NodeState
from protocol.errors import BadCursor, BadInput, BadQuery, NoGrant, UnknownPath, UnknownWorkspace
from protocol.fields import Fields
from protocol.messages import Health, Progress, RootState, ScanState
from protocol.names import NodeId, RootId, UserId, WorkspaceId
from search.document import Document
from search.engine import Sort
from search.query import Within, parse
from search.tantivy import Tantivy

ALICE = Actor(UserId(1), "alice", admin=False)
BOB = Actor(UserId(2), "bob", admin=False)
_nodes = itertools.count()


class Reach:
    """Who may read what, as a test says."""

    def __init__(self) -> None:
        self.all: list[Readable] = []
        self.may: dict[str, set[int]] = {"alice": set(), "bob": set()}

    async def readable(self, actor: Actor) -> list[Readable]:
        return [one for one in self.all if one.id in self.may[actor.username]]

    async def resolve(self, actor: Actor, path: str) -> tuple[Readable, str]:
        for reading in readings(path, actor.username):
            for one in self.all:
                if (one.owner, one.name) == (reading.owner, reading.name):
                    if one.id not in self.may[actor.username]:
                        raise NoGrant("no")
                    return one, reading.rest
        raise UnknownWorkspace("no such workspace")


class Watching:
    """What the gateway knows of nodes, as a test says."""

    def __init__(self) -> None:
        self.up: set[int] = set()
        self.fresh: dict[int, int] = {}
        self.last: dict[int, Health] = {}
        self.ages: dict[int, float] = {}
        self.states: dict[int, RootState] = {}

    def online(self, node: NodeId) -> bool:
        return node in self.up

    def fresh_at(self, node: NodeId) -> int | None:
        return self.fresh.get(node)

    def health(self, node: NodeId) -> Health | None:
        return self.last.get(node)

    def heard_at(self, node: NodeId) -> int | None:
        return self.fresh.get(node)

    def root_age_s(self, node: NodeId, root: int) -> float | None:
        del node
        return self.ages.get(root)

    def state(self, node: NodeId, root: int) -> RootState | None:
        del node
        return self.states.get(root)


class Library:
    """Alice's scans and notes on one node, Bob's scans on another, all indexed."""

    def __init__(self, world: Any, engine: Tantivy) -> None:
        self.world = world
        self.engine = engine
        self.reach = Reach()
        self.watching = Watching()
        self.indexing = Indexing(database=world.database, engine=engine)
        self.searching = self.make(b"k" * 32)

    def make(self, key: bytes) -> Searching:
        return Searching(
            database=self.world.database,
            engine=self.engine,
            reach=self.reach,
            agents=self.watching,
            clock=self.world,
            cursor_key=key,
        )

    async def fill(self) -> None:
        number = next(_nodes)
        self.lab, self.nas = f"lab{number}", f"nas{number}"
        alice, bob = await self.world.user(f"alice{number}"), await self.world.user(f"bob{number}")
        self.one, self.other = [
            self.world.Agent(self.world, node, await self.world.root(node, name="data"))
            for node in (await self.world.node(self.lab), await self.world.node(self.nas))
        ]
        self.scans = await self.workspace(self.one, alice, "alice/scans", self.lab)
        self.notes = await self.workspace(self.one, alice, "alice/notes", self.lab)
        self.bobs = await self.workspace(self.other, bob, "bob/scans", self.nas)
        for subject in range(3):
            for run in range(2):
                self.one.put(f"alice/scans/sub-0{subject}/run{run}.nii.gz", 1000 * (subject + 1), mtime=10**18 + run)
        self.one.put("alice/scans/readme.txt", 10, mtime=10**18)
        self.one.put("alice/notes/readme.md", 20, mtime=10**18)
        self.other.put("bob/scans/secret.nii.gz", 5, mtime=10**18)
        await self.one.send()
        await self.other.send()
        while await self.indexing.step():
            pass
        self.reach.may = {"alice": {self.scans, self.notes}, "bob": {self.bobs}}

    async def workspace(self, agent: Any, owner: int, path: str, node: str) -> WorkspaceId:
        who, _, name = path.partition("/")
        made: WorkspaceId = await self.world.workspace(agent.root, f"{path}/", owner=owner, name=name)
        self.reach.all.append(Readable(made, who, name, agent.node, node, agent.root, f"{path}/"))
        return made

    async def hits(self, actor: Actor, q: str, **options: Any) -> list[str]:
        page = await self.searching.search(actor, q=q, **options)
        assert page.total == len(page.hits) or len(page.hits) == options.get("limit", 50)
        return [hit.path for hit in page.hits]


@pytest.fixture
async def library(world: Any, tmp_path: Path) -> AsyncIterator[Library]:
    engine = Tantivy(tmp_path / "index")
    await engine.open()
    made = Library(world, engine)
    await made.fill()
    yield made
    await engine.close()


# ---------------------------------------------------------------------------------------------------- folders


async def test_a_workspace_is_listed_a_level_at_a_time(library: Library) -> None:
    top = await library.searching.files(ALICE, "scans")
    assert [(one.path, one.folder, one.objects, one.size) for one in top.entries] == [
        ("alice/scans/readme.txt", False, 1, 10),
        ("alice/scans/sub-00/", True, 2, 2000),
        ("alice/scans/sub-01/", True, 2, 4000),
        ("alice/scans/sub-02/", True, 2, 6000),
    ]
    assert (top.path, top.after) == ("alice/scans/", None)
    assert top.entries[0].modified_at == 10**15
    for path in ("scans/sub-01", "scans/sub-01/", "alice/scans/sub-01/", "me/scans/sub-01"):
        below = await library.searching.files(ALICE, path)
        assert [one.path for one in below.entries] == ["alice/scans/sub-01/run0.nii.gz", "alice/scans/sub-01/run1.nii.gz"]


async def test_pages_of_a_folder_follow_one_another(library: Library) -> None:
    paths: list[str] = []
    after = None
    while True:
        page = await library.searching.files(ALICE, "scans", after, 1)
        paths += [one.path for one in page.entries]
        after = page.after
        if after is None:
            break
    assert paths == [f"alice/scans/{name}" for name in ("readme.txt", "sub-00/", "sub-01/", "sub-02/")]


async def test_a_file_is_listed_by_itself(library: Library) -> None:
    page = await library.searching.files(ALICE, "scans/sub-01/run0.nii.gz")
    assert [(one.path, one.size, one.folder) for one in page.entries] == [("alice/scans/sub-01/run0.nii.gz", 2000, False)]


@pytest.mark.parametrize("path", ["scans/nothing", "scans/sub", "scans/sub-01/run", "scans/readme.txt/", "scans/sub-01//"])
async def test_where_nothing_lies_is_said(library: Library, path: str) -> None:
    with pytest.raises(UnknownPath):
        await library.searching.files(ALICE, path)


async def test_an_empty_workspace_is_an_empty_list(library: Library) -> None:
    empty = await library.workspace(library.one, await library.world.user(), "alice/empty", library.lab)
    library.reach.may["alice"].add(empty)
    assert (await library.searching.files(ALICE, "empty")).entries == ()


async def test_a_deleted_file_is_not_listed(library: Library) -> None:
    library.one.delete("alice/scans/readme.txt")
    await library.one.send()
    with pytest.raises(UnknownPath):
        await library.searching.files(ALICE, "scans/readme.txt")
    assert len((await library.searching.files(ALICE, "scans")).entries) == 3


async def test_what_one_may_not_read_is_not_listed(library: Library) -> None:
    with pytest.raises(NoGrant):
        await library.searching.files(ALICE, "bob/scans")


@pytest.mark.parametrize("after", ["", "a/b", "a//", "\0", "../x/"])
async def test_a_position_that_is_no_line_of_a_folder_is_refused(library: Library, after: str) -> None:
    with pytest.raises(BadCursor):
        await library.searching.files(ALICE, "scans", after)


# ---------------------------------------------------------------------------------------------------- searches


async def test_two_people_asking_the_same_get_different_answers(library: Library) -> None:
    assert await library.hits(ALICE, "ext:nii.gz size>2500", sort=Sort.PATH) == [
        "alice/scans/sub-02/run0.nii.gz",
        "alice/scans/sub-02/run1.nii.gz",
    ]
    assert await library.hits(BOB, "ext:gz") == ["bob/scans/secret.nii.gz"]
    assert await library.hits(ALICE, "secret") == []


async def test_a_share_changes_the_answer_at_once_with_nothing_indexed_again(library: Library) -> None:
    position = await library.engine.position()
    library.reach.may["alice"].add(library.bobs)
    assert await library.hits(ALICE, "secret") == ["bob/scans/secret.nii.gz"]
    library.reach.may["alice"].discard(library.bobs)
    assert await library.hits(ALICE, "secret") == []
    assert await library.engine.position() == position


@pytest.mark.parametrize(
    ("q", "count"),
    [
        ("owner:alice", 8),
        ("owner:me", 8),
        ("owner:al*", 8),
        ("owner:bob", 0),
        ("NOT owner:bob", 8),
        ("in:scans", 7),
        ("in:alice/scans/sub-01", 2),
        ("in:alice/scans/sub-01/", 2),
        ("in:alice/scans/sub-0", 0),
        ("in:bob/scans", 0),
        ("workspace:notes", 1),
        ("workspace:alice/notes", 1),
        ("workspace:bob/notes", 0),
        ("workspace:[ab]otes", 0),
        ("root:data", 8),
        ("-workspace:notes readme", 1),
        ("(workspace:notes OR in:scans/sub-02)", 3),
    ],
)
async def test_places_in_a_query_mean_what_one_may_read(library: Library, q: str, count: int) -> None:
    assert len(await library.hits(ALICE, q)) == count


async def test_places_by_the_node_they_are_on(library: Library) -> None:
    library.reach.may["alice"].add(library.bobs)
    assert len(await library.hits(ALICE, f"node:{library.lab}")) == 8
    assert len(await library.hits(ALICE, f"node:{library.nas}")) == 1
    assert len(await library.hits(ALICE, f"root:{library.nas}/data")) == 1


async def test_facets_count_only_what_one_may_read_by_names_people_know(library: Library) -> None:
    page = await library.searching.search(ALICE, q="", facets=("ext", "node", "owner", "workspace"))
    assert {name: [(one.value, one.count) for one in counts] for name, counts in page.facets.items()} == {
        "ext": [("nii.gz", 6), ("md", 1), ("txt", 1)],
        "node": [(library.lab, 8)],
        "owner": [("alice", 8)],
        "workspace": [("alice/scans", 7), ("alice/notes", 1)],
    }
    assert (page.total, page.bytes) == (8, 12_030)


async def test_kinds_and_tags_are_counted_and_searched_only_where_one_may_read(library: Library) -> None:
    read = {
        ("alice/scans/a.dcm", library.scans): Fields("dicom", {"dicom.modality": "MR", "dicom.rows": 256}, {"Project": "one"}),
        ("alice/notes/b.txt", library.notes): Fields("text", text="about the scanner", problem="It ends too early."),
        ("bob/scans/c.png", library.bobs): Fields("image", {"dicom.rows": 512}, {"Project": "two"}, "the scanner"),
    }
    newest = await library.engine.position()
    await library.engine.write(
        [
            Document(99, where, key, key.split("/", 2)[2], 7, 10**18, newest + n, fields)
            for n, ((key, where), fields) in enumerate(read.items(), 1)
        ]
    )
    await library.engine.commit(newest + len(read))
    page = await library.searching.search(ALICE, q="is:read OR is:unreadable", facets=("type", "tag"))
    assert {name: [(one.value, one.count, one.bytes) for one in counts] for name, counts in page.facets.items()} == {
        "type": [("dicom", 1, 7), ("text", 1, 7)],
        "tag": [("Project=one", 1, 7)],
    }
    assert await library.hits(ALICE, "dicom.rows>0") == await library.hits(ALICE, "tag:project") == ["alice/scans/a.dcm"]
    assert await library.hits(ALICE, "scanner") == await library.hits(ALICE, "is:unreadable") == ["alice/notes/b.txt"]
    assert await library.hits(BOB, "scanner type:image dicom.rows:512 tag:project=two") == ["bob/scans/c.png"]


async def test_an_unknown_facet_and_a_wrong_query_are_explained(library: Library) -> None:
    with pytest.raises(BadInput, match="no facet"):
        await library.searching.search(ALICE, q="", facets=("colour",))
    with pytest.raises(BadQuery) as wrong:
        await library.searching.search(ALICE, q="scan (")
    assert wrong.value.column


async def test_pages_put_together_are_the_whole_answer(library: Library) -> None:
    for sort in Sort:
        whole = await library.hits(ALICE, "", sort=sort)
        paths: list[str] = []
        cursor = None
        while True:
            page = await library.searching.search(ALICE, q="", sort=sort, limit=3, cursor=cursor)
            assert page.total == 8
            paths += [hit.path for hit in page.hits]
            cursor = page.cursor
            if cursor is None:
                break
        assert paths == whole


async def test_a_page_cursor_holds_for_one_person_one_query_one_order_and_one_hub(library: Library) -> None:
    page = await library.searching.search(ALICE, q="ext:gz", limit=2)
    assert page.cursor is not None
    cursor = page.cursor
    again = await library.searching.search(ALICE, q="ext:gz", limit=5, cursor=cursor)
    assert len(again.hits) == 4
    wrong: list[tuple[Searching, Actor, str, Sort, str]] = [
        (library.searching, ALICE, "ext:txt", Sort.RELEVANCE, cursor),
        (library.searching, ALICE, "ext:gz", Sort.PATH, cursor),
        (library.searching, BOB, "ext:gz", Sort.RELEVANCE, cursor),
        (library.make(b"x" * 32), ALICE, "ext:gz", Sort.RELEVANCE, cursor),
        (library.searching, ALICE, "ext:gz", Sort.RELEVANCE, cursor[:-2]),
        (library.searching, ALICE, "ext:gz", Sort.RELEVANCE, "A" + cursor[1:] if cursor[0] != "A" else "B" + cursor[1:]),
        (library.searching, ALICE, "ext:gz", Sort.RELEVANCE, ""),
        (library.searching, ALICE, "ext:gz", Sort.RELEVANCE, "é\n!"),
    ]
    for searching, actor, q, sort, forged in wrong:
        with pytest.raises(BadCursor):
            await searching.search(actor, q=q, sort=sort, cursor=forged)


async def test_somebody_who_may_read_nothing_gets_nothing(library: Library) -> None:
    library.reach.may["bob"] = set()
    page = await library.searching.search(BOB, q="", facets=("node", "ext"))
    assert (page.hits, page.total, page.bytes, page.nodes) == ((), 0, 0, ())
    assert page.facets == {"node": (), "ext": ()}


# ---------------------------------------------------------------------------------------------------- freshness


async def test_an_answer_says_how_old_its_view_of_each_node_is(library: Library) -> None:
    node = library.one.node
    library.watching.up.add(node)
    library.watching.fresh[node] = library.world.time - 4_000_000
    library.watching.last[node] = Health(1, 3, 2, paused=False)
    await library.one.say(Progress(library.one.root, ScanState.RUNNING, 1, 1, 1, 1))
    (view,) = (await library.searching.search(ALICE, q="")).nodes
    assert (view.node, view.state, view.pending_rows, view.scanning) == (library.lab, NodeState.ONLINE, 5, True)
    assert view.age_s == pytest.approx(4, abs=0.01)


async def test_of_a_node_away_since_before_the_hubs_start_what_was_kept_is_said(library: Library) -> None:
    (view,) = (await library.searching.files(BOB, "scans")).nodes
    assert (view.state, view.age_s, view.pending_rows, view.scanning) == (NodeState.OFFLINE, None, 0, False)
    health = msgspec.msgpack.encode(Health(1, 0, 0, paused=False))
    async with library.world.database.write() as connection:
        seen = library.world.time - 9_000_000
        kept = update(nodes).where(nodes.c.id == library.other.node).values(health=health, seen_at=seen)
        await connection.execute(kept)
    (view,) = (await library.searching.files(BOB, "scans")).nodes
    assert view.age_s == pytest.approx(9, abs=0.01)


# ---------------------------------------------------------------------------------------------------- pure


def test_ones_own_workspace_comes_before_somebody_elses_of_that_path() -> None:
    def readable(number: int, owner: str, name: str) -> Readable:
        return Readable(WorkspaceId(number), owner, name, NodeId(1), "lab", RootId(1), f"{owner}/{name}/")

    both = [readable(1, "alice", "bob"), readable(2, "bob", "scans")]
    resolved = resolve_places(parse("in:bob/scans", 0), both, username="alice", roots={})
    assert resolved == Within(frozenset({1}), "scans")
    assert resolve_places(parse("in:bob/scans", 0), both[1:], username="alice", roots={}) == Within(frozenset({2}), "")
    assert resolve_places(parse("in:/", 0), both, username="alice", roots={}) == Within(frozenset(), "")
