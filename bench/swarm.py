"""Many agents in one process: real sessions that speak the real protocol, with made-up files behind them.

``python -m bench.swarm`` reads a ``Plan`` from standard input, plays it, and writes a ``Played`` to standard output.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Final

import msgspec
import uvloop

from bench.figure import percentile
from protocol.digest import EMPTY_RUN, run_on
from protocol.identity import from_text, new_key
from protocol.messages import (
    BATCHES_OUT,
    HEALTH_EVERY_S,
    MAX_ROWS,
    Ack,
    Asking,
    Change,
    Configure,
    Done,
    Epochs,
    Events,
    Finding,
    Health,
    Nak,
    Report,
    Row,
)
from protocol.session import Received
from spoke_agent.link.line import Line, address_of, open_line

CONNECTING_AT_ONCE: Final = 50
STREAMED: Final = MAX_ROWS
"""Rows in a batch that is streamed: as many as a real agent's have."""
SETTLE_S: Final = 60.0
"""How long to wait for the last acknowledgements."""


class Member(msgspec.Struct, frozen=True):
    """One agent: the seed of its key, and its one root."""

    seed: bytes
    root: int


class Plan(msgspec.Struct, frozen=True):
    """Who connects where, and what they send: ``rate`` rows a second together, each agent a batch every ``every_s``.

    With ``total`` they send so many rows together as fast as these are acknowledged, and then end.
    """

    hub: str
    hub_key: str
    members: tuple[Member, ...]
    seconds: float
    rate: float
    every_s: float = 1.0
    total: int = 0


class Played(msgspec.Struct, frozen=True):
    """What happened. ``connected_s``: until all had been told their roots.

    ``wait_…_ms``: from sending a batch to its acknowledgement.
    """

    connected_s: float
    rows: int
    seconds: float
    batches: int
    wait_p50_ms: float
    wait_p99_ms: float


class _Agent:
    def __init__(self, line: Line, member: Member) -> None:
        self._line = line
        self._root = member.root
        self._sequence = 0
        self._running = EMPTY_RUN
        self._sent: deque[tuple[int, float]] = deque()
        self.acknowledged = 0
        self.acknowledged_at = 0.0
        self.waits: list[float] = []
        self.configured = asyncio.Event()
        self.settled = asyncio.Event()
        self._room = asyncio.Event()

    async def begin(self) -> None:
        await self._line.send(Epochs(()))
        await self._line.send(Report("0.1.0", "minio", "bench", ("http://127.0.0.1:1",), "us-east-1", Finding.YES, ()))

    async def listen(self) -> None:
        while True:
            for event in await self._line.receive():
                if not isinstance(event, Received):
                    continue
                match event.message:
                    case Ack() as ack:
                        self._took(ack.cursor.sequence)
                    case Nak() as nak:
                        raise AssertionError(nak.reason)
                    case message if isinstance(message, Asking):
                        if isinstance(message, Configure):
                            self.configured.set()
                        await self._line.send(Done(message.request))

    def _took(self, sequence: int) -> None:
        now = time.perf_counter()
        self.acknowledged, self.acknowledged_at = sequence, now
        while self._sent and self._sent[0][0] <= sequence:
            self.waits.append((now - self._sent.popleft()[1]) * 1000)
        self._room.set()
        if not self._sent:
            self.settled.set()

    async def live(self) -> None:
        while True:
            await self._line.send(Health(time.time_ns() // 1000, len(self._sent), 0, paused=False))
            await asyncio.sleep(HEALTH_EVERY_S)

    async def send(self, count: int) -> None:
        while len(self._sent) >= BATCHES_OUT:
            self._room.clear()
            await self._room.wait()
        rows = tuple(self._rows(count))
        self._running = run_on(self._running, rows)
        batch = Events(1, self._sequence, rows, self._running)
        self._sequence += count
        self._sent.append((self._sequence, time.perf_counter()))
        self.settled.clear()
        await self._line.send(batch)

    def _rows(self, count: int) -> Iterator[Row]:
        for number in range(self._sequence, self._sequence + count):
            key = f"data/run-{number // 1000:04}/sample_{number:07}.nii.gz"
            yield Row(Change.PUT, self._root, key, number, 1_764_000_000_000_000_000 + number, f"{number:032x}")


async def play(plan: Plan) -> Played:
    """Connect everybody, let them send for a while, wait for the last acknowledgement."""
    slots = asyncio.Semaphore(CONNECTING_AT_ONCE)
    began = time.perf_counter()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as listeners:

        async def connect(member: Member) -> _Agent:
            async with slots:
                line = await stack.enter_async_context(
                    open_line(
                        address_of(plan.hub),
                        node_key=new_key(member.seed),
                        hub_key=from_text(plan.hub_key),
                        nonce=secrets.token_bytes(32),
                        handshake_s=60,
                    )
                )
                agent = _Agent(line, member)
                await agent.begin()
                return agent

        agents = await asyncio.gather(*(connect(member) for member in plan.members))
        tasks = [listeners.create_task(work) for agent in agents for work in (agent.listen(), agent.live())]
        await asyncio.gather(*(agent.configured.wait() for agent in agents))
        connected = time.perf_counter() - began
        started = time.perf_counter()
        await asyncio.gather(*(_sending(agent, at / len(agents), plan) for at, agent in enumerate(agents)))
        async with asyncio.timeout(SETTLE_S):
            await asyncio.gather(*(agent.settled.wait() for agent in agents))
        ended = max(agent.acknowledged_at for agent in agents)
        for task in tasks:
            task.cancel()
    rows = sum(agent.acknowledged for agent in agents)
    waits = [wait for agent in agents for wait in agent.waits]
    return Played(connected, rows, ended - started, len(waits), percentile(waits, 50), percentile(waits, 99))


async def _sending(agent: _Agent, turn: float, plan: Plan) -> None:
    """Send batches at an even pace; agents take turns within the interval, as they do when nobody arranges it."""
    if plan.total:
        left = plan.total // len(plan.members)
        while left:
            await agent.send(min(left, STREAMED))
            left -= min(left, STREAMED)
        return
    count = max(1, round(plan.rate * plan.every_s / len(plan.members)))
    loop = asyncio.get_running_loop()
    next_at = loop.time() + turn * plan.every_s
    end = loop.time() + plan.seconds
    while next_at < end:
        await asyncio.sleep(next_at - loop.time())
        await agent.send(count)
        next_at += plan.every_s


def main() -> None:
    """Play what standard input says."""
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    played = uvloop.run(play(plan))
    sys.stdout.buffer.write(msgspec.msgpack.encode(played))


if __name__ == "__main__":
    main()
