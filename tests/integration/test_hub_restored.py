"""An operator ends an account, or puts the hub back from its backup: what real keys on a real node can do then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.rig import Rig, fetch_key, s3
from deploy.federation import BIN, run
from deploy.running import until
from protocol.errors import NotAllowed
from protocol.grants import Permission
from wio.client import Client

pytestmark = pytest.mark.real


def hub(rig: Rig, *words: str, data: Path | None = None) -> Any:
    return run([BIN / "wio-hub", *words], {"WIO_DATA": str(data or rig.federation.hub.data), "COLUMNS": "120"})


def test_keys_of_somebody_who_is_disabled_open_nothing_of_theirs_any_more(rig: Rig) -> None:
    made = rig.alice.create_workspace("theirs")
    rig.root_client().put_object(Bucket=made.bucket, Key=made.prefix + "file", Body=b"x")
    dave = Client(rig.federation.hub.url, rig.federation.person("dave").token)
    rig.alice.share("theirs", "dave", Permission.WRITE)
    key, place = fetch_key(dave, "alice/theirs")
    where = {"Bucket": place.opens[0].bucket, "Key": place.opens[0].prefix + "file"}
    assert s3(key).get_object(**where)["Body"].read() == b"x"

    done = hub(rig, "user", "disable", "dave")
    assert done.code == 0, done.err
    assert "enforced on lab3" in done.out
    with pytest.raises(s3(key).exceptions.ClientError, match="AccessDenied"):
        s3(key).get_object(**where)
    assert hub(rig, "user", "enable", "dave").code == 0
    until("the key opens again", lambda: _opens(key, where), seconds=15)
    dave.close()


def test_what_was_taken_back_since_the_backup_stays_taken_back_until_the_owner_confirms(rig: Rig, tmp_path: Path) -> None:
    server = rig.federation.hub
    for name in ("old", "taken"):
        made = rig.alice.create_workspace(name)
        rig.root_client().put_object(Bucket=made.bucket, Key=made.prefix + "file", Body=b"x")
    rig.alice.share("taken", "bob", Permission.READ)
    key, place = fetch_key(rig.bob, "alice/taken")
    where = {"Bucket": place.opens[0].bucket, "Key": place.opens[0].prefix + "file"}
    assert _opens(key, where)
    file = tmp_path / "hub.tar"
    assert hub(rig, "backup", str(file)).code == 0
    rig.alice.unshare("taken", "bob")
    assert not _opens(key, where)

    server.stop()
    server.data.rename(tmp_path / "lost")
    done = hub(rig, "restore", str(file))
    assert done.code == 0, done.err
    assert "wio node confirm lab3" in done.out
    server.start()
    until("the node is back", lambda: rig.alice.node("lab3").state == "online", seconds=30)
    assert [share.who for share in rig.alice.shares("taken")] == ["bob"], "the backup still knows of it"
    assert not _opens(key, where)
    with pytest.raises(NotAllowed):
        fetch_key(rig.bob, "alice/taken")
    assert any("wio node confirm lab3" in told for told in rig.alice.node("lab3").warnings)
    rig.alice.unshare("taken", "bob")
    rig.alice.confirm_node("lab3")
    assert not _opens(key, where)
    again, opened = fetch_key(rig.alice, "old")
    assert _opens(again, {"Bucket": opened.opens[0].bucket, "Key": opened.opens[0].prefix + "file"})


def _opens(key: Any, where: dict[str, str]) -> bool:
    client = s3(key)
    try:
        client.get_object(**where)
    except client.exceptions.ClientError:
        return False
    return True
