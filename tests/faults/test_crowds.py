"""Many at once: a flood of changes while the hub is away, many agents that come back at the same moment, two that are one."""

from __future__ import annotations

import logging
import random
import shutil
import threading
import time
from contextlib import suppress
from typing import Final, Self

import httpx
import psutil
import pytest

from deploy.federation import Agent
from deploy.running import Program, until
from spoke_agent.index.dirty import MAX_FOLDERS, MAX_KEYS
from spoke_agent.index.ledger import JOURNAL_ROWS
from tests.faults.crowd import FIRST_ID, Crowd, enrol
from tests.faults.runner import FIRST, SEEDS, SOAK, Run, Stands, played
from tests.faults.stand import start

pytestmark = pytest.mark.real

_log: Final = logging.getLogger(__name__)

FLOOD: Final = 100_000 if SOAK else 3_000
AGENTS: Final = 1000 if SOAK else 50
CROWD_S: Final = 300 if SOAK else 90
AGENT_MEMORY: Final = 150 << 20
"""By how much it may grow over a flood: what waits, waits on disk. 87 MiB at 100,000 changes twice (measured)."""
HUB_MEMORY: Final = 400 << 20
"""The same for the hub: 237 MiB (measured)."""
WAITED_S: Final = 20.0
"""How long a change of grants may take behind a journal that the hub is slow to read."""
KEYS_LEFT: Final = 200
"""People work on meanwhile."""


