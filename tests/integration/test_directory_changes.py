"""What happens on disk beside a real gateway, and what clients and the index see of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from protocol.grants import Permission
from protocol.messages import RootConfig
from spoke_agent.storage.node import Credential, Hint
from tests.integration.storage.conftest import DirectoryBench, directory_bench, grant, root

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DirectoryBench]:
    async with directory_bench(tmp_path_factory.mktemp("directory")) as it:
        yield it


class Place:
    """A bucket, the root that it is, and somebody who may write to all of it."""

    def __init__(self, bench: DirectoryBench, bucket: str, credential: Credential) -> None:
        self.bench = bench
        self.bucket = bucket
        self.root: RootConfig = root(bucket)
        self.top = bench.tree / bucket
        self.s3 = boto3.client(
            "s3",
            endpoint_url=bench.connection.url,
            region_name="us-east-1",
            aws_access_key_id=credential.access_key,
            aws_secret_access_key=credential.secret_key,
            config=Config(retries={"max_attempts": 1}, response_checksum_validation="when_supported"),
        )

    async def ask(self, method: str, **named: Any) -> Any:
        return await asyncio.to_thread(getattr(self.s3, method), Bucket=self.bucket, **named)

    async def body(self, key: str) -> bytes:
        def get() -> bytes:
            content: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            return content

        return await asyncio.to_thread(get)

    async def refused(self, method: str, **named: Any) -> str:
        with pytest.raises(ClientError) as error:
            await self.ask(method, **named)
        return str(error.value.response["Error"]["Code"])

    async def scanned(self) -> dict[str, int]:
        found = {}
        async for page in self.bench.node.scan(self.root):
            found |= {one.key: one.size for one in page}
        await self.bench.posix._tree.tended()
        return found


@pytest.fixture
async def place(bench: DirectoryBench) -> Place:
    bucket = await bench.bucket()
    _, credential = await bench.person(grant(bucket, "", Permission.WRITE))
    return Place(bench, bucket, credential)


# ------------------------------------------------------------------------------------------------ the etag traps


async def test_the_trap_is_there_a_file_from_outside_would_be_overwritten_silently(place: Place) -> None:
    """If this fails, the gateway has learnt it, and much of the sidecar's care is no longer needed."""
    (place.top / "foreign").write_bytes(b"precious")
    await place.ask("put_object", Key="foreign", Body=b"lost", IfNoneMatch="*")
    assert (place.top / "foreign").read_bytes() == b"lost"


async def test_a_file_from_outside_is_not_overwritten_by_one_who_wants_a_new_one(place: Place) -> None:
    (place.top / "d").mkdir()
    for name in ("one", "d/two"):
        (place.top / name).write_bytes(b"precious")
    await place.scanned()
    (place.top / "looked-at").write_bytes(b"precious")
    await place.bench.node.look(place.root, "looked-at")
    for name in ("one", "d/two", "looked-at"):
        assert await place.refused("put_object", Key=name, Body=b"lost", IfNoneMatch="*") == "PreconditionFailed"
        assert (place.top / name).read_bytes() == b"precious"
    (place.top / "one").unlink()
    await place.bench.node.look(place.root, "one")
    await place.ask("put_object", Key="one", Body=b"new", IfNoneMatch="*")
    assert (place.top / "one").read_bytes() == b"new"


async def test_a_file_from_outside_has_the_etag_of_the_index_and_conditions_on_it_work(place: Place) -> None:
    (place.top / "a").write_bytes(b"content")
    found = await place.bench.node.look(place.root, "a")
    assert found is not None
    assert (await place.ask("head_object", Key="a"))["ETag"] == f'"{found.etag}"'
    listed = await place.ask("list_objects_v2")
    assert listed["Contents"][0]["ETag"] == f'"{found.etag}"'
    assert await place.refused("put_object", Key="a", Body=b"x", IfMatch='"other"') == "PreconditionFailed"
    await place.ask("put_object", Key="a", Body=b"x", IfMatch=f'"{found.etag}"')


@pytest.mark.parametrize("looked_at", [True, False])
async def test_a_file_that_was_uploaded_and_edited_on_disk_can_be_read(place: Place, looked_at: bool) -> None:
    await place.ask("put_object", Key="d/a", Body=b"uploaded", ChecksumAlgorithm="SHA256")
    if looked_at:
        await place.bench.node.look(place.root, "d/a")
    etag = (await place.ask("head_object", Key="d/a"))["ETag"]
    await asyncio.sleep(0.01)  # the kernel's file times move in steps of some milliseconds
    (place.top / "d/a").write_bytes(b"edited on disk")
    if not looked_at:
        with pytest.raises(Exception, match="checksum"):  # the trap, as it is without the agent
            await place.body("d/a")
    await place.scanned()
    assert await place.body("d/a") == b"edited on disk"
    head = await place.ask("head_object", Key="d/a", ChecksumMode="ENABLED")
    assert head["ETag"] != etag
    assert "ChecksumSHA256" not in head


