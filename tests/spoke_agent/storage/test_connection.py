"""A server that answers badly, not at all, or for ever. Real HTTP on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from protocol.errors import BadEndpoint, DiskFull, Internal, StorageRefused, StorageUnreachable
from spoke_agent.storage import connection as connection_module
from spoke_agent.storage.connection import Connection, Reply, check_url, refusal
from spoke_agent.storage.s3 import S3
from spoke_agent.storage.sigv4 import Key

KEY = Key("access", "canary-secret", "canary-token")


@asynccontextmanager
async def served(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[Connection]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    connection = Connection(f"http://127.0.0.1:{runner.addresses[0][1]}", region="us-east-1", clock=lambda: 0)
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()
        await runner.cleanup()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "javascript:alert(1)",
        "ftp://a",
        "http://",
        "http://a:b@c",
        "http://a/path",
        "http://a?x=1",
        "http://a:99999",
        "http://a:0",
        "http://[::1",
        "file:///etc/passwd",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(BadEndpoint):
        check_url(url)


def test_a_final_slash_does_no_harm() -> None:
    assert check_url("http://127.0.0.1:9000/") == "http://127.0.0.1:9000"


def reply(status: int, code: str, words: str = "") -> Reply:
    return Reply(status, {}, f"<Error><Code>{code}</Code><Message>{words}</Message></Error>".encode())


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (reply(507, "XMinioStorageFull"), DiskFull, "no room left to write"),
        (reply(400, "XMinioStorageFull"), DiskFull, "XMinioStorageFull"),
        (reply(503, "SlowDown"), StorageUnreachable, "too busy to write"),
        (reply(403, "AccessDenied", "Access Denied."), StorageRefused, r"refused to write \(AccessDenied, HTTP 403\): “Access"),
        (Reply(500, {}, b'{"Code":"XMinioX","Message":"In words."}'), StorageRefused, "XMinioX, HTTP 500"),
        (Reply(500, {}, b"\xff<html>"), StorageRefused, r"\(no code, HTTP 500\)\."),
        (Reply(400, {}, b'{"Code":5}'), StorageRefused, "no code"),
        (Reply(302, {}, b""), StorageRefused, "HTTP 302"),
        (reply(400, "X", "evil \x1b[31m"), StorageRefused, r"evil \\x1b"),
    ],
)
def test_a_bad_answer_becomes_an_error_in_words(answer: Reply, kind: type[Exception], words: str) -> None:
    error = refusal(answer, "write")
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error


async def test_a_server_that_is_not_there_is_unreachable_and_the_error_tells_no_secret() -> None:
    connection = Connection("http://127.0.0.1:1", region="us-east-1", clock=lambda: 0)
    await connection.open()
    try:
        with pytest.raises(StorageUnreachable, match="cannot be reached") as caught:
            await connection.ask(KEY, "GET", "/")
    finally:
        await connection.close()
    assert "canary" not in f"{caught.value!r} {caught.value.todo} {caught.getrepr()}".replace("KEY", "")


async def test_a_connection_that_breaks_is_tried_once_more() -> None:
    asked = 0

    async def breaks_once(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked == 1:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text="fine")

    async with served(breaks_once) as connection:
        assert (await connection.ask(KEY, "POST", "/")).body == b"fine"
    assert asked == 2


async def test_a_connection_that_always_breaks_is_unreachable() -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with served(breaks) as connection:
        with pytest.raises(StorageUnreachable):
            await connection.ask(KEY, "GET", "/")


async def test_a_server_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "ANSWER_S", 0.2)
    over = asyncio.Event()

    async def silent(_: web.Request) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    async with served(silent) as connection:
        with pytest.raises(StorageUnreachable, match="did not answer in time"):
            await connection.ask(KEY, "GET", "/")
        over.set()


@pytest.mark.parametrize("chunked", [True, False])
async def test_an_answer_without_end_is_refused(monkeypatch: pytest.MonkeyPatch, *, chunked: bool) -> None:
    monkeypatch.setattr(connection_module, "MAX_ANSWER", 10_000)

    async def endless(request: web.Request) -> web.StreamResponse:
        if not chunked:
            return web.Response(body=b"x" * 20_000)
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 5000)

    async with served(endless) as connection:
        with pytest.raises(StorageRefused, match="more than"):
            await connection.ask(KEY, "GET", "/")


async def test_a_redirect_is_not_followed_with_a_signed_request() -> None:
    async def elsewhere(_: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})

    async with served(elsewhere) as connection:
        assert (await connection.ask(KEY, "GET", "/")).status == 307


async def test_used_before_it_is_open_it_says_so() -> None:
    with pytest.raises(Internal, match="before it was opened"):
        await Connection("http://127.0.0.1:1", region="us-east-1", clock=lambda: 0).ask(KEY, "GET", "/")


async def test_a_listing_given_up_early_leaves_no_request_behind() -> None:
    asked, over = asyncio.Event(), asyncio.Event()

    async def pages(request: web.Request) -> web.StreamResponse:
        if "continuation-token" in request.query:
            asked.set()
            await over.wait()
        return web.Response(
            text='<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true</IsTruncated>'
            "<NextContinuationToken>t</NextContinuationToken><Contents><Key>a</Key><Size>1</Size>"
            "<LastModified>2026-11-24T10:15:00Z</LastModified></Contents></ListBucketResult>"
        )

    async with served(pages) as connection:
        before = asyncio.all_tasks()
        listing = S3(connection, KEY).pages("bucket")
        assert [entry.key for entry in await anext(listing)] == ["a"]
        await asyncio.wait_for(asked.wait(), 5)
        await listing.aclose()
        client = {task for task in asyncio.all_tasks() - before if "_list" in repr(task.get_coro())}
        over.set()
        assert client == set()
