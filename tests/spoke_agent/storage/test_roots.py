"""Servers whose listings lie. Real HTTP on loopback."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from xml.sax.saxutils import escape

import pytest
from aiohttp import web

from protocol.errors import StorageRefused, StorageUnreachable
from protocol.messages import IndexLevel, RootConfig
from protocol.names import Layout
from spoke_agent.storage.admin import Admin
from spoke_agent.storage.connection import Connection
from spoke_agent.storage.roots import BORDERS, Roots
from spoke_agent.storage.s3 import S3
from spoke_agent.storage.sigv4 import Key

KEY = Key("access", "secret")
WHERE = RootConfig(1, "lab", "lab", "", Layout.PREFIX, IndexLevel.METADATA)


class Liar:
    """Answers each listing with the next of these pages, whatever was asked."""

    def __init__(self, pages: Sequence[Sequence[str]], folders: Sequence[str] = (), status: int = 200) -> None:
        self.pages = iter(pages)
        self.folders = folders
        self.status = status
        self.tokens: list[str] = []
        self._numbers = itertools.count()

    async def answer(self, request: web.Request) -> web.Response:
        if self.status != 200:
            return web.Response(status=self.status, text="<Error><Code>SlowDown</Code></Error>")
        self.tokens.append(request.query.get("continuation-token", ""))
        page = next(self.pages, None)
        more = "" if page is None else f"<NextContinuationToken>t&amp;{next(self._numbers)}</NextContinuationToken>"
        inside = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-24T10:15:00.5Z</LastModified><Size>1</Size></Contents>"
            for key in page or ()
        )
        inside += "".join(f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in self.folders)
        return web.Response(
            text='<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{inside}</ListBucketResult>"
        )


@asynccontextmanager
async def listing_of(liar: Liar) -> AsyncIterator[Roots]:
    app = web.Application()
    app.router.add_get("/{path:.*}", liar.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    connection = Connection(f"http://127.0.0.1:{runner.addresses[0][1]}", region="us-east-1", clock=lambda: 0)
    await connection.open()
    try:
        yield Roots(S3(connection, KEY), Admin(connection, KEY))
    finally:
        await connection.close()
        await runner.cleanup()


async def scanned(roots: Roots, start_after: str = "") -> list[str]:
    return [entry.key async for page in roots.scan(WHERE, start_after=start_after) for entry in page]


@pytest.mark.parametrize(
    "pages",
    [
        [["b", "a"]],
        [["a", "a"]],
        [["a", "b"], ["b", "c"]],
        [["a"], ["a"]],
        [["b"], ["a"]],
        [["ünï", "zzz"]],
    ],
)
async def test_a_listing_that_repeats_itself_or_goes_backwards_is_refused(pages: list[list[str]]) -> None:
    async with listing_of(Liar(pages)) as roots:
        with pytest.raises(StorageRefused, match="out of order"):
            await scanned(roots)


async def test_a_listing_that_begins_before_where_it_was_asked_to_is_refused() -> None:
    async with listing_of(Liar([["a"]])) as roots:
        with pytest.raises(StorageRefused, match="out of order"):
            await scanned(roots, "b")


async def test_a_listing_that_shows_the_same_page_for_ever_ends() -> None:
    liar = Liar(list(itertools.repeat(["a", "b"], 1000)))
    async with listing_of(liar) as roots:
        with pytest.raises(StorageRefused, match="out of order"):
            await scanned(roots)
    assert len(liar.tokens) <= 3


async def test_empty_pages_on_the_way_are_passed_over_and_tokens_are_sent_back_as_they_came() -> None:
    liar = Liar([["a"], [], [], ["b & c"]])
    async with listing_of(liar) as roots:
        assert await scanned(roots) == ["a", "b & c"]
    assert liar.tokens == ["", "t&0", "t&1", "t&2", "t&3"]


async def test_a_server_that_is_too_busy_may_be_asked_again() -> None:
    async with listing_of(Liar([], status=503)) as roots:
        with pytest.raises(StorageUnreachable, match="too busy to list"):
            await scanned(roots)


async def test_a_thousand_folders_are_thinned_to_a_few_borders_in_order() -> None:
    folders = [f"f{n:04}/" for n in range(1000)]
    async with listing_of(Liar([], folders)) as roots:
        borders = await roots.ranges(WHERE)
    assert len(borders) <= BORDERS
    assert borders == sorted(borders)
    assert set(borders) <= set(folders)