async def test_an_upload_that_nobody_edited_keeps_its_etag_and_checksum(place: Place) -> None:
    await place.ask("put_object", Key="a", Body=b"uploaded", ChecksumAlgorithm="SHA256")
    before = await place.ask("head_object", Key="a", ChecksumMode="ENABLED")
    for _ in range(2):
        await place.scanned()
        await place.bench.node.look(place.root, "a")
    after = await place.ask("head_object", Key="a", ChecksumMode="ENABLED")
    assert (after["ETag"], after["ChecksumSHA256"]) == (before["ETag"], before["ChecksumSHA256"])


async def test_a_multipart_upload_that_was_edited_on_disk_can_be_read(place: Place) -> None:
    part = os.urandom(5 * 1024 * 1024)
    upload = (await place.ask("create_multipart_upload", Key="big"))["UploadId"]
    parts = []
    for number in (1, 2):
        done = await place.ask("upload_part", Key="big", UploadId=upload, PartNumber=number, Body=part)
        parts.append({"PartNumber": number, "ETag": done["ETag"]})
    await place.ask("complete_multipart_upload", Key="big", UploadId=upload, MultipartUpload={"Parts": parts})
    await place.scanned()
    assert (await place.ask("head_object", Key="big"))["ETag"].endswith('-2"')
    with (place.top / "big").open("r+b") as file:
        file.truncate(100)
    await place.scanned()
    assert await place.body("big") == part[:100]


async def test_a_key_may_be_copied_between_buckets_of_one_node(bench: DirectoryBench, place: Place) -> None:
    """Without an access list in the sidecar the gateway answers with 500."""
    other = await bench.bucket()
    _, credential = await bench.person(grant(place.bucket), grant(other, "", Permission.WRITE))
    both = Place(bench, other, credential)
    (place.top / "a").write_bytes(b"content")
    await place.scanned()
    await both.ask("copy_object", Key="b", CopySource={"Bucket": place.bucket, "Key": "a"})
    assert (both.top / "b").read_bytes() == b"content"


async def test_what_the_gateway_leaves_in_a_tree_is_not_in_the_index_and_is_cleaned(place: Place) -> None:
    await place.ask("put_object", Key="a", Body=b"x")
    upload = (await place.ask("create_multipart_upload", Key="big"))["UploadId"]
    await place.ask("upload_part", Key="big", UploadId=upload, PartNumber=1, Body=b"part")
    assert await place.scanned() == {"a": 1}
    clean = place.bench.posix.sidecar.clean
    assert await asyncio.to_thread(clean, place.bucket, place.top, begun_before=time.time() - 60) == []
    assert len(await asyncio.to_thread(clean, place.bucket, place.top, begun_before=time.time() + 60)) >= 1
    assert sorted(one.name for one in place.top.iterdir() if one.name != ".sgwtmp") == ["a"]
    await place.ask("put_object", Key="b", Body=b"x")
    assert await place.scanned() == {"a": 1, "b": 1}


# ------------------------------------------------------------------------------------------------ hints beside S3


async def test_what_is_uploaded_and_what_is_written_on_disk_is_hinted_alike(place: Place) -> None:
    said: list[Hint] = []

    async def until(wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not wanted():  # noqa: ASYNC110 - what is waited for happens in another process
                await asyncio.sleep(0.02)

    def told(key: str) -> bool:
        return any(key.startswith(one.key) if one.folder else one.key == key for one in said)

    watching = asyncio.create_task(place.bench.node.watch(lambda: [place.root], said.append, lambda _: None))
    try:
        await until(lambda: place.bucket in place.bench.posix._watch.watching)
        await place.ask("put_object", Key="s3/a", Body=b"x")
        (place.top / "disk").write_bytes(b"x")
        await until(lambda: told("s3/a") and told("disk"))
        said.clear()
        await place.ask("put_object", Key="s3/a", Body=b"again")
        await place.ask("delete_object", Key="disk")
        await until(lambda: told("s3/a") and told("disk"))
        assert not any(".sgwtmp" in one.key for one in said)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_one_scan_and_the_gateways_listing_agree(place: Place) -> None:
    for number in range(50):
        path = place.top / f"d{number % 5}" / f"{number}.ä"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * number)
    (place.top / "link").symlink_to("d1/1.ä")
    listed = await place.ask("list_objects_v2")
    scanned = await place.scanned()
    assert sorted(scanned) == sorted(one["Key"] for one in listed["Contents"])
