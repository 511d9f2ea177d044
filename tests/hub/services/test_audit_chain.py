"""The audit trail is one unbroken chain, whoever appends to it at the same moment, and shows what was changed in it."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic import command
from sqlalchemy import delete, insert, select, text, update

from hub.db import migrate
from hub.db.database import Database
from hub.db.tables import audit, counters
from hub.services.audit import Audit
from hub.services.ports import Actor
from protocol.api import Login, NewShare
from protocol.errors import NotAllowed, UnknownWorkspace, WioError
from protocol.grants import Permission
from protocol.messages import Health
from protocol.names import shown

PASSWORD = "correct horse battery"

ON_BOTH = {
    "test_fifty_transactions_at_once_leave_one_unbroken_chain",
    "test_a_byte_that_is_changed_in_the_database_is_found_and_its_line_is_named",
    "test_a_line_that_is_taken_out_is_missed_wherever_it_stood",
    "test_everything_is_exported_oldest_first_and_its_chain_can_be_computed_again",
}


@pytest.fixture
async def admin(bench: Any) -> Actor:
    return await bench.person("carol", admin=True)


async def _lines(bench: Any) -> list[Any]:
    async with bench.database.read() as connection:
        return list(await connection.execute(select(audit).order_by(audit.c.id)))


async def test_fifty_transactions_at_once_leave_one_unbroken_chain(bench: Any, admin: Actor) -> None:
    before = (await bench.audit.check(admin)).lines

    async def one(number: int) -> None:
        async def work(connection: Any) -> None:
            await bench.audit.record(connection, admin, "test.first", f"{number}")
            await bench.audit.record(connection, admin, "test.second", f"{number}")

        if number % 2:
            await bench.database.run_write(work)
        else:
            async with bench.database.write() as connection:
                await work(connection)

    await asyncio.gather(*(one(number) for number in range(50)))
    checked = await bench.audit.check(admin)
    assert (checked.whole, checked.lines, checked.broken_at) == (True, before + 100, None)
    lines = await _lines(bench)
    assert checked.head == lines[-1].chain.hex()
    pairs = [line.target for line in lines if line.action.startswith("test.")]
    assert pairs[::2] == pairs[1::2], "the lines of a transaction stand together"


async def test_a_transaction_that_fails_leaves_no_line_and_no_gap(bench: Any, admin: Actor) -> None:
    async def work(connection: Any) -> None:
        await bench.audit.record(connection, admin, "test.lost", "x")
        raise RuntimeError

    async def begun() -> None:
        async with bench.database.write() as connection:
            await work(connection)

    for attempt in (begun(), bench.database.run_write(work)):
        with pytest.raises(RuntimeError):
            await attempt
    async with bench.database.write() as connection:
        await bench.audit.record(connection, admin, "test.kept", "x")
    assert [line.action for line in await _lines(bench) if line.action.startswith("test.")] == ["test.kept"]
    assert (await bench.audit.check(admin)).whole


@pytest.mark.parametrize("column", ["at", "actor_id", "action", "target", "detail", "node_id", "workspace_id", "chain"])
async def test_a_byte_that_is_changed_in_the_database_is_found_and_its_line_is_named(
    bench: Any, admin: Actor, column: str
) -> None:
    for number in range(6):
        async with bench.database.write() as connection:
            await bench.audit.record(connection, admin, "test.line", f"line {number}", node=7, workspace=8, why="a reason")
    line = (await _lines(bench))[-3]
    old = getattr(line, column)
    new = (
        old + 1
        if isinstance(old, int)
        else old[:-1] + (b"\0" if old[-1:] != b"\0" else b"\1")
        if isinstance(old, bytes)
        else f"{old[:-1]}~"
    )
    async with bench.database.write() as connection:
        await connection.execute(update(audit).where(audit.c.id == line.id).values({column: new}))
    checked = await bench.audit.check(admin)
    assert (checked.whole, checked.broken_at) == (False, line.id)


@pytest.mark.parametrize("back", [1, 3])
async def test_a_line_that_is_taken_out_is_missed_wherever_it_stood(bench: Any, admin: Actor, back: int) -> None:
    for number in range(5):
        async with bench.database.write() as connection:
            await bench.audit.record(connection, admin, "test.line", f"{number}")
    lines = await _lines(bench)
    async with bench.database.write() as connection:
        await connection.execute(delete(audit).where(audit.c.id == lines[-back].id))
    checked = await bench.audit.check(admin)
    following = lines[-1].id if back == 1 else lines[-back + 1].id
    assert (checked.whole, checked.broken_at) == (False, following)


async def test_a_line_that_somebody_adds_by_hand_is_named(bench: Any, admin: Actor) -> None:
    newest = (await _lines(bench))[-1]
    told = {"at": 1, "actor_id": 1, "action": "share", "target": "x", "detail": "{}", "node_id": None, "workspace_id": None}
    chain = hashlib.sha256(newest.chain + msgspec.msgpack.encode(tuple(told.values()))).digest()
    async with bench.database.write() as connection:
        added = await connection.execute(insert(audit).values(**told, chain=chain))
    assert (await bench.audit.check(admin)).broken_at == added.inserted_primary_key[0]


async def test_only_admins_check_it(bench: Any, alice: Actor) -> None:
    with pytest.raises(NotAllowed, match="Only an admin"):
        await bench.audit.check(alice)


async def test_lines_of_before_there_were_chains_are_counted_and_the_check_begins_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bench: Any
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/old.sqlite"
    real = command.upgrade
    monkeypatch.setattr(command, "upgrade", lambda config, _revision: real(config, "0001"))
    await migrate.upgrade(url)
    old = Database(url)
    async with old.write() as connection:
        for number in range(3):
            await connection.execute(
                text("INSERT INTO audit (at, actor_id, action, target, detail) VALUES (:n, 0, 'old.line', 'x', '{}')"),
                {"n": number},
            )
    await old.close()
    monkeypatch.undo()
    await migrate.upgrade(url)
    database = Database(url)
    trail = Audit(database=database, clock=bench.clock)
    admin = Actor(1, "root", admin=True)  # type: ignore[arg-type]  # an id is an id
    assert (await trail.check(admin)).unchained == 3
    async with database.write() as connection:
        await trail.record(connection, admin, "new.line", "x")
    checked = await trail.check(admin)
    assert (checked.whole, checked.lines, checked.unchained) == (True, 1, 3)
    async with database.write() as connection:
        await connection.execute(update(audit).where(audit.c.action == "new.line").values(chain=b""))
    assert not (await trail.check(admin)).whole, "a chained line cannot be made an old one"
    await database.close()


async def test_everything_is_exported_oldest_first_and_its_chain_can_be_computed_again(bench: Any, admin: Actor) -> None:
    for number in range(1200):  # several pages
        if number % 400 == 0:
            await asyncio.sleep(0)
        await bench.database.run_write(lambda c, n=number: bench.audit.record(c, admin, "test.line", f"ünï {n}"))
    exported = [
        msgspec.json.decode(line)
        for page in [page async for page in await bench.audit.export(admin)]
        for line in page.splitlines()
    ]
    assert [one["id"] for one in exported] == sorted(one["id"] for one in exported)
    assert len(exported) == len(await _lines(bench))
    chain = b""
    for one in exported:
        told = tuple(one[name] for name in ("at", "actor_id", "action", "target", "detail", "node_id", "workspace_id"))
        chain = hashlib.sha256(chain + msgspec.msgpack.encode(told)).digest()
        assert one["chain"] == chain.hex()


async def _exported(bench: Any, actor: Actor, workspace: str | None = None) -> list[dict[str, Any]]:
    pages = [page async for page in await bench.audit.export(actor, workspace)]
    return [msgspec.json.decode(line) for page in pages for line in page.splitlines()]


@pytest.mark.usefixtures("lab3")
async def test_others_export_only_what_they_may_see(bench: Any, admin: Actor, alice: Actor, bob: Actor) -> None:
    await bench.root(alice)
    await bench.workspace(alice)
    await bench.sharing.share(alice, "alice", "scans", "bob", _read())
    everything = await _exported(bench, admin)
    alices = {one["action"] for one in await _exported(bench, alice)}
    bobs = await _exported(bench, bob)
    assert {"workspace.create", "share", "root.create"} <= alices
    assert {one["action"] for one in bobs} == {"account.create"}
    assert len(everything) > len(bobs)


def _read(permission: Permission = Permission.READ) -> NewShare:
    return NewShare(permission)


@pytest.mark.usefixtures("lab3")
async def test_who_manages_a_workspace_sees_all_about_it_and_who_does_not_sees_their_own(
    bench: Any, alice: Actor, bob: Actor
) -> None:
    await bench.root(alice)
    await bench.workspace(alice)
    assert await bench.audit.entries(bob, workspace="alice/scans") == []  # as of one that never was
    await bench.sharing.share(alice, "alice", "scans", "bob", _read())
    assert await bench.audit.entries(bob, workspace="alice/scans") == []
    await bench.sharing.share(alice, "alice", "scans", "bob", _read(Permission.MANAGE))
    seen = [one.action for one in await bench.audit.entries(bob, workspace="alice/scans")]
    assert seen == ["share", "share", "workspace.create"]
    assert [one.action for one in await bench.audit.entries(alice, workspace="scans", limit=1)] == ["share"]


@pytest.mark.usefixtures("alice")
async def test_signing_in_being_refused_and_signing_out_are_there_with_the_address(bench: Any, admin: Actor) -> None:
    login = Login("alice@lab.example", PASSWORD)
    signed = await bench.accounts.login(login, "192.0.2.5")
    await bench.accounts.logout(signed.token)
    for email, password in (("alice@lab.example", "wrong password"), ("nobody@lab.example", "my real password!")):
        with pytest.raises(WioError):
            await bench.accounts.login(Login(email, password), "192.0.2.6")
    lines = [(one.action, one.target, one.detail) for one in await bench.audit.entries(admin, limit=5)]
    assert [(action, target) for action, target, _ in lines[:4]] == [
        ("login.refused", "(nobody)"),
        ("login.refused", "alice"),
        ("logout", "alice"),
        ("login", "alice"),
    ]
    assert "192.0.2.6" in lines[0][2]
    assert "192.0.2.5" in lines[3][2]
    assert signed.token not in str(lines)
    assert "real" not in str(lines)


async def test_a_key_that_is_refused_is_there_and_so_is_a_pause_that_a_node_reports(
    bench: Any, admin: Actor, alice: Actor, bob: Actor, lab3: Any
) -> None:
    await bench.root(alice)
    await bench.workspace(alice)
    with pytest.raises(UnknownWorkspace):
        await bench.key(bob, "alice/scans")
    for paused in (False, True, True, False):
        await bench.enrolment.health(lab3.id, Health(bench.clock.now(), 0, 0, paused=paused))
    lines = [(one.action, one.target) for one in await bench.audit.entries(admin, limit=3)]
    assert lines == [("node.resume", "lab3"), ("node.pause", "lab3"), ("key.refused", shown("alice/scans"))]


@pytest.mark.usefixtures("admin")
async def test_the_counter_says_how_many_lines_there_are(bench: Any) -> None:
    async with bench.database.read() as connection:
        counted = await connection.scalar(select(counters.c.value).where(counters.c.name == "audit"))
    assert counted == len(await _lines(bench))
