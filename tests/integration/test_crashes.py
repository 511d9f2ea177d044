"""Whatever is killed, and whenever: afterwards the catalogue equals the bucket."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from bench.buckets import fill
from bench.rig import NODE, Rig
from deploy.running import Program, until
from protocol.errors import WioError
from protocol.messages import ScanState
from tests.integration.conftest import Catalogue

OBJECTS = 20_000
KILLS = 60 if os.environ.get("WIO_SOAK") else 10
MID_IMPORT = 4
"""Of ten kills, how many at least must have come while rows were missing: a fast import ends before the last ones."""
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
    seen = killed_on_the_way = 0
    for _ in range(KILLS):
        # Once rows come in again, a random moment later: in the middle of a batch as well as between two.
        until("the import gets on", lambda seen=seen: catalogue.counted() > min(seen, OBJECTS - 1), seconds=60, every=0.005)
        moment = time.monotonic() + chance.uniform(0, 0.08)
        until("a random moment", lambda moment=moment: time.monotonic() >= moment, every=0.001)
        victim: Program = chance.choice([rig.federation.hub, rig.agent])
        victim.kill()
        seen = catalogue.counted()
        killed_on_the_way += seen < OBJECTS
        victim.start()
    assert killed_on_the_way >= MID_IMPORT, "most kills came too late to mean anything"
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
