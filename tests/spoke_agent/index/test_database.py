"""The file under snapshot and journal: whole transactions or none, and a clear word for whatever can be wrong with it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from protocol.errors import BadSetting, DiskFull, Internal, Unreachable
from spoke_agent.index.database import SCHEMA_VERSION, Database
from spoke_agent.index.ledger import Ledger
from spoke_agent.index.spans import Span
from tests.spoke_agent.index.conftest import Bench, MemoryNode, config_of


async def opened(path: Path | str) -> Database:
    database = Database(path)
    await database.open()
    return database


def fill_up(connection: sqlite3.Connection) -> None:
    """Let no page be added to the file: what a full disk does, without one."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")


def damage(path: Path) -> None:
    """Overwrite everything but the first pages and the last."""
    body = path.read_bytes()
    path.write_bytes(body[: 3 * 4096] + b"\xaa" * (len(body) - 4 * 4096) + body[-4096:])


def throw_away(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()


async def read_all(ledger: Ledger) -> None:
    try:
        await ledger.open()
        await ledger.known(1, Span())
    finally:
        await ledger.close()


async def test_a_transaction_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    database = await opened(tmp_path / "x")

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO configuration VALUES (1, 7)")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        await database.run(half)
    assert await database.run(lambda c: c.execute("SELECT count(*) FROM configuration").fetchone()) == (0,)
    await database.close()


async def test_transactions_run_in_the_order_in_which_they_were_handed_over(tmp_path: Path) -> None:
    database = await opened(tmp_path / "x")
    order: list[int] = []
    await asyncio.gather(*(database.run(lambda _, number=number: order.append(number)) for number in range(200)))  # type: ignore[misc]  # bound here on purpose
    assert order == list(range(200))
    await database.close()


async def test_what_was_written_is_meant_to_survive_a_power_cut(tmp_path: Path) -> None:
    database = await opened(tmp_path / "x")
    pragma = await database.run(
        lambda c: [c.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "user_version")]
    )
    assert pragma == ["wal", 2, SCHEMA_VERSION]
    await database.close()


@pytest.mark.parametrize("body", [b"this is no database, " * 500, b"\0" * 4096 + b"x" * 4096], ids=["text", "noise"])
async def test_a_file_that_is_damaged_is_said_to_be_and_left_as_it_is(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "index.sqlite"
    path.write_bytes(body)
    with pytest.raises(BadSetting, match="is damaged") as raised:
        await opened(path)
    assert "Move the file away" in raised.value.todo
    assert path.read_bytes() == body


async def test_damage_in_the_middle_is_noticed_when_it_is_met(bench: Bench, node: MemoryNode) -> None:
    for number in range(3000):
        node.put(1, f"key{number}" * 10)
    node.page = 1000
    await bench.scanner.scan_root(1)
    await bench.stop()
    damage(Path(bench.path))
    with pytest.raises(BadSetting, match="is damaged"):
        await read_all(Ledger(Database(bench.path)))
    throw_away(Path(bench.path))
    await bench.start()
    await bench.ledger.configure(1, [config_of(1)])
    await bench.scanner.scan_root(1)
    await bench.sync()
    await bench.check(1)


async def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(BadSetting, match=f"layout 99, not {SCHEMA_VERSION}"):
        await opened(path)


async def test_a_folder_that_is_not_there_or_a_file_that_is_a_folder_is_said_so(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere" / "x", tmp_path):
        with pytest.raises(BadSetting, match="cannot be opened"):
            await opened(path)


async def test_a_closed_file_says_so_and_may_be_closed_again(tmp_path: Path) -> None:
    database = Database(tmp_path / "x")
    with pytest.raises(Internal, match="is closed"):
        await database.run(lambda _: None)
    await database.open()
    await database.close()


async def test_another_process_that_holds_the_file_is_waited_for_then_named(tmp_path: Path) -> None:
    database = await opened(tmp_path / "x")
    await database.run(lambda c: c.execute("PRAGMA busy_timeout = 50") and None)
    other = sqlite3.connect(tmp_path / "x", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unreachable, match="held by another program"):
        await database.run(lambda _: None)
    other.execute("ROLLBACK")
    other.close()
    await database.run(lambda _: None)
    await database.close()


async def test_a_full_disk_stops_a_scan_and_loses_nothing(bench: Bench, node: MemoryNode) -> None:
    node.page = 200
    for number in range(4_000):
        node.put(1, f"a rather long folder name/{number:060}")
    await bench.database.run(fill_up)
    with pytest.raises(DiskFull) as raised:
        await bench.scanner.scan_root(1)
    assert raised.value.retry
    assert "could not be written" in raised.value.message
    kept, recounted, _ = await bench.ledger.recount(1)
    assert kept == recounted
    await bench.database.run(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
    bench.schedule.request(1)
    await bench.quiet()
    await bench.sync()
    await bench.check(1)
