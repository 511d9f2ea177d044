"""The API's description, held against what the hub really answers."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

import httpx
import pytest

import protocol.api
from protocol.digest import EMPTY_RUN, run_on
from protocol.messages import Change, Events, Row

Document = dict[str, Any]

_PLAIN: Final = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
_NOTES: Final = {"title", "description", "default"}
_KNOWN: Final = _NOTES | {
    "$ref",
    "type",
    "enum",
    "anyOf",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "maxLength",
}


def check(document: Document, schema: Document, value: Any, at: str = "$") -> None:
    """Assert that a value is what a schema says. Knows the words that our document uses, and fails on any other."""
    assert set(schema) <= _KNOWN, f"{at}: a word this check does not know: {set(schema) - _KNOWN}"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        check(document, document["components"]["schemas"][name], value, at)
    if "anyOf" in schema:
        assert any(_fits(document, one, value) for one in schema["anyOf"]), f"{at}: {value!r} is none of {schema['anyOf']}"
    if "enum" in schema:
        assert value in schema["enum"], f"{at}: {value!r}"
    if "type" in schema:
        _check_type(schema["type"], value, at)
    if isinstance(value, dict):
        _check_object(document, schema, value, at)
    elif isinstance(value, list):
        _check_array(document, schema, value, at)
    elif isinstance(value, str):
        assert len(value) <= schema.get("maxLength", len(value)), at
    elif isinstance(value, int | float) and not isinstance(value, bool):
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value), at


def _check_type(word: str, value: Any, at: str) -> None:
    if word == "null":
        assert value is None, f"{at}: {value!r} is not null"
        return
    assert isinstance(value, _PLAIN[word]), f"{at}: {value!r} is no {word}"
    assert word == "boolean" or not isinstance(value, bool), f"{at}: {value!r} is no {word}"


def _check_object(document: Document, schema: Document, value: dict[str, Any], at: str) -> None:
    properties = schema.get("properties", {})
    rest = schema.get("additionalProperties", True)
    assert set(schema.get("required", [])) <= set(value), f"{at}: missing {set(schema['required']) - set(value)}"
    for name, part in value.items():
        if name in properties:
            check(document, properties[name], part, f"{at}.{name}")
        elif isinstance(rest, dict):
            check(document, rest, part, f"{at}.{name}")
        else:
            # An answer's type allows a newer hub to add fields; this hub is of this version, so it has none to add.
            assert "properties" not in schema, f"{at}: {name} is not described"


def _check_array(document: Document, schema: Document, value: list[Any], at: str) -> None:
    first = schema.get("prefixItems", [])
    assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)), at
    for index, part in enumerate(value):
        one = first[index] if index < len(first) else schema.get("items", {})
        if one is not False:
            check(document, one, part, f"{at}[{index}]")


def _fits(document: Document, schema: Document, value: Any) -> bool:
    try:
        check(document, schema, value)
    except AssertionError:
        return False
    return True


@pytest.fixture(scope="session")
async def document(hub: Any) -> Document:
    """The document as it is served, without a token."""
    answer = await hub.http.get("/openapi.json")
    assert answer.status_code == 200
    described: Document = answer.json()
    return described


def hold(document: Document, answer: httpx.Response) -> str:
    """Hold an answer against the document; return the id of its operation."""
    path, item = _match(document, answer.request.url.path)
    operation = item[answer.request.method.lower()]
    described = operation["responses"]
    assert str(answer.status_code) in described, f"{answer.request.method} {path} answered {answer.status_code}: {answer.text}"
    content = described[str(answer.status_code)].get("content")
    if content is None:
        assert answer.content == b""
    else:
        assert answer.headers["content-type"] == "application/json"
        check(document, content["application/json"]["schema"], answer.json())
    return str(operation["operationId"])


def _match(document: Document, path: str) -> tuple[str, Document]:
    for template, item in document["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return template, item
    raise AssertionError(f"{path} is not described")


def test_the_check_itself_notices_what_is_wrong(document: Document) -> None:
    person = {"$ref": "#/components/schemas/Person"}
    good = {"id": 1, "username": "a", "email": "a@b", "admin": False, "created_at": 0}
    check(document, person, good)
    for bad in (good | {"id": "1"}, good | {"admin": 0}, good | {"id": True}, {"id": 1}, good | {"password": "x"}, [], None):
        with pytest.raises(AssertionError):
            check(document, person, bad)


def test_every_operation_has_an_id_a_summary_a_tag_and_the_errors_anybody_can_meet(document: Document) -> None:
    operations = [one for item in document["paths"].values() for one in item.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    for one in operations:
        assert one["summary"].endswith((".", ";"))
        assert len(one["tags"]) == 1
        assert {"500", "503"} <= set(one["responses"])
        assert ("401" in one["responses"]) == (one.get("security") != [] or one["operationId"] == "login")
        if "requestBody" in one or "parameters" in one:
            assert "400" in one["responses"]


def test_the_routes_are_those_of_the_contract(document: Document) -> None:
    written = re.findall(r"^    (GET|POST|PUT|PATCH|DELETE) +(/[^ ?\n]*)", protocol.api.__doc__ or "", flags=re.MULTILINE)
    served = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert served == {(method, f"/api/v1{path}") for method, path in written}
    assert len(served) == len(written) == 58


def test_what_people_send_is_described_as_strictly_as_it_is_read(document: Document) -> None:
    schemas = document["components"]["schemas"]
    sent = [name for name in schemas if name.startswith("New") or name == "Login"]
    assert len(sent) == 14
    for name in sent:
        assert schemas[name]["additionalProperties"] is False
    assert schemas["NewAccount"]["required"] == ["email", "username", "password"]


def test_every_reference_leads_somewhere(document: Document) -> None:
    names = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert names == set(document["components"]["schemas"])


async def test_every_route_answers_what_its_description_says(  # noqa: PLR0915 - one walk, one line a step
    document: Document, hub: Any, joined: Any
) -> None:
    """Walk the whole API as two people with a node that says yes; every operation answers well once, most also badly."""
    seen: set[str] = set()

    async def ask(method: str, path: str, status: int, who: dict[str, str] | None = None, /, **body: Any) -> Any:
        kwargs = {"json": body} if body else {}
        answer = await hub.http.request(method, path, headers=who or {}, **kwargs)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        operation = hold(document, answer)
        if status < 300:
            seen.add(operation)
        return answer.json() if answer.content else None

    account = {"username": "walker", "email": "walker@lab.example", "password": "correct horse battery"}
    walker = {"Authorization": f"Bearer {(await ask('POST', '/accounts', 201, **account))['token']}"}
    friend = await hub.register("friend")
    await ask("POST", "/accounts", 409, **account)
    await ask("POST", "/accounts", 400, **account | {"username": "../x"})
    login = {"email": account["email"], "password": account["password"]}
    other = {"Authorization": f"Bearer {(await ask('POST', '/sessions', 201, **login))['token']}"}
    await ask("POST", "/sessions", 401, **login | {"password": "something else"})
    await ask("DELETE", "/sessions/current", 204, other)
    await ask("GET", "/me", 401, other)
    await ask("GET", "/me", 200, walker)
    await ask("GET", "/hub", 200)
    assert (await ask("GET", "/health", 200))["ok"]
    await ask("POST", "/invitations", 201, walker, name="unused")
    await ask("POST", "/invitations", 400, walker, life_s=-1)
    await ask("GET", "/nodes/nowhere", 404, walker)
    root = {"node": "walk1", "name": "data", "kind": "private", "bucket": "lab", "accept_visible_names": True}
    async with joined(hub, walker, "walk1") as node:
        await ask("GET", "/nodes", 200, walker)
        await ask("GET", "/nodes/walk1", 200, walker)
        await ask("POST", "/roots", 201, walker, **root)
        await ask("POST", "/roots", 409, walker, **root)
        await ask("POST", "/roots", 404, walker, **root | {"node": "nowhere", "name": "other"})
        await ask("GET", "/roots", 200, walker)
        await ask("GET", "/roots/walk1/data", 200, walker)
        await ask("GET", "/roots/walk1/nothing", 404, walker)
        await ask("POST", "/roots/walk1/data/scan", 200, walker)
        await ask("GET", "/roots/walk1/data/scan", 200, walker)
        await ask("POST", "/roots/walk1/data/survey", 200, walker)
        await ask("POST", "/roots/walk1/data/survey", 403, await hub.register("surveyor"))
        planned = root | {"name": "planned", "bucket": "planned"}
        await ask("POST", "/nodes/walk1/survey", 200, walker, **planned)
        await ask("POST", "/nodes/walk1/survey", 403, friend, **planned)
        assert (await ask("POST", "/roots/walk1/data/verify", 200, walker))["equal"]
        await ask("POST", "/roots/walk1/data/verify", 403, friend)
        await ask("POST", "/workspaces", 201, walker, name="scans", root="walk1/data")
        await ask("POST", "/workspaces", 409, walker, name="scans", root="walk1/data")
        await ask("GET", "/workspaces?which=mine", 200, walker)
        await ask("GET", "/workspaces?which=nonsense", 400, walker)
        await ask("GET", "/workspaces/me/scans", 200, walker)
        await ask("GET", "/workspaces/walker/scans", 404, friend)
        await ask("PUT", "/workspaces/me/scans/shares/friend", 200, walker, permission="write")
        await ask("PUT", "/workspaces/me/scans/shares/nobody-here", 404, walker, permission="read")
        await ask("PUT", "/workspaces/me/scans/shares/friend", 400, walker, permission="everything")
        assert await ask("GET", "/workspaces/me/scans/shares", 200, walker)
        assert await ask("GET", "/workspaces?which=shared", 200, friend)
        key = "A" * 42 + "A"
        await ask("POST", "/credentials", 201, friend, client_key=key, paths=["walker/scans/"])
        await ask("POST", "/assertions", 201, friend, node="walk1")
        file = {"client_key": key, "path": "walker/scans/a.txt"}
        link = await ask("POST", "/links", 201, friend, **file)
        await ask("POST", "/links", 400, friend, **file, life_s=0)
        assert await ask("GET", "/links?path=scans/", 200, walker) == [link["link"]]
        await ask("GET", "/links?path=nothing", 404, friend)
        await ask("DELETE", f"/links/{link['link']['id']}", 200, friend)
        await ask("DELETE", "/links/4711", 404, friend)
        await ask("POST", "/assertions", 404, friend, node="nowhere")
        await ask("POST", "/assertions", 403, await hub.register("stranger"), node="walk1")
        await ask("POST", "/credentials", 404, friend, client_key=key, paths=["walker/nothing/"])
        await ask("POST", "/credentials", 400, friend, client_key="?", paths=["walker/scans/"])
        assert (await ask("DELETE", "/workspaces/me/scans/shares/friend", 200, walker))["receipts"]
        await ask("DELETE", "/workspaces/me/scans/shares/friend", 404, walker)
        await ask("GET", "/files?path=scans", 200, walker)
        await ask("GET", "/files?path=walker/scans", 404, friend)
        await ask("GET", "/files", 400, walker)
        await ask("GET", "/file?path=scans/a.txt", 404, walker)
        now = (await ask("GET", "/changes?path=scans", 200, walker))["after"]
        await ask("GET", "/changes?path=walker/scans", 404, friend)
        await ask("GET", "/changes?after=forged", 400, walker)
        row = Row(Change.PUT, (await ask("GET", "/roots/walk1/data", 200, walker))["id"], "walker/scans/a.txt", 1, 1, "e")
        await node.say(Events(1, 0, (row,), run_on(EMPTY_RUN, [row])))
        async with asyncio.timeout(10):
            while not (await ask("GET", "/files?path=scans", 200, walker))["entries"]:  # noqa: ASYNC110 - the hub tells nobody
                await asyncio.sleep(0.01)
        assert (await ask("GET", "/file?path=scans/a.txt", 200, walker))["size"] == 1
        await ask("GET", "/file?path=walker/scans/a.txt", 404, friend)
        [change] = (await ask("GET", f"/changes?path=scans&after={now}", 200, walker))["changes"]
        assert (change["path"], change["gone"], change["size"]) == ("walker/scans/a.txt", False, 1)
        assert await ask("GET", "/unreadable?node=walk1&root=data", 200, walker) == []
        await ask("GET", "/unreadable?node=walk1&root=data", 403, await hub.register("onlooker"))
        await ask("GET", "/search?q=ext:txt&facets=ext,node&sort=newest", 200, walker)
        await ask("GET", "/search?q=size%3E%3E", 400, walker)
        await ask("GET", "/search?cursor=forged", 400, walker)
        assert await ask("GET", "/audit?limit=50", 200, walker)
        await ask("GET", "/audit?limit=0", 400, walker)
        assert await ask("GET", "/audit?workspace=scans", 200, walker)
        await ask("GET", "/audit?format=xml", 400, walker)
        await ask("GET", "/audit/check", 403, walker)
        assert (await ask("GET", "/audit/check", 200, await hub.admin("overseer")))["whole"]
        await ask("GET", "/why?path=scans", 200, walker)
        await ask("GET", "/why?path=walker/scans&who=walker", 404, friend)
        assert await ask("GET", "/access?path=scans", 200, walker)
        await ask("GET", "/access?path=walker/scans", 404, friend)
        await ask("GET", "/access?path=scans&at=-1", 400, walker)
        await ask("GET", "/accesses?path=scans", 200, walker)
        quota = await ask("PUT", "/quotas", 200, walker, kind="workspace", of="walker/scans", hard=1 << 30)
        await ask("PUT", "/quotas", 400, walker, kind="workspace", of="walker/scans")
        await ask("PUT", "/quotas", 403, walker, kind="user", of="walker", hard=1)
        assert await ask("GET", "/quotas", 200, walker)
        await ask("DELETE", f"/quotas/{quota['id']}", 404, friend)
        await ask("DELETE", f"/quotas/{quota['id']}", 204, walker)
        await ask("POST", "/groups", 201, walker, name="walkers")
        await ask("POST", "/groups", 409, walker, name="walkers")
        assert await ask("GET", "/groups", 200, friend)
        await ask("GET", "/groups/walkers", 200, friend)
        await ask("GET", "/groups/nobody", 404, friend)
        await ask("PUT", "/groups/walkers/members/friend", 403, friend, manager=True)
        assert (await ask("PUT", "/groups/walkers/members/friend", 200, walker, manager=False))["receipts"]
        await ask("PUT", "/workspaces/me/scans/shares/@walkers", 200, walker, permission="read")
        await ask("DELETE", "/groups/walkers/members/friend", 200, walker)
        await ask("DELETE", "/groups/walkers", 403, friend)
        await ask("DELETE", "/groups/walkers", 200, walker)
        await ask("PATCH", "/workspaces/walker/scans", 404, friend, description="mine")
        await ask("PATCH", "/workspaces/me/scans", 200, walker, description="what it is", archived=False)
        asked = await ask("POST", "/requests", 201, friend, workspace="walker/scans")
        await ask("POST", "/requests", 409, friend, workspace="walker/scans")
        assert await ask("GET", "/requests", 200, walker)
        await ask("POST", f"/requests/{asked['id']}/answer", 404, friend, yes=True)
        await ask("POST", f"/requests/{asked['id']}/answer", 200, walker, yes=True)
        await ask("POST", f"/requests/{asked['id']}/answer", 409, walker, yes=True)
        assert await ask("GET", "/alarms", 200, walker) == []
        await ask("PATCH", "/roots/walk1/data", 400, walker, quiet="8-18")
        await ask("PATCH", "/roots/walk1/data", 403, friend, pace=5)
        await ask("PATCH", "/roots/walk1/data", 200, walker, pace=5, managers=["friend"])
        await ask("POST", "/workspaces/me/scans/handover", 404, walker, to="nobody")
        await ask("POST", "/workspaces/me/scans/handover", 200, walker, to="friend", keep="read")
        await ask("DELETE", "/workspaces/friend/scans", 403, walker)
        await ask("DELETE", "/workspaces/me/scans", 200, friend)
        await ask("DELETE", "/roots/walk1/data", 403, friend)
        await ask("DELETE", "/roots/walk1/data", 200, walker)
        await ask("POST", "/nodes/walk1/confirm", 403, friend)
        await ask("POST", "/nodes/walk1/confirm", 200, walker)
        await ask("DELETE", "/nodes/walk1", 403, friend)
        await ask("DELETE", "/nodes/walk1", 204, walker)
    described = {one["operationId"] for item in document["paths"].values() for one in item.values()}
    assert seen == described