def a_flood_while_the_hub_is_away(run: Run) -> None:
    """A change for each of these keys, twice: there, and gone again. All of it is in the journal before the hub is back."""
    stand = run.stand
    with Watched(stand.agent, stand.hub) as watched:
        stand.to_hub.refuse()
        keys = run.place.fill(FLOOD, folder="flood")
        stand.agent.ask("import", run.place.name).good()  # a person has it scanned: nobody waits for the hub with that
        assert _pending(run) >= FLOOD
        run.place.empty(keys[50:])
        until("they are seen to be gone", lambda: _looked(run), seconds=CROWD_S, every=0.2)
        pending = _pending(run)
        assert pending <= JOURNAL_ROWS
        began = time.monotonic()
        stand.to_hub.heal()
        stand.wait_online()
        until("the hub has all of it", lambda: _pending(run) < pending // 100, seconds=CROWD_S, every=0.05)
        took = time.monotonic() - began
    agent, hub = watched.grown
    _log.info("flood: %d rows in %.1f s; agent +%d MiB, hub +%d MiB", pending, took, agent >> 20, hub >> 20)
    assert agent < AGENT_MEMORY
    assert hub < HUB_MEMORY


def the_hub_reads_slowly(run: Run) -> None:
    """What the hub is slow to take waits on the agent's disk, and what people ask for does not wait behind it."""
    stand = run.stand
    with Watched(stand.agent, stand.hub) as watched:
        stand.to_hub.refuse()
        run.place.fill(FLOOD // 3, folder="slow")
        stand.agent.ask("import", run.place.name).good()
        stand.to_hub.heal()
        stand.to_hub.rate = FLOOD * 5 if SOAK else 30_000  # bytes a second: some seconds for what has gathered
        stand.wait_online()
        pending = _pending(run)
        began = time.monotonic()
        stand.reshare(run.chance)
        took = time.monotonic() - began
    agent, _ = watched.grown
    _log.info("slow reader: %d rows wait, a grant took %.1f s; agent +%d MiB", pending, took, agent >> 20)
    assert pending, "it was not slow"
    assert took < WAITED_S
    assert agent < AGENT_MEMORY
    stand.to_hub.heal()


def _pending(run: Run) -> int:
    [[pending]] = run.stand.agent_rows("SELECT sequence - acknowledged FROM state")
    return int(pending)


def _looked(run: Run) -> bool:
    """Whether the agent has nothing more to look at; what it has is never more than it has room for."""
    dirty = int(run.stand.agent.ask("status", "--json").good().json["dirty"])
    assert dirty <= MAX_KEYS + MAX_FOLDERS
    [[root]] = run.stand.hub_rows("SELECT id FROM roots WHERE name = ?", run.place.name)
    [[known]] = run.stand.agent_rows("SELECT objects FROM root WHERE root = ?", root)
    return dirty < KEYS_LEFT and known < FLOOD // 2


class Watched:
    """How much memory programs have at most while this lasts, beyond what they had before."""

    def __init__(self, *programs: Program) -> None:
        self._processes = [psutil.Process(one.pid) for one in programs]
        self._before = [one.memory_info().rss for one in self._processes]
        self._most = list(self._before)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            with suppress(psutil.NoSuchProcess):
                self._most = [max(at, one.memory_info().rss) for at, one in zip(self._most, self._processes, strict=True)]

    @property
    def grown(self) -> list[int]:
        """By how many bytes each of them grew."""
        return [most - before for most, before in zip(self._most, self._before, strict=True)]


def two_agents_are_one(run: Run) -> None:
    """Somebody has copied an agent with its key, and both run."""
    stand = run.stand
    stand.agent.stop()
    twin = Agent("twin", stand.folder / f"twin-{run.place.name}")
    shutil.copytree(stand.agent.state, twin.state, symlinks=True)
    start(stand.agent)
    try:
        start(twin)
        until("each has pushed the other out", lambda: "replaces the first" in stand.hub.tail(200), seconds=60)
        run.work.more(60)
    finally:
        twin.kill() if run.chance.random() < 0.5 else twin.stop()
    # Whoever was pushed out waits up to a minute before it tries again: its owner starts it anew.
    stand.agent.stop()


@played([a_flood_while_the_hub_is_away, the_hub_reads_slowly, two_agents_are_one])
def test_however_many_come_at_once_the_catalogue_equals_the_bucket_afterwards(
    stands: Stands, scenario: object, seed: int
) -> None:
    stands.play(scenario, seed)  # type: ignore[arg-type]  # pytest's parameters have no types


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_agents_that_all_come_back_at_once_have_told_everything_once(stands: Stands, seed: int) -> None:
    stand = stands.get()
    database = stand.hub.data / "hub.sqlite"
    if not stand.hub_rows("SELECT 1 FROM nodes WHERE id = ?", FIRST_ID):
        enrol(database, AGENTS)
    for table, column in (("entries", "root_id"), ("journals", "node_id")):
        stand.hub_write(f"DELETE FROM {table} WHERE {column} >= ? AND {column} < ?", FIRST_ID, FIRST_ID + AGENTS)  # noqa: S608 - two names of ours
    stand.hub_write(
        "UPDATE roots SET objects = 0, bytes = 0, digest = 0, generation = 0 WHERE id >= ? AND id < ?",
        FIRST_ID,
        FIRST_ID + AGENTS,
    )
    chance = random.Random(f"crowd-{seed}")  # noqa: S311 - repeatable on purpose
    hub_key = str(httpx.get(f"{stand.hub.url}/api/v1/hub").json()["key"])
    crowd = Crowd(AGENTS, stand.to_hub.url, hub_key, chance)

    def happens(crowd: Crowd) -> None:
        until("everybody is connected", lambda: crowd.connected == AGENTS, seconds=CROWD_S)
        for _ in range(2):
            crowd.write(15)
            stand.to_hub.cut_all()
            crowd.write(15)
            stand.to_hub.refuse()
            stand.to_hub.heal()

    crowd.live(happens, seconds=2 * CROWD_S)
    assert sum(member.sessions for member in crowd.members) > AGENTS
    rows = stand.hub_rows("SELECT id, objects, digest FROM roots WHERE id >= ? AND id < ?", FIRST_ID, FIRST_ID + AGENTS)
    assert {root: (objects, digest) for root, objects, digest in rows} == {
        member.id: (member.objects, member.digest) for member in crowd.members
    }
    stand.wait_online()
