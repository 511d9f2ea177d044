"""The whole of it, running: a storage server is put back to its backup, and the agent sees to it by itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import pytest

from bench.rig import Rig, fetch_key, s3
from deploy.federation import Federation
from deploy.running import until
from protocol.grants import Permission, ReceiptState

pytestmark = pytest.mark.real

DEADLINE_S = 20.0
"""Two seconds until the agent looks, and what starting takes on a busy machine."""


def test_a_key_that_was_revoked_after_the_backup_dies_by_itself_soon_after_the_server_is_back(
    new_federation: Callable[..., Federation],
) -> None:
    rig = Rig(new_federation())
    try:
        workspace = rig.alice.create_workspace("scans")
        rig.root_client().put_object(Bucket=workspace.bucket, Key=f"{workspace.prefix}a.txt", Body=b"body")
        rig.alice.share("scans", "bob", Permission.READ)
        key, opened = fetch_key(rig.bob, "alice/scans")
        client = s3(key)
        target = {"Bucket": opened.opens[0].bucket, "Key": f"{opened.opens[0].prefix}a.txt"}

        def works() -> bool:
            try:
                client.get_object(**target)
            except client.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] not in {403, 503}:
                    raise
                return False
            return True

        assert works()
        config, kept = rig.server.data / ".minio.sys" / "config", rig.federation.folder / "kept"
        rig.server.stop()
        shutil.copytree(config, kept)
        rig.server.start()
        until("the agent has the server back", lambda: "connected" in rig.agent.ask("status").good().out)
        change = rig.alice.unshare("scans", "bob")
        until("revoked", lambda: not works(), seconds=30)
        assert {receipt.state for receipt in change.receipts} <= {ReceiptState.ENFORCED, ReceiptState.PENDING}

        rig.server.stop()
        shutil.rmtree(config)
        shutil.copytree(kept, config)
        rig.server.start()
        back = time.monotonic()
        until("dead again", lambda: not works(), seconds=DEADLINE_S)
        took = time.monotonic() - back
        for _ in range(20):
            assert not works(), "and stays dead"
        assert took < DEADLINE_S
    finally:
        rig.close()
