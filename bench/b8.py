"""B8: what an agent with nothing to do weighs, and a hub that knows very many files."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import msgspec
import psutil

from bench.b6 import MIB, enrol, hub_key
from bench.figure import Figure, rounded
from bench.rig import Rig
from bench.swarm import Plan, Played
from deploy.running import until

RATE: Final = 8_000.0


def measure(rig: Rig) -> Figure:
    """Let one made-up agent tell the hub of so many files; weigh the hub when all are searchable, and the real agent."""
    members = enrol(rig, 1)
    plan = Plan(rig.federation.hub.url, hub_key(rig), tuple(members), rig.objects / RATE, RATE, every_s=0.25)
    said = subprocess.run(
        [sys.executable, "-m", "bench.swarm"], input=msgspec.msgpack.encode(plan), stdout=subprocess.PIPE, check=True
    )
    played = msgspec.msgpack.decode(said.stdout, type=Played)
    until("everything searchable", lambda: rig.alice.search("in:swarm0").total >= played.rows, seconds=600, every=0.5)
    hub, agent = (psutil.Process(one.pid).memory_info().rss / MIB for one in (rig.federation.hub, rig.agent))
    return Figure(
        what="memory of an idle agent",
        unit="MiB",
        n=1,
        p50=rounded(agent),
        goal="agent <= 100 MB; hub with 1M objects <= 250 MB",
        scale={"hub MiB": rounded(hub), "objects": played.rows},
    )
