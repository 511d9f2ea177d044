"""The loopback endpoint: whom it believes, and everything else that can reach it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest

from protocol.errors import BadMessage, BadSetting, NotAllowed, StorageUnreachable, WioError
from protocol.grants import Narrowing
from protocol.identity import Assertion, assertion_text, new_key, public_key, read_assertion, sign_assertion, to_text
from protocol.identity import public_bytes as public
from spoke_agent.endpoint.endpoint import LIFE_S, LONGEST_ASSERTION_S, MINTS, Endpoint
from spoke_agent.storage.node import Credential

HUB = new_key(bytes(32))
NODE = 77
NOW = 1_800_000_000
HOUR = 3600


class Minted(NamedTuple):
    person: int
    life_s: int
    read_only: bool


class Bench:
    """An endpoint whose mint is noted; a client that sends bytes as they are."""

    def __init__(self) -> None:
        self.now = NOW
        self.minted: list[Minted] = []
        self.fault: WioError | Exception | None = None
        self.endpoint = Endpoint(self, public_key(public(HUB)), NODE, lambda: self.now * 1_000_000)

    async def mint_here(self, person: int, life_s: int, narrowing: Narrowing) -> Credential:
        if self.fault is not None:
            raise self.fault
        self.minted.append(Minted(person, life_s, narrowing.read_only))
        return Credential("AK", "the-secret", "the-token", self.now + life_s)

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint.address).netloc

    async def send(self, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.host.rpartition(":")[2]))
        writer.write(raw)
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body

    async def get(self, *lines: str, target: str = "/credentials", method: str = "GET", host: str | None = None) -> Any:
        """Send a request with these header lines; return the status and what is in the body."""
        wanted = [f"{method} {target} HTTP/1.1", f"Host: {self.host if host is None else host}", *lines, "Connection: close"]
        status, headers, body = await self.send("\r\n".join([*wanted, "", ""]).encode())
        assert b"the-secret" not in body or status == 200
        if headers.get("content-type") != "application/json":
            assert status == 400, "the HTTP parser's own answer"
            return status, {}
        assert headers["cache-control"] == "no-store"
        return status, json.loads(body)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    async with made.endpoint.listening("127.0.0.1", 0):
        yield made
    assert made.endpoint.address == ""


def assertion(*, node: int = NODE, issued: int = NOW - 5, expires: int = NOW + 8 * HOUR, key: Any = HUB) -> str:
    return assertion_text(sign_assertion(key, Assertion(node, 2, "bob", issued, expires)))


async def test_whom_the_hub_vouches_for_gets_a_key_in_the_form_of_the_sdks(bench: Bench) -> None:
    status, body = await bench.get(f"Authorization: {assertion()}")
    assert (status, body) == (
        200,
        {"AccessKeyId": "AK", "SecretAccessKey": "the-secret", "Token": "the-token", "Expiration": "2027-01-15T09:00:00Z"},
    )
    assert (await bench.get(f"Authorization: Bearer {assertion()}", target="/credentials?life_s=900&read_only=1"))[0] == 200
    for host in ("localhost", "LOCALHOST", "[::1]"):
        assert (await bench.get(f"Authorization: {assertion()}", host=f"{host}:{bench.host.rpartition(':')[2]}"))[0] == 200
    assert bench.minted == [Minted(2, LIFE_S, False), Minted(2, 900, True), *[Minted(2, LIFE_S, False)] * 3]


async def test_a_key_does_not_outlive_what_vouches_for_it_by_more_than_the_server_s_shortest(bench: Bench) -> None:
    for left, life in ((LIFE_S + 1, LIFE_S), (1000, 1000), (899, 900), (1, 900)):
        assert (await bench.get(f"Authorization: {assertion(expires=NOW + left)}"))[0] == 200
        assert bench.minted[-1].life_s == life


FOREIGN = new_key(bytes([7]) * 32)
GOOD = assertion()
BODY, SIGNATURE = GOOD.removeprefix("wioa1.").split(".")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "Bearer",
        "wioa1.",
        "wioa1..",
        BODY,
        f"wioa1.{BODY}",
        f"wioa1.{BODY}.",
        f"wioa1.{BODY}.{SIGNATURE}.",
        f"wioa1.{BODY}.{SIGNATURE}x",
        f"wioa1.{BODY}={'.'}{SIGNATURE}",
        f"wioa1.{SIGNATURE}.{BODY}",
        f"wioa2.{BODY}.{SIGNATURE}",
        f"wioa1.{BODY}.{to_text(bytes(64))}",
        f"wioa1.{to_text(msgspec.msgpack.encode([NODE, 1, 'root', NOW, NOW + HOUR]))}.{SIGNATURE}",
        f"wioa1.{to_text(b'no msgpack')}.{to_text(HUB.sign(b'wio assertion v1' + bytes(1) + b'no msgpack'))}",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJib2IifQ.",
        f'{{"alg":"none","body":"{BODY}"}}',
        GOOD + " ",
        GOOD + "\t",
        GOOD + "\x00",
        GOOD + "ä",
        "Basic " + GOOD,
        "Bearer " + GOOD + " " + GOOD,
        "x" * 3000,
        assertion(key=FOREIGN),
        assertion(node=NODE + 1),
        assertion(expires=NOW),
        assertion(expires=NOW - 1),
        assertion(issued=NOW + 61),
        assertion(issued=NOW - LONGEST_ASSERTION_S, expires=NOW + 1),
        assertion(expires=7_258_118_400),
        assertion(issued=NOW + 30, expires=NOW + 10),
    ],
)
async def test_anything_but_a_living_assertion_of_this_hub_for_this_node_is_refused(bench: Bench, token: str) -> None:
    if token.strip(" \t") == GOOD:
        return  # blanks around a header's value are no part of it
    status, _ = await bench.get(f"Authorization: {token}")
    assert status in {400, 401}, "400 is what the HTTP parser says of a control character"
    assert bench.minted == []


async def test_a_token_with_a_newline_is_no_second_header(bench: Bench) -> None:
    for line in (f"Authorization: {GOOD}\n X: 1", f"Authorization:\n {GOOD}\nOrigin: null", f"Authorization: {GOOD}\r"):
        status, _ = await bench.get(line)
        assert status in {400, 401, 403}, line
    with pytest.raises(BadMessage):
        read_assertion(GOOD + "\n")
    assert bench.minted == []


async def test_no_token_and_two_tokens_are_refused(bench: Bench) -> None:
    assert (await bench.get())[0] == 401
    assert (await bench.get(f"Authorization: {GOOD}", f"Authorization: {assertion(key=FOREIGN)}"))[0] in {400, 401}
    assert (await bench.get(f"Cookie: Authorization={GOOD}", target=f"/credentials?token={GOOD}"))[0] == 401
    assert bench.minted == []


FOREIGN_HOSTS = """
    evil.example 127.0.0.1 127.0.0.1:1 evil.example:{port} 127.0.0.1.evil.example:{port} 0.0.0.0:{port} 2130706433:{port}
    127.1:{port} localhost.:{port} user@127.0.0.1:{port} 169.254.169.254:{port}
