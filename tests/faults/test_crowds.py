"""Many at once: a flood of changes while the hub is away, many agents that come back at the same moment, two that are one."""

from __future__ import annotations

import random
import shutil
from typing import Final

import httpx
import pytest

from deploy.federation import Agent
from deploy.running import until
from tests.faults.crowd import FIRST_ID, Crowd, enrol
from tests.faults.runner import FIRST, SEEDS, SOAK, Run, Stands, played
from tests.faults.stand import start

pytestmark = pytest.mark.real

FLOOD: Final = 100_000 if SOAK else 10_000
AGENTS: Final = 1000 if SOAK else 50
CROWD_S: Final = 300 if SOAK else 90


def a_flood_while_the_hub_is_away(run: Run) -> None:
    """A change for each of these keys, twice: there, and gone again."""
    run.stand.to_hub.refuse()
    keys = run.place.fill(FLOOD, folder="flood")
    run.place.empty(keys[50:])
    run.stand.to_hub.heal()


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


@played([a_flood_while_the_hub_is_away, two_agents_are_one])
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
