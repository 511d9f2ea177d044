"""A person's own tools on the node's machine, the whole way: the hub vouches, goes away, and keys go on being made."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from bench.rig import Rig, s3
from deploy.federation import Federation
from deploy.running import until
from protocol.grants import Permission, ReceiptState
from protocol.sealing import ClearCredential

pytestmark = pytest.mark.real


def post(rig: Rig, token: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(  # noqa: S310 - an address on loopback that the test made
        f"{rig.federation.hub.url}/api/v1{path}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - see above
        return json.loads(answer.read())


class Machine:
    """The node's machine as bob's tools see it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.address = ""
        self.find()
        token = rig.federation.person("bob").token
        self.issued = post(rig, token, "/assertions", {"node": "lab3", "life_s": 7200})

    def find(self) -> None:
        """Wait until the agent says where it gives keys."""

        def said() -> bool:
            status = self.rig.agent.ask("status", "--json")
            self.address = status.json["endpoint"] if status.code == 0 else ""
            return bool(self.address)

        until("the agent gives keys", said)

    def key(self) -> ClearCredential | int:
        """Ask as an SDK does; return a key, or the status of the refusal."""
        request = urllib.request.Request(self.address, headers={"Authorization": self.issued["assertion"]})  # noqa: S310 - see above
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - see above
                got = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code
        return ClearCredential(got["AccessKeyId"], got["SecretAccessKey"], got["Token"], 0, self.rig.server.url, "us-east-1")


def reads(key: ClearCredential | int, target: dict[str, str]) -> bool:
    assert isinstance(key, ClearCredential)
    client = s3(key)
    try:
        client.get_object(**target)
    except client.exceptions.ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
            raise
        return False
    finally:
        client.close()
    return True


def test_keys_are_made_while_the_hub_is_away_and_obey_it_when_it_is_back(new_federation: Callable[..., Federation]) -> None:
    rig = Rig(new_federation())
    try:
        workspace = rig.alice.create_workspace("scans")
        target = {"Bucket": workspace.bucket, "Key": f"{workspace.prefix}a.txt"}
        rig.root_client().put_object(**target, Body=b"body")
        rig.alice.share("scans", "bob", Permission.READ)
        rig.federation.person("bob").wio("creds", "alice/scans", "--format", "env").good()
        machine = Machine(rig)
        assert reads(machine.key(), target)

        rig.federation.hub.stop()
        key = machine.key()
        assert reads(key, target), "the hub is away"
        rig.agent.stop()
        rig.agent.start()
        machine.find()
        assert reads(machine.key(), target), "and was away when the agent was started anew"

        rig.federation.hub.start()
        rig.federation.wait_online("lab3", rig.owner)
        change = rig.alice.unshare("scans", "bob")
        [receipt] = change.receipts
        assert receipt.state is ReceiptState.ENFORCED
        assert receipt.keys_out >= 3
        assert not reads(key, target)
        again = machine.key()
        assert again == 403 or not reads(again, target)

        rig.alice.share("scans", "bob", Permission.READ)
        rig.agent.ask("pause").good()
        assert machine.key() == 403
    finally:
        rig.close()


def test_what_the_ceiling_cuts_is_seen_on_the_hub_with_the_reason(new_federation: Callable[..., Federation]) -> None:
    rig = Rig(new_federation())
    try:
        rig.alice.create_workspace("scans")
        rig.alice.share("scans", "bob", Permission.READ)
        bob = rig.federation.person("bob")
        bob.wio("creds", "alice/scans", "--format", "env").good()
        (rig.agent.state / "ceiling.toml").write_text('people = ["alice"]\n')

        def node() -> Any:
            return rig.owner.wio("node", "show", "lab3", "--json").good().json

        until("the hub has the limits", lambda: "Only for alice." in node()["ceiling"], seconds=15)
        until("the hub has the reason", lambda: any("does not let “bob” in" in one for one in node()["warnings"]), seconds=15)
        refused = bob.wio("creds", "alice/scans", "--format", "env", "--json")
        assert refused.code != 0
        change = rig.alice.share("scans", "bob", Permission.WRITE)
        assert change.receipts[0].state is ReceiptState.REFUSED
        assert "does not let" in change.receipts[0].reason
    finally:
        rig.close()
