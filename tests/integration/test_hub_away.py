"""The hub goes and comes back: people go on working, and nothing is lost."""

from __future__ import annotations

import time

from bench.rig import NODE, Rig, fetch_key, s3
from deploy.running import until
from protocol.api import NodeState
from protocol.grants import Permission, ReceiptState
from protocol.messages import ScanState
from tests.integration.conftest import Catalogue
from tests.integration.test_crashes import quietly


def test_keys_in_hand_keep_working_the_agent_is_back_within_5_s_and_nothing_is_lost(rig: Rig) -> None:
    client = rig.root_client()
    client.create_bucket(Bucket="away")
    catalogue = Catalogue(rig, "away", "away")
    catalogue.create()
    rig.alice.scan(NODE, "away")
    until("scanned", lambda: rig.alice.scan_status(NODE, "away").state is ScanState.DONE)
    rig.alice.create_workspace("going-on")
    key, opened = fetch_key(rig.alice, "going-on")
    mine, place = s3(key), opened.opens[0]

    rig.federation.hub.stop()
    for number in range(50):
        mine.put_object(Bucket=place.bucket, Key=f"{place.prefix}file-{number}", Body=b"written while the hub was away")
        client.put_object(Bucket="away", Key=f"file-{number}", Body=b"written while the hub was away")
    assert mine.get_object(Bucket=place.bucket, Key=f"{place.prefix}file-7")["Body"].read()
    rig.federation.hub.start()
    back = time.monotonic()
    until("the agent is back", quietly(lambda: rig.alice.node(NODE).state is NodeState.ONLINE), seconds=5)
    assert time.monotonic() - back < 5
    until("all is catalogued", lambda: len(catalogue.catalogued()) == 50, seconds=30)
    catalogue.check()
    until("all is found", quietly(lambda: rig.alice.search("file in:going-on").total == 50), seconds=30)


def test_what_is_revoked_while_the_node_is_offline_is_pending_and_enforced_first_thing_when_it_is_back(rig: Rig) -> None:
    workspace = rig.alice.create_workspace("patient")
    rig.root_client().put_object(Bucket=workspace.bucket, Key=workspace.prefix + "file", Body=b"x")
    rig.alice.share("patient", "bob", Permission.READ)
    key, opened = fetch_key(rig.bob, "alice/patient")
    client, place = s3(key), opened.opens[0]
    target = {"Bucket": place.bucket, "Key": place.prefix + "file"}
    rig.agent.stop()
    until("the hub has noticed", lambda: rig.alice.node(NODE).state is NodeState.OFFLINE, seconds=30)
    [receipt] = rig.alice.unshare("patient", "bob").receipts
    assert receipt.state is ReceiptState.PENDING
    assert receipt.exposure_s is not None
    assert 0 < receipt.exposure_s <= 3600 + 90  # the hub notes a key's end rounded up, at most by that much
    assert client.get_object(**target)["Body"].read() == b"x"  # said openly: until the node is back, the key works
    rig.agent.start()

    def refused() -> bool:
        try:
            client.get_object(**target)
        except client.exceptions.ClientError:
            return True
        return False

    until("the key is refused", refused, seconds=15)
