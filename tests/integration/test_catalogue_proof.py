"""The catalogue provably equals storage: what was tampered with is found by ranges, and only that is looked at again."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing

import pytest

from bench.buckets import fill
from bench.rig import NODE, Rig
from deploy.running import until
from protocol.api import NewRoot, RootKind, Verification
from protocol.errors import NodeOffline, NotAllowed, UnknownRoot, WioError
from protocol.messages import ScanState
from tests.integration.conftest import Catalogue

OBJECTS = 6_000
GHOST = (
    "INSERT INTO entries (root_id, key, workspace_id, size, mtime, etag, actor_id, revision, gone, generation) SELECT "
    "id, ?, 0, 5, 5, 'ghost', 0, (SELECT value + 1 FROM counters WHERE name = 'revision'), 0, 1 FROM roots WHERE name = ?"
)


class Proven(Catalogue):
    """A root that was imported, and what can be done to it behind everybody's back."""

    def imported(self, objects: int) -> None:
        fill(self.rig, self.bucket, objects)
        self.create()
        until("imported", self.settled(objects), seconds=120, every=0.1)

    def settled(self, objects: int) -> object:
        def holds() -> bool:
            status = self.client.scan_status(NODE, self.root)
            return status.state is ScanState.DONE and self.client.root(NODE, self.root).objects == objects

        return holds

    def tamper(self, *statements: tuple[str, tuple[object, ...]]) -> None:
        """Change the hub's database behind its back; ``:root`` stands for the root's id."""
        with closing(sqlite3.connect(self.database, timeout=20)) as connection:
            (root,) = connection.execute("SELECT id FROM roots WHERE name = ?", (self.root,)).fetchone()
            for sql, arguments in statements:
                connection.execute(sql.replace(":root", str(root)), arguments)
            connection.commit()

    def rows(self) -> int:
        """How many rows of the node's journal the hub has taken in."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            generation, sequence = connection.execute(
                "SELECT generation, sequence FROM journals WHERE node_id = (SELECT node_id FROM roots WHERE name = ?)",
                (self.root,),
            ).fetchone()
        return int(generation) * 1_000_000_000 + int(sequence)

    def drifted(self) -> bool:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            (at,) = connection.execute("SELECT drifted_at FROM roots WHERE name = ?", (self.root,)).fetchone()
        return at is not None

    def repaired(self) -> int:
        """How many repairs of this root the audit trail tells of."""
        entries = self.client.audit(limit=200)
        return sum(one.action == "root.repair" and one.target == f"{NODE}/{self.root}" for one in entries)

    def heal(self) -> int:
        """Scan, wait for the repair, and return how many rows it took."""
        rows, before = self.rows(), self.repaired()
        self.client.scan(NODE, self.root)
        until("repaired", lambda: self.repaired() > before and not self.drifted(), seconds=60, every=0.1)
        return self.rows() - rows

    def verify(self) -> Verification:
        return self.client.verify_root(NODE, self.root)


@pytest.fixture(scope="module")
def proven(rig: Rig) -> Proven:
    made = Proven(rig, "proven", "proven")
    made.imported(OBJECTS)
    return made


KEY = "data/set-{:02}/sub-{:04}/scan_{:07}.nii"


def key(number: int) -> str:
    return KEY.format(number % 97, number // 1000, number)


def test_storage_node_and_catalogue_are_one_after_an_import(proven: Proven) -> None:
    found = proven.verify()
    assert found.equal
    assert not found.busy
    assert found.storage == found.node == found.catalogue == found.kept
    assert found.storage.objects == OBJECTS
    said = proven.rig.owner.wio("node", "verify", f"{NODE}/proven").good()
    assert "equal" in said.out
    assert found.storage.digest in said.out


def test_what_was_tampered_with_in_a_few_places_is_repaired_there_alone(proven: Proven) -> None:
    proven.tamper(
        ("DELETE FROM entries WHERE root_id = :root AND key IN (?, ?)", (key(1), key(2))),
        ("UPDATE entries SET size = size + 7 WHERE root_id = :root AND key IN (?, ?)", (key(3000), key(3001))),
        (GHOST, ("data/set-50/sub-0002/ghost.txt", "proven")),
        ("UPDATE counters SET value = value + 1 WHERE name = 'revision'", ()),
        ("UPDATE roots SET digest = digest - 1 WHERE id = :root", ()),
    )
    rows = proven.heal()
    assert 5 <= rows <= 700, rows
    assert proven.verify().equal
    proven.check()


def test_a_verification_tells_of_a_catalogue_whose_totals_do_not_show_it_and_has_it_repaired(proven: Proven) -> None:
    repaired = proven.repaired()
    proven.tamper(("DELETE FROM entries WHERE root_id = :root AND key IN (?, ?)", (key(1), key(2))))
    tampered = proven.verify()
    assert not tampered.equal
    assert not tampered.busy
    assert tampered.catalogue.objects == OBJECTS - 2
    assert tampered.kept == tampered.storage == tampered.node
    until("repaired", lambda: proven.repaired() > repaired and not proven.drifted(), seconds=60, every=0.1)
    assert proven.verify().equal
    proven.tamper(("UPDATE entries SET size = size + 7 WHERE root_id = :root AND key = ?", (key(5),)))
    said = proven.rig.owner.wio("node", "verify", f"{NODE}/proven")
    assert (said.code, "DIFFERENT" in said.out) == (1, True)
    until("repaired", lambda: proven.repaired() > repaired + 1, seconds=60, every=0.1)


def test_totals_that_are_wrong_on_the_hub_are_counted_again_without_a_row(proven: Proven) -> None:
    proven.tamper(("UPDATE roots SET objects = 1, bytes = 2, digest = 3 WHERE id = :root", ()))
    assert proven.heal() == 0
    assert proven.verify().equal
    proven.check()


def test_when_everything_was_tampered_with_at_once_everything_comes_back_in_the_same_journal(proven: Proven) -> None:
    proven.tamper(
        ("DELETE FROM entries WHERE root_id = :root AND id % 2 = 0", ()),
        ("UPDATE entries SET size = size + 1, etag = 'x' WHERE root_id = :root", ()),
        ("UPDATE roots SET objects = 7, bytes = 7, digest = 7 WHERE id = :root", ()),
    )
    rows = proven.heal()
    assert OBJECTS <= rows <= OBJECTS + 100, "a new generation would begin to count anew"
    assert proven.verify().equal
    proven.check()


def test_a_catalogue_that_was_emptied_comes_back(proven: Proven) -> None:
    proven.tamper(
        ("DELETE FROM entries WHERE root_id = :root", ()), ("UPDATE roots SET digest = 5, objects = 0 WHERE id = :root", ())
    )
    proven.heal()
    assert proven.verify().equal
    proven.check()


def test_what_was_tampered_with_in_the_agents_snapshot_ends_equal_to_storage(proven: Proven) -> None:
    proven.rig.agent.stop()
    with closing(sqlite3.connect(proven.rig.agent.state / "index.sqlite")) as connection:
        connection.execute("DELETE FROM object WHERE key IN (?, ?)", (key(10), key(11)))
        connection.execute("UPDATE object SET size = 99 WHERE key = ?", (key(12),))
        connection.execute("INSERT INTO object SELECT root, 'data/never.txt', 1, 1, 'e' FROM object LIMIT 1")
        connection.commit()
    proven.rig.agent.start()
    until("the agent is back", lambda: proven.rig.alice.node(NODE).state.value == "online", seconds=30)

    def equal() -> bool:
        try:
            return not proven.drifted() and proven.verify().equal
        except WioError:
            return False

    until("equal", equal, seconds=90, every=1)
    proven.check()


def test_while_somebody_writes_nothing_is_said_to_differ(proven: Proven) -> None:
    client = proven.rig.root_client()
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            client.put_object(Bucket="proven", Key=f"busy/{number % 40}.txt", Body=b"x" * (number % 9))
            if number % 5 == 0:
                client.delete_object(Bucket="proven", Key=f"busy/{(number + 7) % 40}.txt")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            found = proven.verify()
            assert found.equal or found.busy, found
            assert found.differences == ()
    finally:
        over.set()
        writer.join()
    until("equal once it is quiet", lambda: proven.verify().equal, seconds=60, every=1)


def test_only_those_who_run_a_root_may_have_it_counted_or_compared(proven: Proven) -> None:
    bob = proven.rig.bob
    for ask in (bob.verify_root, bob.survey_root):
        with pytest.raises((UnknownRoot, NotAllowed)):
            ask(NODE, "proven")
    with pytest.raises(NotAllowed):
        bob.survey_node(NODE, NewRoot(NODE, "x", RootKind.PRIVATE, "proven"))
    proven.rig.alice.change_root(NODE, "proven", managers=["bob"])
    assert bob.verify_root(NODE, "proven").equal
    proven.rig.alice.change_root(NODE, "proven", managers=[])


def test_a_dry_run_counts_what_a_root_would_hold_and_makes_nothing(rig: Rig) -> None:
    client = rig.root_client()
    client.create_bucket(Bucket="dry")
    for name in ("a/one.nii.gz", "a/two.nii.gz", "a/\x1b[31m.txt", "b/three.csv"):
        client.put_object(Bucket="dry", Key=name, Body=b"12345")
    asked = ("root", "create", f"{NODE}/dry", "--bucket", "dry", "--accept-visible-names", "--kind", "unmanaged-private")
    said = rig.owner.wio(*asked, "--prefix", "a", "--dry-run", "--json").good()
    assert (said.json["objects"], said.json["bytes"]) == (3, 15)
    assert {one["what"]: one["objects"] for one in said.json["extensions"]} == {"nii.gz": 2, "txt": 1}
    assert any("control" in one["what"] for one in said.json["odd"])
    assert "\x1b" not in said.out
    with pytest.raises(UnknownRoot):
        rig.alice.root(NODE, "dry")
    shown = rig.owner.wio(*asked, "--dry-run").good()
    assert "4 files" in shown.out
    rig.alice.create_root(NewRoot(NODE, "dry", RootKind.UNMANAGED_PRIVATE, "dry", accept_visible_names=True))
    said = rig.owner.wio("root", "survey", f"{NODE}/dry").good()
    assert "4 files" in said.out
    assert "nii.gz" in said.out


def test_a_hub_that_is_killed_in_the_middle_of_a_repair_goes_on_with_it(proven: Proven) -> None:
    proven.tamper(
        ("UPDATE entries SET etag = 'x' WHERE root_id = :root", ()), ("UPDATE roots SET digest = 5 WHERE id = :root", ())
    )
    before, rows = proven.repaired(), proven.rows()
    proven.client.scan(NODE, "proven")
    until("the repair is under way", lambda: proven.drifted() and proven.rows() > rows, seconds=60, every=0.002)
    proven.rig.federation.hub.kill()
    assert proven.drifted()
    proven.rig.federation.hub.start()

    def whole() -> bool:
        try:
            return not proven.drifted() and proven.repaired() > before
        except WioError:
            return False

    until("the repair has ended", whole, seconds=90, every=0.2)
    assert proven.verify().equal
    proven.check()


def test_a_node_that_is_away_cannot_be_verified_and_says_so_at_once(proven: Proven) -> None:
    proven.rig.agent.stop()
    until("it is away", lambda: proven.rig.alice.node(NODE).state.value != "online", seconds=30)
    started = time.monotonic()
    with pytest.raises(NodeOffline):
        proven.verify()
    assert time.monotonic() - started < 5
    assert proven.rig.owner.wio("node", "verify", f"{NODE}/proven").code == NodeOffline.exit_code
    proven.rig.agent.start()
    until("it is back", lambda: proven.rig.alice.node(NODE).state.value == "online", seconds=30)
