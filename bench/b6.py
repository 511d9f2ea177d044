"""B6: a thousand agents on one hub, ten thousand changes a second: how long each waits, and the hub's memory.

B8's second half is measured on the way: what a hub weighs that knows all these files.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Final

import httpx
import msgspec
import psutil
from sqlalchemy import insert, select

from bench.figure import Figure, percentile, rounded
from bench.rig import Rig
from bench.swarm import Member, Plan, Played
from deploy.running import until
from hub.db.database import Database
from hub.db.tables import nodes, roots, users, workspaces
from protocol.identity import new_key, public_bytes

AGENTS: Final = int(os.environ.get("WIO_BENCH_AGENTS", "1000"))
SECONDS: Final = 20.0
RATE: Final = 10_000.0
MIB: Final = 1024 * 1024
_ROOT: Final = {
    "name": "data",
    "kind": "unmanaged-private",
    "bucket": "b",
    "prefix": "",
    "layout": "prefix",
    "level": "names",
    "created_at": 0,
}


def measure(rig: Rig) -> Figure:
    """Let everybody send at once, while alice searches."""
    members = enrol(rig, AGENTS)
    hub = psutil.Process(rig.federation.hub.pid)
    before, spent = hub.memory_info().rss, sum(hub.cpu_times()[:2])
    plan = Plan(rig.federation.hub.url, hub_key(rig), tuple(members), SECONDS, RATE)
    most, searches = before, []
    with subprocess.Popen([sys.executable, "-m", "bench.swarm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as swarm:
        if swarm.stdin is None or swarm.stdout is None:
            raise AssertionError("a pipe that was asked for is there")
        swarm.stdin.write(msgspec.msgpack.encode(plan))
        swarm.stdin.close()
        while swarm.poll() is None:
            began = time.perf_counter()
            rig.alice.search("sample_0000001")
            searches.append((time.perf_counter() - began) * 1000)
            most = max(most, hub.memory_info().rss)
            time.sleep(0.1)
        if swarm.returncode:
            raise AssertionError(f"the agents ended with {swarm.returncode}")
        played = msgspec.msgpack.decode(swarm.stdout.read(), type=Played)
    spent = sum(hub.cpu_times()[:2]) - spent
    until("everything searchable", lambda: rig.alice.search("in:swarm0").total > 0, seconds=60)
    return Figure(
        what=f"{AGENTS} agents: a batch until it is acknowledged",
        unit="ms",
        n=played.batches,
        p50=rounded(played.wait_p50_ms),
        p99=rounded(played.wait_p99_ms),
        goal="1,000 agents, 10,000 events/s, <= 1 GiB",
        scale={
            "events/s": rounded(played.rows / played.seconds),
            "asked events/s": RATE,
            "connected in s": rounded(played.connected_s),
            "hub MiB": rounded(most / MIB),
            "hub cpu ms per 1,000 events": rounded(spent * 1e6 / played.rows),
            "search p50 ms": rounded(percentile(searches, 50)),
            "search p99 ms": rounded(percentile(searches, 99)),
        },
    )


def hub_key(rig: Rig) -> str:
    """Return the hub's public key as it says it itself."""
    return str(httpx.get(f"{rig.federation.hub.url}/api/v1/hub").json()["key"])


def enrol(rig: Rig, count: int, *, first: int = 10_000) -> list[Member]:
    """Make nodes with a root and a workspace each, as rows: joining each would need a storage server each."""
    return asyncio.run(_enrol(make_database(rig), count, first))


def make_database(rig: Rig) -> Database:
    """Open the hub's database beside the hub."""
    if rig.database is None:
        return Database(f"sqlite+aiosqlite:///{rig.federation.hub.data / 'hub.sqlite'}")
    return Database(rig.database.replace("postgresql://", "postgresql+asyncpg://"))


async def _enrol(database: Database, count: int, first: int) -> list[Member]:
    members, made_nodes, made_roots, made_workspaces = [], [], [], []
    for number in range(count):
        seed, node, root = number.to_bytes(32, "big"), first + number, first + count + number
        members.append(Member(seed, root))
        key = public_bytes(new_key(seed))
        made_nodes.append({"id": node, "name": f"swarm{number}", "key": key, "config_revision": 0, "joined_at": 0})
        made_roots.append({"id": root, "node_id": node, **_ROOT})
        place = {"id": root + count, "root_id": root, "name": f"swarm{number}", "prefix": "data/", "created_at": 0}
        made_workspaces.append(place)
    try:
        async with database.write() as connection:
            owner = {"owner_id": await connection.scalar(select(users.c.id).where(users.c.username == "alice"))}
            await connection.execute(insert(nodes), [one | owner for one in made_nodes])
            await connection.execute(insert(roots), made_roots)
            await connection.execute(insert(workspaces), [one | owner for one in made_workspaces])
    finally:
        await database.close()
    return members