"""


@pytest.mark.parametrize("host", ["", *FOREIGN_HOSTS.split()])
async def test_a_host_that_is_not_this_loopback_address_is_refused(bench: Bench, host: str) -> None:
    status, _ = await bench.get(f"Authorization: {GOOD}", host=host.format(port=bench.host.rpartition(":")[2]))
    assert status in {400, 403}
    assert bench.minted == []


async def test_two_hosts_and_a_whole_address_in_the_first_line_are_refused(bench: Bench) -> None:
    assert (await bench.get(f"Authorization: {GOOD}", "Host: evil.example"))[0] in {400, 403}
    assert (await bench.get(f"Authorization: {GOOD}", target="http://evil.example/credentials", host="evil.example"))[0] == 403
    assert bench.minted == []


PASSED_ON = """
    Origin: http://evil.example|Origin: null|Origin: http://{host}|Origin:|X-Forwarded-For: 127.0.0.1|X-Real-IP: 127.0.0.1
    |X-Forwarded-Host: localhost|Forwarded: for=127.0.0.1|Via: 1.1 proxy|Sec-Fetch-Site: cross-site|Sec-Fetch-Site: same-origin
"""


@pytest.mark.parametrize("line", [line.strip() for line in PASSED_ON.split("|")])
async def test_web_pages_and_proxies_get_nothing(bench: Bench, line: str) -> None:
    status, body = await bench.get(f"Authorization: {GOOD}", line.format(host=bench.host))
    assert (status, body["code"]) == (403, "not-allowed")
    assert bench.minted == []


async def test_there_is_nothing_else_here(bench: Bench) -> None:
    for method, target, status in (
        ("GET", "/", 404),
        ("GET", "/credentials/", 404),
        ("GET", "/credentials/../credentials", 404),
        ("POST", "/credentials", 405),
        ("PUT", "/credentials", 405),
        ("OPTIONS", "/credentials", 405),
        ("TRACE", "/credentials", 405),
        ("GET", "/credentials?life_s=0", 400),
        ("GET", "/credentials?life_s=-1", 400),
        ("GET", "/credentials?life_s=899", 400),
        ("GET", "/credentials?life_s=3601", 400),
        ("GET", "/credentials?life_s=99999999999999999999", 400),
        ("GET", "/credentials?life_s=900&life_s=3600", 400),
        ("GET", "/credentials?life_s=%D9%A9%D9%A0%D9%A0", 400),
        ("GET", "/credentials?read_only=yes", 400),
        ("GET", "/credentials?person=1", 400),
    ):
        assert (await bench.get(f"Authorization: {GOOD}", target=target, method=method))[0] == status, (method, target)
    assert bench.minted == []
    headers = (await bench.send(f"GET /credentials HTTP/1.1\r\nHost: {bench.host}\r\nConnection: close\r\n\r\n".encode()))[1]
    assert not any(name.startswith("access-control") for name in headers), "no page of another origin may read an answer"


async def test_garbage_and_floods_end_a_connection_and_nothing_else(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for raw in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n"):
        try:
            status, _, _ = await bench.send(raw)
        except (ConnectionError, ValueError, IndexError):
            continue
        assert status == 400
    big = "\r\n".join(f"X-{n}: {'y' * 3000}" for n in range(200))
    with contextlib.suppress(ConnectionError):  # closed while there was still more to send
        assert (await bench.get(big, f"Authorization: {GOOD}"))[0] == 400
    assert bench.minted == []
    assert caplog.records == [], "what was sent may hold a token"
    assert (await bench.get(f"Authorization: {GOOD}"))[0] == 200


async def test_one_person_gets_so_many_keys_a_minute_and_another_is_not_kept_waiting(bench: Bench) -> None:
    for _ in range(MINTS):
        assert (await bench.get(f"Authorization: {GOOD}"))[0] == 200
    assert (await bench.get(f"Authorization: {GOOD}"))[0] == 429
    other = assertion_text(sign_assertion(HUB, Assertion(NODE, 3, "carol", NOW, NOW + HOUR)))
    assert (await bench.get(f"Authorization: {other}"))[0] == 200
    bench.now += 61
    assert (await bench.get(f"Authorization: {GOOD}"))[0] == 200


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (NotAllowed("This node does not know you yet."), 403, "not-allowed"),
        (StorageUnreachable("The storage server is away."), 503, "storage-unreachable"),
        (RuntimeError("secret words"), 500, "internal"),
    ],
)
async def test_what_keeps_a_key_from_being_made_is_said(bench: Bench, fault: Exception, status: int, code: str) -> None:
    bench.fault = fault
    got, body = await bench.get(f"Authorization: {GOOD}")
    assert (got, body["code"]) == (status, code)
    assert "secret words" not in str(body)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "localhost", "lab.example", ""])  # noqa: S104 - refused
async def test_it_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(BadSetting, match="loopback only"):
        async with Bench().endpoint.listening(host, 0):
            pass


async def test_an_address_that_is_taken_is_said_to_be(bench: Bench) -> None:
    with pytest.raises(BadSetting, match="cannot give keys at"):
        async with Bench().endpoint.listening("127.0.0.1", int(bench.host.rpartition(":")[2])):
            pass
