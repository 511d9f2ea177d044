"""The S3 calls that the agent itself makes: listing, looking, buckets, and throwaway objects for probes."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Final, Self
from urllib.parse import unquote_plus

import msgspec
from lxml import etree

from protocol.errors import Conflict, NameTaken, NotAllowed, RootMissing, StorageRefused
from protocol.names import shown
from spoke_agent.storage.connection import Connection, Query, Reply, refusal
from spoke_agent.storage.node import Entry
from spoke_agent.storage.sigv4 import Key

PAGE: Final = 1000
"""Keys in one page of a listing: S3's own limit."""

EMPTY_PAGES: Final = 1000
"""Pages without one key, in a row, after which a listing is taken to be endless."""

NOT_FOUND: Final = 404
FORBIDDEN: Final = 403
PARTIAL: Final = 206
CHANGED: Final = 412
BEYOND: Final = 416
GONE: Final = frozenset({"NoSuchBucket", "NoSuchKey", "NotFound", ""})

_NS: Final = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_KEY, _MODIFIED, _SIZE, _ETAG = _NS + "Key", _NS + "LastModified", _NS + "Size", _NS + "ETag"
_CONTENTS = _NS + "Contents"
_TOKEN = re.compile(rb"<NextContinuationToken>([^<]{1,4096})</NextContinuationToken>")
_UNTRUNCATED = b"<IsTruncated>false</IsTruncated>"
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Page(msgspec.Struct, frozen=True):
    """One page of a listing. ``entries`` hold whole keys of the bucket; ``folders`` are common prefixes."""

    entries: list[Entry]
    folders: list[str]
    more: str
    """What continues the listing; empty at its end."""


class Bucket(msgspec.Struct, frozen=True):
    """A bucket and when it was made, in the server's own words."""

    name: str
    made: str


class Upload(msgspec.Struct, frozen=True):
    """A multipart upload that was begun at Unix microsecond ``begun`` and neither completed nor ended."""

    key: str
    id: str
    begun: int


