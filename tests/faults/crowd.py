"""Many agents in one process: sessions that speak the real protocol, each with a journal of its own in memory.

Each keeps what it has to say until the hub has acknowledged it, and connects again, by the agent's own rules, whenever its
session ends. So whatever happens to the connections, in the end the hub must have every row of every one of them, once.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from protocol.digest import EMPTY_RUN, combine, object_number, run_on
from protocol.errors import WioError
from protocol.identity import from_text, new_key, public_bytes
from protocol.messages import Ack, Asking, Change, Done, Epochs, Events, Finding, Health, Nak, Report, Row
from protocol.session import Received
from spoke_agent.link.backoff import Backoff
from spoke_agent.link.line import Line, address_of, open_line

FIRST_ID: Final = 10_000
BATCH: Final = 10


class Member:
    """One agent, of node and root ``FIRST_ID + number``."""

    def __init__(self, number: int, hub_url: str, hub_key: str, chance: random.Random) -> None:
        self.number = number
        self.id = FIRST_ID + number
        self._address = address_of(hub_url)
        self._hub_key = from_text(hub_key)
        self._key = new_key(number.to_bytes(32, "big"))
        self._backoff = Backoff(chance.random)
        self._rows: list[Row] = []
        self._have = 0
        self._stir = asyncio.Event()
        self._answered = asyncio.Event()
        self.sessions = 0
        self.naks: list[str] = []

    def write(self, rows: int) -> None:
        """Have so many more rows to tell."""
        for number in range(len(self._rows), len(self._rows) + rows):
            self._rows.append(Row(Change.PUT, self.id, f"data/file-{number:05}", number, 10**18 + number, f"{number:032x}"))
        self._stir.set()

    @property
    def told(self) -> bool:
        """Whether the hub has all of it."""
        return self._have == len(self._rows)

    @property
    def digest(self) -> int:
        """What the hub's digest of this root must be."""
        return combine(0, added=(object_number(row.key, row.size, row.mtime, row.etag) for row in self._rows))

    @property
    def objects(self) -> int:
        """How many objects the hub must have of this root."""
        return len(self._rows)

    async def run(self) -> None:
        """Hold a session, and another after it, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                options = {"node_key": self._key, "hub_key": self._hub_key, "nonce": secrets.token_bytes(32)}
                async with open_line(self._address, **options, handshake_s=60) as line:  # type: ignore[arg-type]  # each is what it says
                    self.sessions += 1
                    self._have = line.welcome.cursor.sequence
                    await self._session(line)
            except WioError as error:
                self._backoff.held(loop.time() - began)
                await asyncio.sleep(self._backoff.next(error))

    async def _session(self, line: Line) -> None:
        await line.send(Epochs(()))
        await line.send(Report("0.1.0", "minio", "crowd", ("http://127.0.0.1:1",), "us-east-1", Finding.YES, ()))
        await line.send(Health(1_700_000_000_000_000, 0, 0, paused=False))
        parts = [asyncio.create_task(self._listen(line)), asyncio.create_task(self._tell(line))]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        for part in done:
            part.result()

    async def _listen(self, line: Line) -> None:
        while True:
            for event in await line.receive():
                if not isinstance(event, Received):
                    continue
                match event.message:
                    case Ack() as ack:
                        self._have = ack.cursor.sequence
                        self._answered.set()
                    case Nak() as nak:
                        self.naks.append(nak.reason)
                        self._have = nak.cursor.sequence
                        self._answered.set()
                    case message if isinstance(message, Asking):
                        await line.send(Done(message.request))

    async def _tell(self, line: Line) -> None:
        """Send a batch at a time, each once the one before is acknowledged, or refused."""
        while True:
            self._stir.clear()
            first = self._have
            rows = self._rows[first : first + BATCH]
            if rows:
                self._answered.clear()
                await line.send(Events(1, first, tuple(rows), run_on(EMPTY_RUN, self._rows[: first + len(rows)])))
                await self._answered.wait()
            else:
                await self._stir.wait()


class Crowd:
    """So many of them. ``live`` lets them live for as long as what happens to them takes, and until all is told."""

    def __init__(self, count: int, hub_url: str, hub_key: str, chance: random.Random) -> None:
        self._make = lambda: [Member(number, hub_url, hub_key, chance) for number in range(count)]
        self._loop: asyncio.AbstractEventLoop | None = None
        self.members: list[Member] = []

    def live(self, happens: Callable[[Crowd], None], *, seconds: float) -> None:
        """Let ``happens`` do its worst, in a thread; then wait until the hub has everything. Raises TimeoutError."""
        asyncio.run(self._live(happens, seconds))

    async def _live(self, happens: Callable[[Crowd], None], seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.members = self._make()
        tasks = [asyncio.create_task(member.run()) for member in self.members]
        try:
            async with asyncio.timeout(seconds):
                await asyncio.to_thread(happens, self)
                while not all(member.told for member in self.members):  # noqa: ASYNC110 - it changes in a thousand places
                    await asyncio.sleep(0.05)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def write(self, rows: int) -> None:
        """Let each have so many more rows to tell."""
        assert self._loop is not None
        for member in self.members:
            self._loop.call_soon_threadsafe(member.write, rows)

    @property
    def connected(self) -> int:
        """How many have had a session."""
        return sum(member.sessions > 0 for member in self.members)


def enrol(database: Path, count: int) -> None:
    """Make their nodes and roots, as rows: joining each would need a storage server each."""
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        [[owner]] = connection.execute("SELECT id FROM users WHERE username = 'alice'").fetchall()
        for number in range(count):
            key = public_bytes(new_key(number.to_bytes(32, "big")))
            connection.execute(
                "INSERT INTO nodes (id, name, owner_id, key, config_revision, joined_at) VALUES (?, ?, ?, ?, 0, 0)",
                (FIRST_ID + number, f"crowd{number}", owner, key),
            )
            connection.execute(
                "INSERT INTO roots (id, node_id, name, kind, bucket, prefix, layout, level, pace, created_at, objects, bytes,"
                " digest, generation) VALUES (?, ?, 'data', 'unmanaged-private', 'b', '', 'prefix', 'names', 0, 0, 0, 0, 0, 0)",
                (FIRST_ID + number, FIRST_ID + number),
            )
