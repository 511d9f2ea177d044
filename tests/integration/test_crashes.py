"""Whatever is killed, and whenever: afterwards the catalogue equals the bucket."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from bench.b3 import fill
from bench.rig import NODE, Rig
from deploy.running import Program, until
from protocol.errors import WioError
from protocol.messages import ScanState
from tests.integration.conftest import Catalogue

OBJECTS = 20_000
KILLS = 60 if os.environ.get("WIO_SOAK") else 10
SEED = int(os.environ.get("WIO_SEED", "20261124"))
"""Printed by pytest when a run fails; set WIO_SEED to look for other moments."""


def quietly(ask: Callable[[], bool]) -> Callable[[], bool]:
    """Return the question, answered no while the hub is away."""

    def asked() -> bool:
        try:
            return ask()
        except WioError:
            return False

    return asked


@pytest.mark.soak
@pytest.mark.timeout(3600 if os.environ.get("WIO_SOAK") else 400)
def test_sigkill_of_hub_or_agent_at_random_during_an_import_loses_nothing_and_doubles_nothing(rig: Rig) -> None:
    chance = random.Random(SEED)  # noqa: S311 - repeatable on purpose
    fill(rig, "crashing", OBJECTS)
    catalogue = Catalogue(rig, "crashing", "crashing")
    catalogue.create()
    rig.alice.scan(NODE, "crashing")
    killed = 0
    seen = 0
    for _ in range(KILLS):
        # Not at the same stage every time: let it get on by a random share of what is left, or as far as it comes.
        goal = seen + chance.randrange(1, max(2, (OBJECTS - seen) // 3))
        end = time.monotonic() + 20

        def came_so_far(goal: int = goal, end: float = end) -> bool:
            nonlocal seen
            seen = len(catalogue.catalogued())
            return seen >= goal or time.monotonic() > end

        until("the import gets on", came_so_far, seconds=30, every=0.01)
        victim: Program = chance.choice([rig.federation.hub, rig.agent])
        victim.kill()
        killed += 1
        victim.start()
    assert killed == KILLS
    until(
        "the import is done",
        quietly(
            lambda: (
                rig.alice.scan_status(NODE, "crashing").state is ScanState.DONE
                and rig.alice.root(NODE, "crashing").objects == OBJECTS
            )
        ),
        seconds=120,
    )
    catalogue.check()
    until(
        "everything is searchable",
        quietly(lambda: rig.alice.scan_status(NODE, "crashing").searchable == OBJECTS),
        seconds=60,
    )


def test_after_the_agents_state_of_the_index_is_lost_the_catalogue_equals_the_bucket_again(rig: Rig) -> None:
    fill(rig, "forgotten", 3000)
    catalogue = Catalogue(rig, "forgotten", "forgotten")
    catalogue.create()
    rig.alice.scan(NODE, "forgotten")
    until("imported", quietly(lambda: rig.alice.root(NODE, "forgotten").objects == 3000), seconds=60)
    rig.agent.kill()
    for file in rig.agent.state.glob("index.sqlite*"):
        file.unlink()
    client = rig.root_client()
    client.put_object(Bucket="forgotten", Key="while-it-was-away.txt", Body=b"new")
    client.delete_object(Bucket="forgotten", Key=sorted(catalogue.stored())[10])
    rig.agent.start()

    def settled() -> bool:
        stored = catalogue.stored()
        return {key: (size, etag) for key, size, etag in catalogue.catalogued()} == stored

    until("the catalogue equals the bucket", settled, seconds=60, every=0.2)
    until("the totals agree", quietly(lambda: rig.alice.root(NODE, "forgotten").objects == 3000), seconds=30)
    catalogue.check()
