"""Every way to change an object on a real server ends in a hint on the right key; and what no call shows, a scan finds."""

from __future__ import annotations

import asyncio
import contextlib
import io
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from deploy.running import Minio
from spoke_agent.storage.batching import MANY, SINGLE, Batching
from spoke_agent.storage.minio import MinioNode
from spoke_agent.storage.node import Hint

from .conftest import Bench, minio_bench, root

pytestmark = pytest.mark.real

IN = "in/"


@pytest.fixture(scope="module")
async def own(minio: Minio) -> AsyncIterator[Bench]:
    async with minio_bench(minio) as it:
        yield it


class Watched:
    """A bucket whose root ``in/`` is watched, an S3 client of its owner's, and what was hinted."""

    def __init__(self, bench: Bench, bucket: str, minio: Minio) -> None:
        self.bench = bench
        self.bucket = bucket
        self.hints: list[Hint] = []
        self.s3: Any = boto3.client(
            "s3",
            endpoint_url=minio.url,
            aws_access_key_id=minio.user,
            aws_secret_access_key=minio.password,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )

    async def do(self, call: Callable[[], object]) -> Any:
        return await asyncio.to_thread(call)

    async def hinted(self, *wanted: Hint, within_s: float = 10.0) -> None:
        async with asyncio.timeout(within_s):
            while not set(wanted) <= {Hint(hint.root, hint.key, hint.folder) for hint in self.hints}:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def watched(bench: Bench, minio: Minio) -> AsyncIterator[Watched]:
    made = Watched(bench, await bench.bucket(), minio)
    watching = asyncio.create_task(bench.node.watch(lambda: [root(made.bucket, IN)], made.hints.append, lambda _: None))
    try:
        await made.hinted(Hint(7, "", folder=True))
        made.hints.clear()
        yield made
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await made.do(made.s3.close)


def key(name: str) -> Hint:
    return Hint(7, name)


def _form(s3: Any, bucket: str, name: str) -> None:
    """Upload as a browser does, with a signed form."""
    import httpx  # noqa: PLC0415 - of this one request

    post = s3.generate_presigned_post(bucket, name)
    answer = httpx.post(post["url"], data=post["fields"], files={"file": b"from a form"}, trust_env=False)
    assert answer.is_success, answer.text