class S3:
    """S3 as one key sees it."""

    def __init__(self, connection: Connection, key: Key) -> None:
        self._connection = connection
        self._key = key

    # -------------------------------------------------------------------------------------------------- listing

    async def pages(self, bucket: str, *, prefix: str = "", start_after: str = "") -> AsyncGenerator[list[Entry], None]:
        """List a bucket in order, without empty pages. The next page is under way while one is read.

        Raises RootMissing if the bucket is not there, StorageRefused for a listing without end.
        """
        query = _listing(prefix, start_after)
        reply = await self._list(bucket, query)
        empty = 0
        while empty < EMPTY_PAGES:
            more = _continues(reply.body)
            if not more:
                page = read_page(reply.body)
                if page.entries:
                    yield page.entries
                if not page.more:
                    return
                more = page.more
                reply = await self._list(bucket, [*query, ("continuation-token", more)])
            else:
                async with _Ahead(self._list(bucket, [*query, ("continuation-token", more)])) as ahead:
                    page = read_page(reply.body)
                    if page.entries:
                        yield page.entries
                    reply = await ahead.result()
            empty = 0 if page.entries else empty + 1
        raise StorageRefused(
            f"The storage server's listing of bucket {bucket} goes on for ever without an object in it.",
            todo="Nothing was changed by this. Check the server, and what stands between it and the agent.",
        )

    async def level(self, bucket: str, prefix: str, limit: int) -> tuple[list[str], bool]:
        """Return the folders right below ``prefix``, from at most ``limit`` pages, and whether those are all."""
        folders: list[str] = []
        query: Query = [*_listing(prefix, ""), ("delimiter", "/")]
        more = ""
        for _ in range(limit):
            page = read_page((await self._list(bucket, [*query, ("continuation-token", more)] if more else query)).body)
            folders += page.folders
            if not page.more:
                return folders, True
            more = page.more
        return folders, False

    async def find(self, bucket: str, key: str) -> Entry | None:
        """Look at one key through the listing, which has the time in milliseconds (HEAD has it in seconds).

        MinIO answers this very form (the key as prefix, one key) without listing when the key is there: 0.6 ms in a
        folder of 30,000. When it is not there the folder is listed: 14 to 50 ms in the same folder; see ``exists``.
        """
        query = [*_listing(key, "")[:2], ("max-keys", "1"), ("prefix", key)]
        page = read_page((await self._list(bucket, query)).body)
        return page.entries[0] if page.entries and page.entries[0].key == key else None

    async def exists(self, bucket: str, key: str) -> bool:
        """Say whether a key is there. Raises RootMissing if the bucket is not."""
        reply = await self._connection.ask(self._key, "HEAD", f"/{bucket}/{key}")
        if reply.status == NOT_FOUND:
            if reply.headers.get("x-minio-error-code", "NoSuchKey") == "NoSuchBucket":
                raise missing(bucket)
            return False
        if not reply.ok:
            raise refusal(reply, f"look at {shown(key)} in bucket {bucket}")
        return True

    async def _list(self, bucket: str, query: Query) -> Reply:
        reply = await self._connection.ask(self._key, "GET", f"/{bucket}", query)
        if reply.status == NOT_FOUND and reply.code == "NoSuchBucket":
            raise missing(bucket)
        if not reply.ok:
            raise refusal(reply, f"list bucket {bucket}")
        return reply

    # -------------------------------------------------------------------------------------------------- buckets

    async def buckets(self) -> list[Bucket]:
        """Return all buckets that this key may see, in order of their names."""
        reply = await self._connection.ask(self._key, "GET", "/")
        if not reply.ok:
            raise refusal(reply, "list its buckets")
        return [
            Bucket(node.findtext("{*}Name", ""), node.findtext("{*}CreationDate", ""))
            for node in parse(reply.body).iter(_NS + "Bucket")
        ]

    async def make_bucket(self, bucket: str) -> None:
        """Make a bucket; fine if this server's owner has it already. Raises NameTaken if somebody else has it."""
        reply = await self._connection.ask(self._key, "PUT", f"/{bucket}")
        if reply.ok or reply.code == "BucketAlreadyOwnedByYou":
            return
        if reply.code == "BucketAlreadyExists":
            raise NameTaken(f"Bucket {bucket} belongs to somebody else on this server.", todo="Choose another name.")
        raise refusal(reply, f"make bucket {bucket}")

    async def drop_bucket(self, bucket: str) -> None:
        """Delete an empty bucket; fine if it is not there."""
        reply = await self._connection.ask(self._key, "DELETE", f"/{bucket}")
        if not reply.ok and reply.status != NOT_FOUND:
            raise refusal(reply, f"delete bucket {bucket}")

    async def versioned(self, bucket: str) -> bool | None:
        """Say whether a bucket keeps old versions; None where the server does not say."""
        reply = await self._connection.ask(self._key, "GET", f"/{bucket}", [("versioning", "")])
        return parse(reply.body).findtext("{*}Status") == "Enabled" if reply.ok else None

    # -------------------------------------------------------------------------------------------------- uploads

    async def uploads(self, bucket: str) -> list[Upload]:
        """Return the multipart uploads of a bucket as the server lists them, in one page; none where the bucket is gone.

        Raises StorageRefused for an answer that cannot be read.
        """
        reply = await self._connection.ask(self._key, "GET", f"/{bucket}", [("uploads", ""), ("encoding-type", "url")])
        if reply.status == NOT_FOUND:
            return []
        if not reply.ok:
            raise refusal(reply, f"list the uploads in bucket {bucket}")
        return read_uploads(reply.body)

    async def end_upload(self, bucket: str, upload: Upload) -> None:
        """End a multipart upload and free what its parts take; fine if it is over already."""
        reply = await self._connection.ask(self._key, "DELETE", f"/{bucket}/{upload.key}", [("uploadId", upload.id)])
        if not reply.ok and reply.status != NOT_FOUND:
            raise refusal(reply, f"end an upload to {shown(upload.key)} in bucket {bucket}")

    # -------------------------------------------------------------------------------------------------- objects

    async def put(self, bucket: str, key: str, body: bytes) -> None:
        """Write a small object."""
        reply = await self._connection.ask(self._key, "PUT", f"/{bucket}/{key}", body=body)
        if not reply.ok:
            raise refusal(reply, f"write {shown(key)} in bucket {bucket}")

    async def get(self, bucket: str, key: str, first: int = 0, last: int = 1024 * 1024 - 1) -> bytes:
        """Read bytes ``first`` to ``last`` of an object."""
        reply = await self._connection.ask(self._key, "GET", f"/{bucket}/{key}", headers={"range": f"bytes={first}-{last}"})
        if not reply.ok:
            raise refusal(reply, f"read {shown(key)} in bucket {bucket}")
        return reply.body

    async def read(self, bucket: str, key: str, etag: str, start: int, length: int) -> bytes:
        """Read ``length`` bytes from byte ``start`` on of the object with this etag; fewer where it ends before.

        Raises Conflict where it is another one by now or gone, NotAllowed where this key may not read it, RootMissing,
        StorageRefused for more bytes than were asked for.
        """
        if length <= 0:
            return b""
        headers = {"range": f"bytes={start}-{start + length - 1}"}
        if etag:
            headers["if-match"] = f'"{etag}"'
        reply = await self._connection.ask(self._key, "GET", f"/{bucket}/{key}", headers=headers)
        if reply.status == BEYOND:
            return b""
        self._check_read(reply, bucket, key, f"read {shown(key)} in bucket {bucket}")
        # A server that does not know ranges answers with the whole object.
        return reply.body if reply.status == PARTIAL else reply.body[start : start + length]

    async def tags(self, bucket: str, key: str) -> dict[str, str]:
        """Return an object's tags; none where it is gone. Raises NotAllowed where this key may not see them, RootMissing."""
        reply = await self._connection.ask(self._key, "GET", f"/{bucket}/{key}", [("tagging", "")])
        if reply.status == NOT_FOUND and reply.code != "NoSuchBucket":
            return {}
        self._check_read(reply, bucket, key, f"show the tags of {shown(key)} in bucket {bucket}")
        return {tag.findtext("{*}Key", ""): tag.findtext("{*}Value", "") for tag in parse(reply.body).iter("{*}Tag")}

    @staticmethod
    def _check_read(reply: Reply, bucket: str, key: str, what: str) -> None:
        if reply.ok:
            return
        if reply.status == NOT_FOUND and reply.code == "NoSuchBucket":
            raise missing(bucket)
        if reply.status in {NOT_FOUND, CHANGED}:
            raise Conflict(f"{shown(key)} in bucket {bucket} is another object by now, or gone.")
        if reply.status == FORBIDDEN and reply.code == "AccessDenied":
            raise NotAllowed(
                f"The agent may not {what}: the storage server does not allow its user to.",
                todo="Run wio-agent join on this node once more: it gives the agent's user what it lacks.",
            )
        raise refusal(reply, what)

    async def delete(self, bucket: str, key: str) -> None:
        """Delete an object; fine if it is not there."""
        reply = await self._connection.ask(self._key, "DELETE", f"/{bucket}/{key}")
        if not reply.ok and reply.status != NOT_FOUND:
            raise refusal(reply, f"delete {shown(key)} in bucket {bucket}")

    async def status(
        self, method: str, path: str, query: Query = (), headers: dict[str, str] | None = None, body: bytes = b""
    ) -> int:
        """Return what the server answers to any request of this key: for probes."""
        return (await self._connection.ask(self._key, method, path, query, body, headers=headers)).status


