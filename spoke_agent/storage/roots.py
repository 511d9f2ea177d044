"""Roots on a MinIO-family server: listing them in order, looking at single keys, telling whether they are themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from protocol.errors import RootMissing, StorageRefused
from protocol.messages import RootConfig
from protocol.names import SEPARATOR, Layout, Place, locate, shown
from spoke_agent.storage.admin import Admin
from spoke_agent.storage.listing import joined, order_of
from spoke_agent.storage.node import Entry
from spoke_agent.storage.s3 import S3

BORDERS: Final = 64
"""Prefixes that a root is cut into at most."""
DEEP: Final = 3
"""Levels gone down while there is only one folder, in search of something to cut at."""
LEVEL_PAGES: Final = 2
"""Pages read of one level: a folder of a million files is not listed to find out that it has no folders."""


class Roots:
    """Roots as the agent's own key sees them."""

    def __init__(self, s3: S3, admin: Admin) -> None:
        self._s3 = s3
        self._admin = admin
        self._absent = False
        """Whether the last key looked at was gone."""

    async def check_root(self, root: RootConfig) -> str:
        """Return the root's identity; raise RootMissing.

        With the prefix layout it is when the bucket was made. With the bucket layout buckets come and go: there it is the
        server's deployment, which is made anew when its disks are.
        """
        if root.layout is Layout.BUCKET:
            return f"deployment {(await self._admin.info()).deployment}"
        for bucket in await self._s3.buckets():
            if bucket.name == root.bucket:
                return f"made {bucket.made}"
        raise RootMissing(
            f"Bucket {root.bucket} is not there.", todo="Check its name, and that the server's disks are mounted."
        )

    async def scan(self, root: RootConfig, *, start_after: str = "", prefix: str = "") -> AsyncIterator[list[Entry]]:
        """List a root (or below ``prefix``) in order of the keys' UTF-8 bytes, a page at a time."""
        last = start_after
        async for page in self._pages(root, start_after, prefix):
            for entry in page:
                if entry.key <= last:
                    raise StorageRefused(
                        f"The storage server listed {shown(entry.key)} after {shown(last)}: its listing is out of order.",
                        todo="Check the server, and what stands between it and the agent.",
                    )
                last = entry.key
            yield page

    async def _pages(self, root: RootConfig, start_after: str, prefix: str) -> AsyncIterator[list[Entry]]:
        for bucket, front, behind in await self._parts(root):
            part = joined(front, behind, prefix, start_after)
            if part is None:
                continue
            pages = self._s3.pages(bucket, prefix=part.prefix, start_after=part.start_after)
            try:
                async for page in pages:
                    yield page if not front and not behind else [_renamed(entry, front, len(behind)) for entry in page]
            except RootMissing:
                if root.layout is Layout.PREFIX:
                    raise
                # A workspace's bucket that went away meanwhile is an empty part of its root.
            finally:
                await pages.aclose()

    async def _parts(self, root: RootConfig) -> list[tuple[str, str, str]]:
        """Return the root's buckets in order of its keys: bucket, what keys in the root begin with, what is cut off theirs."""
        if root.layout is Layout.PREFIX:
            return [(root.bucket, "", root.prefix)]
        start = root.bucket + SEPARATOR
        fronts = [bucket.name[len(start) :] for bucket in await self._s3.buckets() if bucket.name.startswith(start)]
        return [(start + front, front + "/", "") for front in sorted(fronts, key=order_of)]

    async def ranges(self, root: RootConfig, prefix: str = "") -> list[str]:
        """Return prefixes (in order) that split the root; [""] where there is no good split. At most a few requests."""
        if root.layout is Layout.BUCKET:
            fronts = [front for _, front, _ in await self._parts(root)]
            return _thinned([front for front in fronts if front.startswith(prefix)])
        top = prefix
        for _ in range(DEEP):
            folders, _ = await self._s3.level(root.bucket, root.prefix + top, LEVEL_PAGES)
            if len(folders) != 1:
                break
            top = folders[0][len(root.prefix) :]
        return _thinned(sorted(folder[len(root.prefix) :] for folder in folders))

    async def look(self, root: RootConfig, key: str) -> Entry | None:
        """Look at one key with the precision that ``scan`` has; None if it is not there.

        A hit costs one request that is as cheap as a HEAD. A miss costs a listing of its folder, so while keys turn out
        to be gone (a folder being deleted) a HEAD comes first.
        """
        place = locate(root.layout, root.bucket, root.prefix, key)
        if self._absent and not await self._there(root, place):
            return None
        try:
            entry = await self._s3.find(place.bucket, place.key)
        except RootMissing:
            if root.layout is Layout.PREFIX:
                raise
            entry = None
        self._absent = entry is None
        return None if entry is None else Entry(key, entry.size, entry.mtime, entry.etag)

    async def _there(self, root: RootConfig, place: Place) -> bool:
        try:
            return await self._s3.exists(place.bucket, place.key)
        except RootMissing:
            if root.layout is Layout.PREFIX:
                raise
            return False

    async def read(self, root: RootConfig, key: str, etag: str, start: int, length: int) -> bytes:
        """Read a piece of an object. Raises Conflict, NotAllowed."""
        place = locate(root.layout, root.bucket, root.prefix, key)
        return await self._s3.read(place.bucket, place.key, etag, start, length)

    async def tags(self, root: RootConfig, key: str) -> dict[str, str]:
        """Return an object's tags. Raises NotAllowed."""
        place = locate(root.layout, root.bucket, root.prefix, key)
        return await self._s3.tags(place.bucket, place.key)


def _renamed(entry: Entry, front: str, cut: int) -> Entry:
    return Entry(front + entry.key[cut:], entry.size, entry.mtime, entry.etag)


def _thinned(prefixes: list[str]) -> list[str]:
    """Return at most ``BORDERS`` of them, evenly chosen; [""] where fewer than two would split nothing."""
    if len(prefixes) < 2:  # noqa: PLR2004 - one prefix splits nothing
        return [""]
    step = -(-len(prefixes) // BORDERS)
    return prefixes[::step]
