"""The connection between agent and hub, and between agent and storage, in every state a network has."""

from __future__ import annotations

from typing import Final

import pytest

from deploy.running import until
from tests.faults.runner import SOAK, Run, Scenario, Stands, played
from tests.faults.wire import Act, Trouble, Way

pytestmark = pytest.mark.real

HANDSHAKE: Final = 2
"""Frames of a handshake, each way."""


def _happened(run: Run, *, seconds: float = 30) -> None:
    until("what was armed has happened", lambda: run.stand.to_hub.armed == 0, seconds=seconds)


def cut_in_mid_frame(run: Run) -> None:
    for _ in range(3 if SOAK else 1):  # each time the agent waits twice as long before it connects
        run.stand.to_hub.arm(Trouble(Act.CUT, Way.UP, frames=run.chance.randrange(6), into=run.chance.random()))
        run.stand.to_hub.arm(Trouble(Act.CUT, Way.DOWN, frames=run.chance.randrange(6), into=run.chance.random()))
    _happened(run)


def cut_in_mid_batch(run: Run) -> None:
    run.stand.to_hub.refuse()
    run.place.fill(4000)  # some batches: each of what is armed needs frames of its own
    run.stand.to_hub.heal()
    for _ in range(2):
        run.stand.to_hub.arm(
            Trouble(Act.CUT, Way.UP, frames=run.chance.randrange(2), into=run.chance.uniform(0.05, 0.95), least=20_000)
        )
    _happened(run)


def a_byte_arrives_as_another(run: Run) -> None:
    """In a session: in a handshake it makes another hub, or another node, of it, and the agent waits a minute by its rules."""
    for way in (Way.UP, Way.DOWN):
        after = HANDSHAKE + run.chance.randrange(4)
        run.stand.to_hub.arm(Trouble(Act.CORRUPT, way, frames=after, into=run.chance.uniform(0.2, 0.9)))
        _happened(run)
        # Whoever reads it ends the session, so what comes next is a handshake.
        run.stand.wait_online()


def the_hub_is_silent_for_a_while(run: Run) -> None:
    run.stand.to_hub.silence()
    run.work.more(80)
    run.stand.to_hub.heal()


def the_hub_refuses_connections(run: Run) -> None:
    run.stand.to_hub.refuse()
    run.work.more(100)
    run.stand.reshare(run.chance)
    run.stand.to_hub.heal()


def the_line_is_slow(run: Run) -> None:
    run.stand.to_hub.rate, run.stand.to_hub.delay_s = 60_000, 0.05
    run.place.fill(2000 if SOAK else 1000)
    run.work.more(100 if SOAK else 40)
    run.stand.reshare(run.chance)


def the_way_to_storage_is_cut_again_and_again(run: Run) -> None:
    for _ in range(5):
        run.work.more(15)
        run.stand.to_storage.cut_all()


def storage_is_silent_for_a_while(run: Run) -> None:
    run.stand.to_storage.silence()
    run.work.more(80)
    run.stand.to_storage.heal()


def storage_refuses_connections(run: Run) -> None:
    run.stand.to_storage.refuse()
    run.work.more(80)
    run.stand.reshare(run.chance)
    run.stand.to_storage.heal()


@played(
    [
        cut_in_mid_frame,
        cut_in_mid_batch,
        a_byte_arrives_as_another,
        the_hub_is_silent_for_a_while,
        the_hub_refuses_connections,
        the_line_is_slow,
        the_way_to_storage_is_cut_again_and_again,
        storage_is_silent_for_a_while,
        storage_refuses_connections,
    ]
)
def test_whatever_a_connection_does_the_catalogue_equals_the_bucket_afterwards(
    stands: Stands, scenario: Scenario, seed: int
) -> None:
    stands.play(scenario, seed)