def _listing(prefix: str, start_after: str) -> list[tuple[str, str]]:
    query = [("list-type", "2"), ("encoding-type", "url"), ("max-keys", str(PAGE)), ("prefix", prefix)]
    return [*query, ("start-after", start_after)] if start_after else query


def missing(bucket: str) -> RootMissing:
    """Return the error for a bucket that is not there."""
    return RootMissing(f"Bucket {bucket} is not there.", todo="Check its name, and that the server's disks are mounted.")


def _continues(body: bytes) -> str:
    """Find what continues a listing without parsing it; empty where that is not plain to see."""
    head = body[:16384]
    found = _TOKEN.search(head)
    if found is None or _UNTRUNCATED in head or b"&" in found.group(1):
        return ""
    return found.group(1).decode("ascii", "replace")


class _Ahead:
    """A request under way while something else is done; given up when that ends early."""

    def __init__(self, coroutine: Coroutine[Any, Any, Reply]) -> None:
        self._task = asyncio.create_task(coroutine)

    async def __aenter__(self) -> Self:
        return self

    async def result(self) -> Reply:
        return await self._task

    async def __aexit__(self, *_: object) -> None:
        if not self._task.done():
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def parse(body: bytes) -> etree._Element:
    """Read an XML answer: no entities, no network, no huge trees. Raises StorageRefused if it is none."""
    try:
        return etree.fromstring(body, etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, recover=False))
    except etree.XMLSyntaxError as error:
        raise StorageRefused("The storage server's answer cannot be read: it is not XML.") from error


