"""On the real thing: how fresh is known and said, quiet hours hold, and a flood of changes ends in the same catalogue."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from bench.rig import Rig
from protocol.api import NodeState, RootView
from protocol.messages import RootActivity, ScanState
from wio.client import Client

pytestmark = pytest.mark.real


def until(holds: Callable[[], Any], within_s: float = 30.0) -> Any:
    end = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.05)
    return found


def view(client: Client, root: str) -> RootView:
    found = client.root("lab3", root).view
    assert found is not None
    return found


def test_a_flood_of_changes_is_told_of_as_behind_and_ends_in_the_same_catalogue(rig: Rig, catalogue: Any) -> None:
    s3 = rig.root_client()
    s3.create_bucket(Bucket="flood")
    it = catalogue(rig, "flood", "flood")
    it.create()
    until(lambda: view(rig.alice, "flood").scanned_at)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: s3.put_object(Bucket="flood", Key=f"d{n % 40}/f{n}", Body=b"x" * (1 + n % 7)), range(1500)))
    until(lambda: it.counted() == 1500, 60)
    until(lambda: (view(rig.alice, "flood").age_s or 99) < 10)
    it.check()
    (node,) = [one for one in rig.alice.nodes() if one.name == "lab3"]
    assert node.state is NodeState.ONLINE
    assert node.age_s is not None
    assert "lab3/flood" in {one.root for one in node.roots}
    assert rig.alice.alarms() == []


def test_in_quiet_hours_a_scan_waits_changes_do_not_and_a_person_may_insist(rig: Rig, catalogue: Any) -> None:
    s3 = rig.root_client()
    s3.create_bucket(Bucket="quiet")
    it = catalogue(rig, "quiet", "quiet")
    it.create()
    until(lambda: view(rig.alice, "quiet").scanned_at)
    now = datetime.now()  # noqa: DTZ005 - the node's own clock on the wall
    hours = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    changed = rig.alice.change_root("lab3", "quiet", quiet=hours, pace=5000)
    assert (changed.quiet, changed.pace) == (hours, 5000)
    s3.put_object(Bucket="quiet", Key="a", Body=b"x")
    until(lambda: it.counted() == 1)
    before = view(rig.alice, "quiet").scanned_at
    rig.alice.scan("lab3", "quiet")
    until(lambda: (view(rig.alice, "quiet").scanned_at or 0) > (before or 0))
    status = rig.alice.scan_status("lab3", "quiet")
    assert (status.state, status.objects) == (ScanState.DONE, 1)
    until(lambda: view(rig.alice, "quiet").activity is RootActivity.IDLE)
    due = view(rig.alice, "quiet").next_scan_at
    assert due is not None
    assert due > time.time_ns() // 1000 + 3600 * 1_000_000
