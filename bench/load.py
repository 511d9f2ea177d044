"""LOAD: how long people wait for lists, searches and keys while very many objects stream into the hub.

The objects are made up and told by agents that speak the real protocol, as fast as the hub acknowledges them: a storage server
could not list them as fast. What people ask for is real, keys from a real agent and server included. Its peer is the same,
asked once everything is in and the hub has nothing else to do.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import psutil

from bench.b6 import MIB, enrol, hub_key
from bench.figure import Figure, compare, percentile, rounded
from bench.rig import Rig, fetch_key
from bench.swarm import Plan, Played
from deploy.running import until

STREAMS: Final = 4
"""Agents that stream: one alone waits for its acknowledgements now and then."""
IDLE_ROUNDS: Final = 100
BETWEEN_S: Final = 0.05
PARTS: Final = 10
UNPACED: Final = 1e9


def measure(rig: Rig) -> Figure:
    """Ask for everything in turns, while objects come in and then of an idle hub. The figure is of all of it together."""
    rig.alice.create_workspace("load")
    asks = _asks(rig)
    asks["key"]()  # the first one brings the node its grants
    members = enrol(rig, STREAMS)
    hub = psutil.Process(rig.federation.hub.pid)
    spent = sum(hub.cpu_times()[:2])
    most, wal, arrived = 0.0, 0, [(time.perf_counter(), 0)]
    busy: dict[str, list[float]] = {name: [] for name in asks}
    plan = Plan(rig.federation.hub.url, hub_key(rig), tuple(members), 3600.0, UNPACED, every_s=0.0, total=rig.objects)
    with playing(plan) as swarm:
        until("the first are there", lambda: rig.alice.workspace("alice/swarm0").objects > 0, seconds=60)
        while swarm.poll() is None:
            for name, ask in asks.items():
                busy[name].append(_ms(ask))
            most = max(most, hub.memory_info().rss / MIB)
            wal = max(wal, _size(rig))
            arrived.append((time.perf_counter(), _counted(rig)))
            time.sleep(BETWEEN_S)
        played = ended(swarm)
    until("everything searchable", lambda: _found(rig) >= played.rows, seconds=600, every=0.5)
    spent = sum(hub.cpu_times()[:2]) - spent
    idle = {name: [_ms(ask) for _ in range(IDLE_ROUNDS)] for name, ask in asks.items()}
    rates = _rates(arrived, played.rows)
    each = {f"{name} ms": f"{_both(took)}, idle {_both(idle[name])}" for name, took in busy.items()}
    return compare(
        f"list, search, key while {STREAMS} made-up agents stream objects in, {rig.kept_in}",
        "ms",
        [one for took in busy.values() for one in took],
        "the same while nothing streams",
        [one for took in idle.values() for one in took],
        goal="",
        scale={
            "objects": played.rows,
            "objects/s": rounded(played.rows / played.seconds),
            "of the first and last tenth": f"{rates[0]:.0f}/{rates[-1]:.0f}",
            **each,
            "hub us/row, people's requests in it": rounded(spent * 1e6 / played.rows),
            "hub MiB": rounded(most),
            "WAL MiB": rounded(wal / MIB),
        },
    )


def _asks(rig: Rig) -> dict[str, Callable[[], object]]:
    return {
        "folder": lambda: rig.alice.files("alice/swarm0/run-0000", limit=100),
        "top folder": lambda: rig.alice.files("alice/swarm0", limit=100),
        "search": lambda: rig.alice.search("sample_0000001"),
        "key": lambda: fetch_key(rig.alice, "load"),
    }


def _ms(ask: Callable[[], object]) -> float:
    began = time.perf_counter()
    ask()
    return (time.perf_counter() - began) * 1000


def _both(took: list[float]) -> str:
    return f"{percentile(took, 50):.1f}/{percentile(took, 99):.1f}"


def _size(rig: Rig) -> int:
    try:
        return (rig.federation.hub.data / "hub.sqlite-wal").stat().st_size
    except FileNotFoundError:
        return 0


def _counted(rig: Rig) -> int:
    return sum(one.objects for one in rig.alice.workspaces() if one.name.startswith("swarm"))


def _found(rig: Rig) -> int:
    return sum(rig.alice.search(f"in:swarm{number}", limit=1).total for number in range(STREAMS))


def _rates(arrived: list[tuple[float, int]], rows: int) -> list[float]:
    """Return the rate in each tenth of the rows."""
    times = []
    for part in range(PARTS + 1):
        want = rows * part / PARTS
        before, after = arrived[0], arrived[-1]
        for one in arrived:
            if one[1] <= want:
                before = one
            else:
                after = one
                break
        share = (want - before[1]) / (after[1] - before[1]) if after[1] > before[1] else 0.0
        times.append(before[0] + share * (after[0] - before[0]))
    return [rows / PARTS / max(end - start, 1e-9) for start, end in itertools.pairwise(times)]


@contextmanager
def playing(plan: Plan) -> Iterator[subprocess.Popen[bytes]]:
    """Let made-up agents play a plan in a process of their own."""
    with subprocess.Popen([sys.executable, "-m", "bench.swarm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as swarm:
        if swarm.stdin is None:
            raise AssertionError("a pipe that was asked for is there")
        swarm.stdin.write(msgspec.msgpack.encode(plan))
        swarm.stdin.close()
        try:
            yield swarm
        finally:
            swarm.kill()


def ended(swarm: subprocess.Popen[bytes]) -> Played:
    """Return what was played by one that has ended."""
    if swarm.stdout is None or swarm.wait():
        raise AssertionError(f"the agents ended with {swarm.returncode}")
    return msgspec.msgpack.decode(swarm.stdout.read(), type=Played)
