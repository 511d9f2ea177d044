"""A storage server whose listing lies: nothing is taken to be gone on its word, and the truth comes back with it."""

from __future__ import annotations

from typing import Final

import pytest

from deploy.running import until
from protocol.messages import ScanState
from tests.faults.lying import Lie
from tests.faults.runner import FIRST, SEEDS, Stands
from tests.faults.stand import HEAL_S, NODE, Place, Stand, quietly

pytestmark = pytest.mark.real

OBJECTS: Final = 2100
"""Three pages."""
TAKEN: Final = frozenset({Lie.OTHER_SIZES, Lie.YEAR_AHEAD, Lie.YEAR_BEHIND, Lie.NO_ETAG})
"""Lies that nobody can see through: they stand in the catalogue until the next listing, but no key goes."""


@pytest.fixture(scope="module")
def place(stands: Stands) -> Place:
    return stands.get().place("lies", objects=OBJECTS)


@pytest.mark.parametrize("lie", Lie, ids=lambda lie: lie.name.lower().replace("_", "-"))
@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_whatever_a_listing_says_no_key_goes_that_is_there_and_the_truth_comes_back(
    stands: Stands, place: Place, lie: Lie, seed: int
) -> None:
    stand = stands.get()
    try:
        _lied_to(stand, place, lie, seed)
    except BaseException as error:
        error.add_note(f"{lie.name}, seed {seed}\n{stand.said()}")
        raise


def _lied_to(stand: Stand, place: Place, lie: Lie, seed: int) -> None:
    there = set(place.stored())
    before = stand.alice.scan_status(NODE, place.name).at
    told = stand.liar.told[lie]
    stand.liar.lie = lie
    place.scan()
    until("it has lied", lambda: stand.liar.told[lie] > told, seconds=HEAL_S)
    until("the scan is over, or given up for now", quietly(lambda: _over(stand, place, before, told, lie)), seconds=HEAL_S)
    assert {key for key, *_ in place.catalogued()} >= there
    # Ordinary life goes on meanwhile: what is put now is found, at the latest when the listing is honest again.
    client = stand.owner()
    for number in range(3):
        client.put_object(Bucket=place.name, Key=f"data/lied/{lie.name}-{seed}-{number}", Body=lie.value.encode())
    client.delete_object(Bucket=place.name, Key=sorted(there)[seed % len(there)])
    stand.liar.lie = None
    place.scan()
    place.settled()


def _over(stand: Stand, place: Place, before: int, told: int, lie: Lie) -> bool:
    status = stand.alice.scan_status(NODE, place.name)
    return (status.at > before and status.state is not ScanState.RUNNING) or stand.liar.told[lie] >= told + 8