def read_page(body: bytes) -> Page:
    """Read one page of ListObjectsV2 that was asked for with ``encoding-type=url``.

    Raises StorageRefused if it is not one, or holds a size or a time that cannot be.
    """
    root = parse(body)
    encoded = root.findtext("{*}EncodingType") == "url"
    entries: list[Entry] = []
    seconds: dict[str, int] = {}
    try:
        for node in root.iterchildren(_CONTENTS):
            key = modified = etag = ""
            size = -1
            for child in node:
                tag, text = child.tag, child.text or ""
                if tag == _KEY:
                    key = text
                elif tag == _MODIFIED:
                    modified = text
                elif tag == _SIZE:
                    size = int(text)
                elif tag == _ETAG:
                    etag = text.strip('"')
            if size < 0 or not key:
                raise ValueError  # noqa: TRY301 - one place says what a broken page is
            # unquoted only where it has to be: most keys are plain
            plain = unquote_plus(key, errors="strict") if encoded and ("%" in key or "+" in key) else key
            entries.append(Entry(plain, size, _nanoseconds(modified, seconds), etag[:200]))
    except (ValueError, OverflowError) as error:
        raise StorageRefused("The storage server's listing holds an object without a proper key, size or time.") from error
    folders = [node.findtext("{*}Prefix", "") for node in root.iterchildren(_NS + "CommonPrefixes")]
    truncated = root.findtext("{*}IsTruncated") == "true"
    more = root.findtext("{*}NextContinuationToken", "") if truncated else ""
    if truncated and not more:
        raise StorageRefused("The storage server's listing says that it goes on, but not how.")
    return Page(entries, [unquote_plus(folder) if encoded else folder for folder in folders], more)


def read_uploads(body: bytes) -> list[Upload]:
    """Read the answer of ListMultipartUploads. Raises StorageRefused if it is none."""
    root = parse(body)
    encoded = root.findtext("{*}EncodingType") == "url"
    seconds: dict[str, int] = {}
    try:
        found = [
            Upload(
                node.findtext("{*}Key", ""),
                node.findtext("{*}UploadId", ""),
                _nanoseconds(node.findtext("{*}Initiated", ""), seconds) // 1000,
            )
            for node in root.iterchildren(_NS + "Upload")
        ]
        if encoded:
            found = [msgspec.structs.replace(one, key=unquote_plus(one.key, errors="strict")) for one in found]
    except (ValueError, OverflowError) as error:
        raise StorageRefused("The storage server's list of uploads holds one without a proper key or time.") from error
    return [one for one in found if one.key and one.id]


def _nanoseconds(text: str, seconds: dict[str, int]) -> int:
    """Read ``2026-11-24T10:15:00.123Z`` exactly; ``seconds`` remembers whole seconds of this page."""
    whole, rest = text[:19], text[19:]
    known = seconds.get(whole)
    if known is None:
        known = seconds[whole] = int((dt.datetime.fromisoformat(whole + "+00:00") - _EPOCH).total_seconds())
    if not rest.endswith("Z") or (rest != "Z" and not rest.startswith(".")):
        raise ValueError(text[:30])
    fraction = rest[1:-1]
    return known * 1_000_000_000 + (int(fraction.ljust(9, "0")[:9]) if fraction else 0)
