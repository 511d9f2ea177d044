"""A place over its quota, on a real MinIO: reading and taking away go on, adding does not, and nothing is left half done."""

from __future__ import annotations

import re

import pytest

from protocol.grants import Permission
from protocol.messages import GrantsApplied
from spoke_agent.access.access import UPLOAD_S
from spoke_agent.storage.node import Credential
from tests.integration.access.conftest import Real
from tests.spoke_agent.access.bench import BOB

pytestmark = pytest.mark.real


async def begin(real: Real, key: Credential, name: str) -> str:
    """Begin an upload and send a part of it; return its id."""
    begun = await real.ask(key, "POST", f"/{real.bucket}/{name}", [("uploads", "")])
    found = re.search(rb"<UploadId>([^<]+)<", begun.body)
    assert found is not None, begun
    upload = found.group(1).decode()
    part = await real.status(key, "PUT", f"/{real.bucket}/{name}", [("partNumber", "1"), ("uploadId", upload)], b"x" * 1000)
    assert part == 200
    return upload


async def test_over_its_quota_a_place_can_be_read_and_emptied_and_nothing_is_added(real: Real) -> None:
    await real.set(BOB, 1, real.grant("ws/", Permission.WRITE))
    key = await real.key(BOB, 1)
    at = f"/{real.bucket}/ws"
    for name in ("a.txt", "b.txt", "deep/c.txt"):
        assert await real.status(key, "PUT", f"{at}/{name}", (), b"body") == 200
    uploads = [await begin(real, key, f"ws/big{n}") for n in range(2)]

    over = await real.set(BOB, 2, real.grant("ws/", Permission.TIDY))
    assert isinstance(over, GrantsApplied)
    assert [(proof.what.split()[0], proof.status, proof.expected) for proof in over.proofs] == [("PUT", 403, True)]
    etag = (await real.ask(real.owner, "HEAD", f"{at}/a.txt")).headers["ETag"]
    complete = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    refused = {
        "a new object": await real.status(key, "PUT", f"{at}/new", (), b"x"),
        "an object written over": await real.status(key, "PUT", f"{at}/a.txt", (), b"x"),
        "a copy": await real.status(key, "PUT", f"{at}/copy", (), x_amz_copy_source=f"{at}/a.txt"),
        "an upload": await real.status(key, "POST", f"{at}/new", [("uploads", "")]),
        "a part": await real.status(key, "PUT", f"{at}/big0", [("partNumber", "2"), ("uploadId", uploads[0])], b"x"),
        "the end of an upload": await real.status(key, "POST", f"{at}/big0", [("uploadId", uploads[0])], complete.encode()),
        "an old version": await real.status(key, "PUT", f"{at}/a.txt", [("versionId", "null")], b"x"),
        "tags": await real.status(key, "PUT", f"{at}/a.txt", [("tagging", "")], b"<Tagging><TagSet></TagSet></Tagging>"),
        "an unpacked archive": await real.status(key, "PUT", f"{at}/t.tar", (), b"x", x_amz_meta_snowball_auto_extract="true"),
    }
    assert refused == dict.fromkeys(refused, 403)
    assert (await real.ask(key, "GET", f"{at}/a.txt")).body == b"body"
    assert await real.status(key, "GET", f"/{real.bucket}", [("list-type", "2"), ("prefix", "ws/")]) == 200
    assert await real.status(key, "DELETE", f"{at}/big1", [("uploadId", uploads[1])]) == 204
    assert await real.status(key, "DELETE", f"{at}/a.txt") == 204
    assert await real.status(key, "DELETE", f"{at}/deep/", (), x_minio_force_delete="true") == 204
    assert [entry.key async for page in real.admin.pages(real.bucket) for entry in page] == ["ws/b.txt"]

    under = await real.set(BOB, 3, real.grant("ws/", Permission.WRITE))
    assert isinstance(under, GrantsApplied)
    assert [(proof.what.split()[0], proof.status, proof.expected) for proof in under.proofs] == [("PUT", 404, True)]
    assert await real.status(key, "PUT", f"{at}/new", (), b"x") == 200


async def test_the_requests_that_prove_a_change_leave_nothing_behind(real: Real) -> None:
    await real.set(BOB, 1, real.grant("ws/"))
    key = await real.key(BOB, 1)
    for epoch, permission in enumerate((Permission.WRITE, Permission.TIDY, Permission.DROP, Permission.READ), 2):
        answer = await real.set(BOB, epoch, real.grant("ws/", permission))
        assert isinstance(answer, GrantsApplied)
        assert answer.proofs
        assert all(proof.expected for proof in answer.proofs), answer.proofs
    for permission in Permission:
        await real.opens(key, "ws/", permission)
    assert [page async for page in real.admin.pages(real.bucket)] == []
    assert await real.admin.uploads(real.bucket) == []


async def test_uploads_that_nobody_can_complete_any_more_are_ended_and_no_others(real: Real) -> None:
    await real.set(BOB, 1, real.grant("over/", Permission.WRITE), real.grant("under/", Permission.WRITE))
    key = await real.key(BOB, 1)
    for name in ("over/a ä+%.bin", "over/deep/b", "under/c"):
        await begin(real, key, name)
    real.ahead_s = UPLOAD_S + 10
    assert await real.access.tidy_once() == 0, "no quota is exceeded"
    await real.set(BOB, 2, real.grant("over/", Permission.TIDY), real.grant("under/", Permission.WRITE))
    real.ahead_s = 0
    assert await real.access.tidy_once() == 0, "they are young: the quota may be kept again in a moment"
    real.ahead_s = UPLOAD_S + 10
    assert await real.access.tidy_once() == 2
    assert [upload.key for upload in await real.admin.uploads(real.bucket)] == ["under/c"]
    assert await real.access.tidy_once() == 0
