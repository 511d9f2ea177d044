"""What holds for every route: who is let in, how errors look, what is never told."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import websockets
from litestar.routes import HTTPRoute
from sqlalchemy import text

OPEN_ROUTES: Final = {
    ("POST", "/api/v1/accounts"),
    ("POST", "/api/v1/sessions"),
    ("GET", "/api/v1/hub"),
    ("GET", "/api/v1/health"),
    ("GET", "/api/v1/openapi.json"),
}
"""Everything that answers without a token: what one needs to get a token, and what says nothing about anybody."""
METRICS_ROUTES: Final = {("GET", "/metrics"), ("OPTIONS", "/metrics")}
"""Not for people: it has a token of its own, and is shut without one (test_metrics)."""


def _routes(hub: Any) -> set[tuple[str, str]]:
    return {
        (method, route.path_format)
        for route in hub.app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
    }


async def _without_token(hub: Any, method: str, path: str, headers: dict[str, str]) -> Any:
    filled = path.replace("{id}", "7").replace("{", "").replace("}", "")
    return await hub.http.request(method, f"{hub.url}{filled}", headers=headers, content=b"{" if method != "GET" else None)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer two words"},
        {"Authorization": f"Bearer {'a' * 5000}"},
        {"Authorization": "Bearer \xe9\xe9".encode("latin-1").decode("latin-1")},
        {"Authorization": "Basic YWxpY2U6cGFzc3dvcmQ="},
        {"Cookie": "token=abc"},
    ],
    ids=["nothing", "scheme", "unknown", "spaces", "huge", "not-ascii", "basic", "cookie"],
)
async def test_no_route_but_the_open_ones_answers_without_a_good_token(hub: Any, headers: dict[str, str]) -> None:
    routes = _routes(hub)
    assert routes >= OPEN_ROUTES
    closed = routes - OPEN_ROUTES - METRICS_ROUTES
    assert len(closed) > 40
    raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    for method, path in sorted(closed):
        answer = await _without_token(hub, method, path, raw)
        assert answer.status_code == 401, f"{method} {path} answered {answer.status_code}"
        assert answer.json()["code"] == "not-signed-in"
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_token_is_asked_for_before_anything_of_the_request_is_read(hub: Any) -> None:
    answer = await hub.http.post("/roots", content=b"x" * 1000)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/../../etc/passwd", 404, "not-found"),
        ("GET", "/roots/a%2fb", 404, "unknown-root"),
        ("GET", "/%00", 404, "not-found"),
        ("GET", "/%ff%fe", 404, "not-found"),
        ("PATCH", "/me", 405, "bad-input"),
        ("HEAD", "/me", 405, ""),
    ],
)
async def test_an_unknown_route_or_method_is_a_problem_like_any_other(  # noqa: PLR0917 - a table
    hub: Any, alice: dict[str, str], strict_problem: Any, method: str, path: str, status: int, code: str
) -> None:
    answer = await hub.http.request(method, path, headers=alice)
    assert answer.status_code == status
    if method != "HEAD":
        assert msgspec.json.decode(answer.content, type=strict_problem).code == code


async def test_what_is_outside_the_api_is_a_problem_too(hub: Any, strict_problem: Any) -> None:
    answer = await hub.http.get(f"{hub.url}/schema")
    assert answer.status_code == 404
    assert msgspec.json.decode(answer.content, type=strict_problem).code == "not-found"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "body"),
        (b"{", "JSON"),
        (b"null", "object"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b'{"email":"a@b"}', "username"),
        (b'{"email":1,"username":"u","password":"0123456789"}', "email"),
        (b'{"email":"a@b","username":["u"],"password":"0123456789"}', "username"),
        (b'{"email":"a@b","username":"u","password":"0123456789","admin":true}', "admin"),
        (b'{"email":"a@b","username":"u","username":"v","password":"0123456789"}', "username"),
        (b'{"email":NaN}', "JSON"),
        (b"\xff\xfe", "JSON"),
        (b'{"email":"\xff"}', "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"a":' * 20_000, "JSON"),
        (b'{"email":"a@b","username":"u","password":"\\ud800"}', "JSON"),
        (b'{"email":"a@b","username":"u","password":"0123456789"} {}', "JSON"),
    ],
)
async def test_a_body_that_cannot_be_used_is_refused_in_words(hub: Any, strict_problem: Any, body: bytes, told: str) -> None:
    answer = await hub.http.post("/accounts", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    problem = msgspec.json.decode(answer.content, type=strict_problem)
    assert problem.code == "bad-input"
    assert told in problem.message


async def test_a_body_that_is_too_large_is_refused(hub: Any, alice: dict[str, str], strict_problem: Any) -> None:
    async def endless() -> Any:
        for _ in range(64):
            yield b" " * 8192

    for content in (b" " * 300_000, endless()):
        answer = await hub.http.post("/roots", content=content, headers=alice)
        assert answer.status_code == 413
        assert msgspec.json.decode(answer.content, type=strict_problem).code == "bad-input"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=1001",
        "limit=ten",
        "limit=1.5",
        "before=-1",
        "before=x",
        "limit=99999999999999999999999999",
    ],
)
async def test_a_parameter_out_of_its_limits_is_refused_by_name(hub: Any, alice: dict[str, str], query: str) -> None:
    answer = await hub.http.get(f"/audit?{query}", headers=alice)
    assert answer.status_code == 400
    assert answer.json()["code"] == "bad-input"
    assert query.partition("=")[0] in answer.json()["message"]


@pytest.mark.parametrize(
    "name", ["*", "?", "..", "${x}", "a\\b", "a\x00b", "<script>", "=cmd()", "a ", "\u202eabc", "\x1b[31m", "x" * 2000, "é"]
)
async def test_a_hostile_name_in_an_address_is_answered_with_a_printable_problem(
    hub: Any, alice: dict[str, str], strict_problem: Any, name: str
) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in name.encode())
    for path in (f"/nodes/{quoted}", f"/roots/{quoted}/x", f"/workspaces/me/{quoted}", f"/workspaces/{quoted}/x"):
        answer = await hub.http.get(path, headers=alice)
        assert answer.status_code in {400, 404}, f"{path}: {answer.status_code}"
        assert msgspec.json.decode(answer.content, type=strict_problem).message.isprintable()


async def test_every_answer_keeps_to_itself(hub: Any, alice: dict[str, str]) -> None:
    for path, headers in (("/hub", {}), ("/me", alice), ("/me", {}), ("/nothing", {})):
        answer = await hub.http.get(path, headers={**headers, "Origin": "https://evil.example"})
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "server" not in answer.headers


async def test_a_fault_of_our_own_tells_nothing_to_the_caller_and_everything_to_the_log(
    hub: Any, alice: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("canary of the inside")

    monkeypatch.setattr(hub.app.state.services.audit, "entries", broken)
    with caplog.at_level(logging.ERROR):
        answer = await hub.http.get("/audit", headers=alice)
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "canary" not in answer.text
    assert "Traceback" not in answer.text
    assert "canary of the inside" in caplog.text
    assert alice["Authorization"].split()[1] not in caplog.text


async def test_errors_of_the_database_reach_the_log_without_the_values(
    hub: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = f"canary-{len(caplog.handler.records)}"  # not as one word in this file, which tracebacks quote

    async def broken(*_: object) -> None:
        async with hub.app.state.database.read() as connection:
            await connection.execute(text("SELECT * FROM nowhere WHERE password = :p"), {"p": secret})

    monkeypatch.setattr(hub.app.state.services.accounts, "login", broken)
    with caplog.at_level(logging.WARNING):
        answer = await hub.http.post("/sessions", json={"email": "a@b", "password": secret})
    assert answer.status_code == 500
    assert "nowhere" in caplog.text
    assert secret not in caplog.text + answer.text


@pytest.mark.parametrize(
    ("hops", "forwarded", "expected"),
    [
        ("0", ["6.6.6.6"], "127.0.0.1"),
        ("1", [], "127.0.0.1"),
        ("1", ["6.6.6.6"], "6.6.6.6"),
        ("1", ["1.1.1.1, 6.6.6.6"], "6.6.6.6"),
        ("2", ["9.9.9.9, 6.6.6.6", "7.7.7.7"], "6.6.6.6"),
        ("2", ["6.6.6.6"], "127.0.0.1"),
    ],
)
async def test_a_forwarded_address_is_believed_only_from_as_many_proxies_as_are_trusted(
    running: Any, tmp_path: Path, hops: str, forwarded: list[str], expected: str
) -> None:
    async with running(tmp_path / "hub", WIO_PROXY_HEADERS=hops) as hub:
        body = {"email": "eve@lab.example", "username": "eve", "password": "correct horse battery"}
        headers = [("X-Forwarded-For", value) for value in forwarded]
        signed_in = (await hub.http.post("/accounts", json=body, headers=headers)).json()
        trail = (await hub.http.get("/audit", headers={"Authorization": f"Bearer {signed_in['token']}"})).json()
        assert [json.loads(line["detail"])["from"] for line in trail if line["action"] == "account.create"] == [expected]


async def test_closed_registration_is_said_and_kept(running: Any, tmp_path: Path) -> None:
    async with running(tmp_path / "hub", WIO_REGISTRATION="closed") as hub:
        assert (await hub.http.get("/hub")).json()["registration"] == "closed"
        body = {"email": "eve@lab.example", "username": "eve", "password": "correct horse battery"}
        assert (await hub.http.post("/accounts", json=body)).status_code == 403


async def test_a_websocket_message_over_the_limit_ends_the_connection(hub: Any) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{hub.settings.port}/agent/v1", compression=None, proxy=None) as socket:
        await socket.send(b"\0" * (1024 * 1024 + 1))
        async with asyncio.timeout(10):
            await socket.wait_closed()
        assert socket.close_code == 1009


async def test_the_key_of_the_hub_is_the_same_after_a_restart(running: Any, tmp_path: Path) -> None:
    keys = set()
    for _ in range(2):
        async with running(tmp_path / "hub") as hub:
            keys.add((await hub.http.get("/hub")).json()["key"])
    assert len(keys) == 1


async def test_a_hub_that_is_told_to_stop_does_not_wait_for_agents_to_go(running: Any, joined: Any, tmp_path: Path) -> None:
    async with running(tmp_path / "hub") as hub:
        owner = await hub.register("owner")
        async with joined(hub, owner, "stays"):
            async with asyncio.timeout(5):
                await hub.stop()


async def test_the_audit_trail_comes_as_lines_oldest_first_as_far_as_one_may_see_it(hub: Any) -> None:
    mine, admin = await hub.register("lines"), await hub.admin("auditor")
    answer = await hub.http.get("/audit?format=jsonl", headers=mine)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [(one["action"], one["actor"]) for one in lines] == [("account.create", "lines"), ("login", "lines")]
    everything = [json.loads(line) for line in (await hub.http.get("/audit?format=jsonl", headers=admin)).text.splitlines()]
    assert len(everything) > len(lines)
    assert all(len(one["chain"]) == 64 for one in everything)
    refused = await hub.http.get("/audit?format=jsonl&workspace=nobody/nothing", headers=mine)
    assert (refused.status_code, refused.text) == (200, "")
