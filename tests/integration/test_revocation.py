"""Revoking is real: no request that begins after the receipt passes, with keys and links that are out."""

from __future__ import annotations

import http.client
import os
import threading
import time
from urllib.parse import urlsplit

import pytest

from bench.rig import Rig, fetch_key, s3
from deploy.running import until
from protocol.grants import Permission, ReceiptState

ROUNDS = 5000 if os.environ.get("WIO_SOAK") else 200
FORBIDDEN = 403


class Hammer:
    """Sends one signed GET again and again; notes when each request began and what came of it."""

    def __init__(self, link: str) -> None:
        self._link = urlsplit(link)
        self._ended = threading.Event()
        self.answers: list[tuple[float, int]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._link.hostname or "", self._link.port, timeout=10)
        while not self._ended.is_set():
            began = time.monotonic()
            connection.request("GET", f"{self._link.path}?{self._link.query}")
            answer = connection.getresponse()
            answer.read()
            self.answers.append((began, answer.status))
        connection.close()

    def end(self) -> list[tuple[float, int]]:
        self._ended.set()
        self._thread.join(30)
        return self.answers


@pytest.mark.soak
@pytest.mark.timeout(7200 if os.environ.get("WIO_SOAK") else 300)
def test_of_200_shares_and_revocations_no_request_begun_after_the_receipt_passes(rig: Rig) -> None:
    workspace = rig.alice.create_workspace("hammered")
    rig.root_client().put_object(Bucket=workspace.bucket, Key=workspace.prefix + "file", Body=b"x" * 100)
    wrong: list[str] = []
    passes = 0
    for number in range(ROUNDS):
        rig.alice.share("hammered", "bob", Permission.READ)
        key, opened = fetch_key(rig.bob, "alice/hammered")
        client, place = s3(key), opened.opens[0]
        target = {"Bucket": place.bucket, "Key": place.prefix + "file"}
        assert client.get_object(**target)["ResponseMetadata"]["HTTPStatusCode"] == 200
        # A header-signed key and a presigned link are checked by the same code path of ours and by two of the server's.
        link = client.generate_presigned_url("get_object", Params=target, ExpiresIn=600)
        hammers = [Hammer(link), Hammer(link)]
        until("both hammers at work", lambda hammers=hammers: all(hammer.answers for hammer in hammers), every=0.001)
        change = rig.alice.unshare("hammered", "bob")
        proven = time.monotonic()
        assert [receipt.state for receipt in change.receipts] == [ReceiptState.ENFORCED]
        with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
            client.get_object(**target)
        for hammer in hammers:
            answers = hammer.end()
            assert {status for _, status in answers} <= {200, FORBIDDEN}
            wrong += [f"round {number}: the link passed" for began, status in answers if began > proven and status == 200]
            passes += sum(status == 200 for _, status in answers)
    assert wrong == []
    assert passes > ROUNDS
