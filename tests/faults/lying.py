"""A storage server that lies: an HTTP proxy before a real one, which tells the truth about everything but its listings.

Runs in a thread of its own and is stopped by its own handle. Requests go on byte for byte, so signatures hold; what is
changed is the answer to ListObjectsV2 (and, where a lie is about time, every answer's ``Date``).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Self

import aiohttp
from aiohttp import web
from lxml import etree
from yarl import URL

ANSWER_S: Final = 10.0
_NS: Final = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_YEAR: Final = dt.timedelta(days=365)
_BUSY: Final = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>Please reduce your rate</Message></Error>'
_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"})


class Lie(enum.Enum):
    """What it says that is not so."""

    OUT_OF_ORDER = "two keys of a page change places"
    REPEATED = "a key stands twice in a page"
    REPEATED_PAGE = "the same page again and again"
    OTHER_SIZES = "a size is another one each time it is listed"
    LEFT_OUT = "keys that are there are not listed"
    NOTHING = "the listing is empty"
    UNAVAILABLE = "503 to most requests"
    SLOW_DOWN = "503 SlowDown to most requests"
    ENDLESS = "there is always more, and it is always nothing"
    TORN = "the XML ends in the middle"
    YEAR_AHEAD = "times a year ahead"
    YEAR_BEHIND = "times a year ago"
    NO_ETAG = "no etags"


_BUSY_ONES: Final = frozenset({Lie.UNAVAILABLE, Lie.SLOW_DOWN})


class Liar:
    """Stands before ``http://127.0.0.1:target``; honest until ``lie`` is set."""

    def __init__(self, target: int, chance: random.Random) -> None:
        self.target = target
        self.port = 0
        self.lie: Lie | None = None
        self.told: Counter[Lie] = Counter()
        """How often each lie was told."""
        self.listings = 0
        self._chance = chance
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="liar", daemon=True)
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(ANSWER_S)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(ANSWER_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_S)
        self._loop.close()

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _answer(self, request: web.Request) -> web.Response:
        assert self._session is not None
        lie = self.lie
        listing = "list-type=2" in request.query_string and "max-keys=1&" not in request.query_string + "&"
        self.listings += listing
        if lie is not None and lie in _BUSY_ONES and self._chance.random() < 0.8:
            self.told[lie] += 1
            code = b"SlowDown" if lie is Lie.SLOW_DOWN else b"ServiceUnavailable"
            return web.Response(status=503, body=_BUSY % code, content_type="application/xml")
        asked = self._session.request(
            request.method,
            URL(f"http://127.0.0.1:{self.target}{request.raw_path}", encoded=True),
            headers=request.headers,
            data=await request.read() or None,
            allow_redirects=False,
        )
        try:
            async with asked as answer:
                body = await answer.read()
                headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
                if lie in {Lie.YEAR_AHEAD, Lie.YEAR_BEHIND} and "Date" in headers:
                    headers["Date"] = _other_year(headers["Date"], lie)
                if lie not in _BUSY_ONES and listing and answer.status == 200:
                    body = self._told(lie, body)
                return web.Response(status=answer.status, headers=headers, body=body)
        except aiohttp.ClientError:
            return web.Response(status=502)

    # -------------------------------------------------------------------------------------------------- lies

    def _told(self, lie: Lie | None, body: bytes) -> bytes:
        if lie is None:
            return body
        page = etree.fromstring(body)
        contents = page.findall(f"{_NS}Contents")
        needs, say = _LIES[lie]
        if len(contents) < needs:
            return body
        say(page, contents, self._chance)
        self.told[lie] += 1
        said = etree.tostring(page, xml_declaration=True, encoding="UTF-8")
        return said[: len(said) * 2 // 3] if lie is Lie.TORN else said


# ---------------------------------------------------------------------------------------------------- what each does to a page


def _nothing(page: Any, contents: list[Any], _: random.Random) -> None:
    for one in contents:
        page.remove(one)
    _more(page, "")


def _endless(page: Any, contents: list[Any], chance: random.Random) -> None:
    _nothing(page, contents, chance)
    _more(page, "b25lLW1vcmU=")


def _again(page: Any, _: list[Any], __: random.Random) -> None:
    _more(page, "b25lLW1vcmU=")


def _out_of_order(_: Any, contents: list[Any], chance: random.Random) -> None:
    contents[0].addprevious(chance.choice(contents[1:]))


def _repeated(_: Any, contents: list[Any], chance: random.Random) -> None:
    one = chance.choice(contents)
    one.addnext(etree.fromstring(etree.tostring(one)))


def _other_sizes(_: Any, contents: list[Any], chance: random.Random) -> None:
    for one in chance.sample(contents, min(5, len(contents))):
        one.find(f"{_NS}Size").text = str(chance.randrange(1 << 40))


def _left_out(page: Any, contents: list[Any], chance: random.Random) -> None:
    for one in chance.sample(contents, max(1, len(contents) // 3)):
        page.remove(one)


def _year(by: dt.timedelta) -> Callable[[Any, list[Any], random.Random], None]:
    def moved(_: Any, contents: list[Any], __: random.Random) -> None:
        for one in contents:
            at = one.find(f"{_NS}LastModified")
            then = dt.datetime.fromisoformat(at.text) + by
            at.text = then.strftime("%Y-%m-%dT%H:%M:%S.") + f"{then.microsecond // 1000:03}Z"

    return moved


def _no_etag(_: Any, contents: list[Any], __: random.Random) -> None:
    for one in contents:
        one.remove(one.find(f"{_NS}ETag"))


def _as_it_is(_: Any, __: list[Any], ___: random.Random) -> None:
    pass


_LIES: Final[dict[Lie, tuple[int, Callable[[Any, list[Any], random.Random], None]]]] = {
    Lie.OUT_OF_ORDER: (2, _out_of_order),
    Lie.REPEATED: (1, _repeated),
    Lie.REPEATED_PAGE: (1, _again),
    Lie.OTHER_SIZES: (1, _other_sizes),
    Lie.LEFT_OUT: (1, _left_out),
    Lie.NOTHING: (0, _nothing),
    Lie.UNAVAILABLE: (0, _as_it_is),
    Lie.SLOW_DOWN: (0, _as_it_is),
    Lie.ENDLESS: (0, _endless),
    Lie.TORN: (0, _as_it_is),
    Lie.YEAR_AHEAD: (1, _year(_YEAR)),
    Lie.YEAR_BEHIND: (1, _year(-_YEAR)),
    Lie.NO_ETAG: (1, _no_etag),
}
"""For each lie how many keys a page must have for it, and what is done to the page."""


def _more(page: Any, token: str) -> None:
    page.find(f"{_NS}IsTruncated").text = "true" if token else "false"
    there = page.find(f"{_NS}NextContinuationToken")
    if there is None and token:
        there = etree.SubElement(page, f"{_NS}NextContinuationToken")
    if there is not None:
        there.text = token


def _other_year(date: str, lie: Lie) -> str:
    form = "%a, %d %b %Y %H:%M:%S GMT"
    try:
        at = dt.datetime.strptime(date, form)  # noqa: DTZ007 - HTTP's dates are in GMT by definition
    except ValueError:
        return date
    return (at + (_YEAR if lie is Lie.YEAR_AHEAD else -_YEAR)).strftime(form)
