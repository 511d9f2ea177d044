"""Objects that a bucket's own lifecycle rules take away: nobody calls for it, and a scan finds it.

MinIO expires for real here. Days cannot be waited for, nor the machine's clock moved: the objects were written long ago, as a
server says of objects that it replicates from another one.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from deploy.running import until
from protocol.messages import ScanState
from tests.faults.runner import FIRST, SEEDS, Stands
from tests.faults.stand import HEAL_S, NODE, Place, Stand, quietly, start
from tests.faults.work import FOLDER

pytestmark = pytest.mark.real

OLD: Final = f"{FOLDER}old/"
OBJECTS: Final = 40
_RULE: Final = {"ID": "a day", "Status": "Enabled", "Filter": {"Prefix": OLD}, "Expiration": {"Days": 1}}


def _put_long_ago(stand: Stand, place: Place, objects: int) -> list[str]:
    client = stand.owner()
    client.meta.events.register("before-call.s3.PutObject", _long_ago)
    keys = [f"{OLD}file-{number:03}" for number in range(objects)]
    for key in keys:
        client.put_object(Bucket=place.name, Key=key, Body=key.encode())
    return keys


def _long_ago(params: dict[str, dict[str, str]], **_: object) -> None:
    params["headers"] |= {"X-Minio-Source-Mtime": "2020-01-01T00:00:00Z", "X-Minio-Source-Replication-Request": "true"}


def _expire(stand: Stand, place: Place) -> None:
    rules: Any = {"Rules": [_RULE]}
    stand.owner().put_bucket_lifecycle_configuration(Bucket=place.name, LifecycleConfiguration=rules)


@pytest.mark.parametrize("away", [False, True], ids=["while-it-watches", "while-it-is-away"])
@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_what_a_lifecycle_rule_takes_away_is_found_without_a_call_to_see(stands: Stands, away: bool, seed: int) -> None:
    stand = stands.get()
    try:
        _expired(stand, seed, away=away)
    except BaseException as error:
        error.add_note(stand.said())
        raise


def _expired(stand: Stand, seed: int, *, away: bool) -> None:
    place = stand.place("expiry", objects=30 + seed)
    old = _put_long_ago(stand, place, OBJECTS)
    place.settled()
    assert {key for key, *_ in place.catalogued()} >= set(old)
    assert {key: at for key, (_, at, _) in place.stored().items()}[old[0]] == 1_577_836_800 * 10**9
    if away:
        stand.agent.stop()
    _expire(stand, place)
    until("the server has let them go", lambda: not set(old) & set(place.stored()), seconds=HEAL_S)
    if away:
        start(stand.agent)  # whatever the server said of it meanwhile nobody heard
        stand.wait_online()
    else:
        place.scan()
    until("scanned", quietly(lambda: place.scan_state is ScanState.DONE and not set(old) & _known(place)), seconds=HEAL_S)
    place.settled()
    assert len(place.catalogued()) == 30 + seed
    stand.alice.retire_root(NODE, place.name)


def _known(place: Place) -> set[str]:
    return {key for key, *_ in place.catalogued()}