def _multipart(s3: Any, bucket: str, name: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key=name)["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key=name, UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    s3.complete_multipart_upload(Bucket=bucket, Key=name, UploadId=upload, MultipartUpload=parts)


def _extract(s3: Any, bucket: str, name: str) -> None:
    """Put an archive that the server unpacks."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for inner in ("one.txt", "deep/two.txt"):
            info = tarfile.TarInfo(inner)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))

    def unpack(params: dict[str, Any], **_: object) -> None:
        params["headers"]["X-Amz-Meta-Snowball-Auto-Extract"] = "true"

    s3.meta.events.register("before-call.s3.PutObject", unpack)
    try:
        s3.put_object(Bucket=bucket, Key=name, Body=packed.getvalue())
    finally:
        s3.meta.events.unregister("before-call.s3.PutObject", unpack)


def _versions(s3: Any, bucket: str, name: str) -> list[str]:
    found = s3.list_object_versions(Bucket=bucket, Prefix=name)
    return [one["VersionId"] for one in (*found.get("Versions", ()), *found.get("DeleteMarkers", ()))]


WAYS: dict[str, tuple[Callable[[Any, str], object], tuple[Hint, ...]]] = {
    "PutObject": (lambda s3, b: s3.put_object(Bucket=b, Key="in/a ü+%.txt", Body=b"1"), (key("a ü+%.txt"),)),
    "overwriting": (lambda s3, b: s3.put_object(Bucket=b, Key="in/a ü+%.txt", Body=b"2"), (key("a ü+%.txt"),)),
    "CopyObject": (
        lambda s3, b: s3.copy_object(Bucket=b, Key="in/target ü.txt", CopySource={"Bucket": b, "Key": "in/a ü+%.txt"}),
        (key("target ü.txt"),),
    ),
    "CopyObject from outside": (
        lambda s3, b: (
            s3.put_object(Bucket=b, Key="out/x", Body=b"1"),
            s3.copy_object(Bucket=b, Key="in/deep/er/x", CopySource={"Bucket": b, "Key": "out/x"}),
        ),
        (key("deep/er/x"),),
    ),
    "multipart": (lambda s3, b: _multipart(s3, b, "in/big.bin"), (key("big.bin"),)),
    "PutObjectTagging": (
        lambda s3, b: s3.put_object_tagging(
            Bucket=b, Key="in/big.bin", Tagging={"TagSet": [{"Key": "subject", "Value": "014"}]}
        ),
        (key("big.bin"),),
    ),
    "DeleteObjectTagging": (lambda s3, b: s3.delete_object_tagging(Bucket=b, Key="in/big.bin"), (key("big.bin"),)),
    "POST policy": (lambda s3, b: _form(s3, b, "in/form.txt"), (key("form.txt"),)),
    "PutObjectExtract": (lambda s3, b: _extract(s3, b, "in/packed.tar"), (Hint(7, "", folder=True),)),
    "DeleteObject": (lambda s3, b: s3.delete_object(Bucket=b, Key="in/big.bin"), (key("big.bin"),)),
    "DeleteMultipleObjects": (
        lambda s3, b: s3.delete_objects(
            Bucket=b, Delete={"Objects": [{"Key": f"in/many/{n:04} ü"} for n in range(1000)], "Quiet": True}
        ),
        tuple(key(f"many/{n:04} ü") for n in range(1000)),
    ),
}


async def test_every_call_that_changes_an_object_hints_at_its_key(own: Bench, minio: Minio) -> None:
    async with watched(own, minio) as it:
        for way, (act, wanted) in WAYS.items():
            it.hints.clear()
            await it.do(lambda act=act: act(it.s3, it.bucket))
            try:
                await it.hinted(*wanted)
            except TimeoutError:
                raise AssertionError(f"{way} hinted {it.hints[:5]}, not {wanted[:5]}") from None
            outside = [hint for hint in it.hints if hint.key.startswith(("in/", "out/"))]
            assert not outside, f"{way}: keys are the root's own"


async def test_deleting_and_removing_versions_hints_at_the_key(own: Bench, minio: Minio) -> None:
    async with watched(own, minio) as it:

        def versioned() -> None:
            it.s3.put_bucket_versioning(Bucket=it.bucket, VersioningConfiguration={"Status": "Enabled"})
            it.s3.put_object(Bucket=it.bucket, Key="in/v", Body=b"1")
            it.s3.put_object(Bucket=it.bucket, Key="in/v", Body=b"22")

        await it.do(versioned)
        await it.hinted(key("v"))
        it.hints.clear()
        await it.do(lambda: it.s3.delete_object(Bucket=it.bucket, Key="in/v"))
        await it.hinted(key("v"))
        assert await own.node.look(root(it.bucket, IN), "v") is None
        for _ in range(2):  # first the delete marker, which brings the object back; then its newest version
            it.hints.clear()
            newest = await it.do(lambda: _latest(it.s3, it.bucket, "in/v"))
            await it.do(lambda newest=newest: it.s3.delete_object(Bucket=it.bucket, Key="in/v", VersionId=newest))
            await it.hinted(key("v"))
            assert await own.node.look(root(it.bucket, IN), "v") is not None
        assert len(await it.do(lambda: _versions(it.s3, it.bucket, "in/v"))) == 1


def _latest(s3: Any, bucket: str, name: str) -> str:
    found = s3.list_object_versions(Bucket=bucket, Prefix=name)
    (latest,) = [one for one in (*found.get("Versions", ()), *found.get("DeleteMarkers", ())) if one["IsLatest"]]
    return str(latest["VersionId"])


async def test_moving_with_mc_hints_at_both_names(own: Bench, minio: Minio, mc: Path, tmp_path: Path) -> None:
    async with watched(own, minio) as it:
        await it.do(lambda: it.s3.put_object(Bucket=it.bucket, Key="in/old/name.txt", Body=b"1"))
        await it.hinted(key("old/name.txt"))
        it.hints.clear()
        host = minio.url.replace("http://", f"http://{minio.user}:{minio.password}@")
        places = [f"it/{it.bucket}/in/old/name.txt", f"it/{it.bucket}/in/new/name.txt"]
        await it.do(
            lambda: subprocess.run(
                [mc, "mv", *places],
                check=True,
                capture_output=True,
                env={"MC_HOST_it": host, "HOME": str(tmp_path)},
                timeout=30,
            )
        )
        await it.hinted(key("old/name.txt"), key("new/name.txt"))


class Beats:
    """``pause`` of a node: each beat waits until the test lets it pass."""

    def __init__(self) -> None:
        self.go = asyncio.Semaphore(0)
        self.passed = 0

    async def pause(self, _: float) -> None:
        self.passed += 1
        await self.go.acquire()


async def test_many_events_are_sent_together_few_one_by_one_and_everything_is_scanned_after_the_switch(
    minio: Minio,
) -> None:
    async with minio_bench(minio) as bench:
        assert isinstance(bench.node, MinioNode)
        beats = Beats()
        bench.node._pause = beats.pause
        stream = bench.node._stream
        stream.batching = Batching(busy=30, calm=5, calm_looks=1, keep_s=0)
        async with watched(bench, minio) as it:

            async def beat() -> None:
                """Let one beat pass, and wait until the next one begins: by then what the first had to do is done."""
                wanted = beats.passed + 1
                beats.go.release()
                async with asyncio.timeout(15):
                    while beats.passed < wanted:  # noqa: ASYNC110 - a stream's loop has no event
                        await asyncio.sleep(0.005)

            async def put(count: int, start: int) -> None:
                await asyncio.gather(*(bench.put(it.bucket, f"in/k{number}") for number in range(start, start + count)))

            await put(10, 0)
            await it.hinted(*(key(f"k{number}") for number in range(10)))
            await beat()
            await put(300, 10)
            await it.hinted(*(key(f"k{number}") for number in range(310)))
            assert not any(hint.folder for hint in it.hints)
            await beat()
            assert stream.batching.size == MANY
            assert Hint(7, "", folder=True) in it.hints, "what was lost over the switch, a scan finds"
            assert "batch_size=100" in await _setting(bench)
            it.hints.clear()
            await put(250, 1000)
            await it.hinted(*(key(f"k{number}") for number in range(1000, 1250)))
            await beat()
            await asyncio.sleep(0.5)  # time without events, which is what the rate is made of
            await beat()
            assert stream.batching.size == SINGLE
            assert Hint(7, "", folder=True) in it.hints
            assert "batch_size=1 " in await _setting(bench) + " "


async def _setting(bench: Bench) -> str:
    from spoke_agent.storage.admin import Admin  # noqa: PLC0415 - here alone
    from spoke_agent.storage.admin_cipher import decrypt  # noqa: PLC0415 - here alone

    assert isinstance(bench.node, MinioNode)
    reply = await Admin(bench.connection, bench.owner)._ask("GET", "get-config-kv", [("key", bench.node._naming.target)])
    text = decrypt(bench.owner.secret_key, reply.body)
    return (text if isinstance(text, str) else bytes(text).decode()).replace("\n", " ")
