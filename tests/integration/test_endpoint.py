"""A person's own tools on the node's machine, the whole way: the hub vouches, goes away, and keys go on being made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
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


READS = """
import sys, boto3
from botocore.config import Config
client = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1", config=Config(s3={"addressing_style": "path"}))
print(client.get_object(Bucket=sys.argv[2], Key=sys.argv[3])["Body"].read().decode())
"""


def test_a_tool_gets_its_keys_by_itself_once_its_person_is_vouched_for(new_federation: Callable[..., Federation]) -> None:
    rig = Rig(new_federation())
    try:
        workspace = rig.alice.create_workspace("scans")
        rig.root_client().put_object(Bucket=workspace.bucket, Key=f"{workspace.prefix}a.txt", Body=b"body")
        rig.alice.share("scans", "bob", Permission.READ)
        bob = rig.federation.person("bob")
        early = bob.wio("vouch", "lab3")
        assert early.code == 4, "a node vouches for nobody it has never seen"
        assert "Ask for a key there once" in early.err
        assert not (bob.folder / "vouched" / "lab3").exists()
        bob.wio("creds", "alice/scans", "--format", "env").good()
        endpoint = rig.agent.ask("status", "--json").good().json["endpoint"]
        told = bob.wio("vouch", "lab3", "--ttl", "1h", "--endpoint", endpoint, "--json").good().json
        assert Path(told["file"]).stat().st_mode & 0o777 == 0o600

        rig.federation.hub.stop()
        variables = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": told["file"],
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        said = subprocess.run(
            [sys.executable, "-c", READS, rig.server.url, workspace.bucket, f"{workspace.prefix}a.txt"],
            env=clean | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert said.stdout == "body\n", said.stderr
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
