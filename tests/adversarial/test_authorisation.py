"""Every route of the API against every role: who is let do it, who is refused, and who must not even learn that it is there.

The table is in ``authorisation.py``. A refusal has the right code, changes nothing, and where the thing is hidden from whoever
asks it is, to the letter, the answer that there is no such thing. Everything runs against a real hub whose agents say yes.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Final

import httpx
import pytest
from argon2 import PasswordHasher
from litestar.routes import HTTPRoute

from hub.services import alarms, freshness
from protocol.api import NewAccount
from protocol.digest import EMPTY_RUN, object_number, run_on
from protocol.messages import Change, Events, Health, Row, Sum
from tests.adversarial.authorisation import CASES, KEY, ROLES, TABLE, Case
from tests.hub.web.conftest import PASSWORD, Running, YesAgent, _joined, _running

BASE: Final = "/api/v1"
OUT: Final = ("nobody", "made-up", "revoked", "expired", "disabled")
"""What the role ``out`` stands for."""
CODES: Final = {
    "400": {"bad-input"},  # they hold already what they ask for
    "401": {"not-signed-in", "wrong-password"},
    "403": {"no-grant", "not-allowed"},
    "404": {"not-found", "unknown-node", "unknown-root", "unknown-workspace", "unknown-group", "unknown-user"},
}
IDLE: Final = {("nodes", "seen_at"), ("nodes", "health")}
WATCHED: Final = (alarms.ROW, freshness.PREFIX)
"""What changes by itself: columns, and what the hub keeps of its watching the nodes."""


# ------------------------------------------------------------------------------------------------------ the table


def _read(table: str) -> dict[str, dict[str, str]]:
    """Read the table: route, then a cell for each role. Raises where a line has too few or too many."""
    head, *lines = [line for line in table.splitlines() if line.strip()]
    roles = head.split("|")[1].split()
    assert roles == list(ROLES), "the head of the table names every role, in order"
    read: dict[str, dict[str, str]] = {}
    for line in lines:
        name, _, cells = line.partition("|")
        assert name.strip() not in read, f"{name.strip()} stands in the table twice"
        read[name.strip()] = dict(zip(roles, cells.split(), strict=True))
    return read


ROWS: Final = _read(TABLE)


def _route(name: str) -> tuple[str, str]:
    """Return method and path of a line; what follows in brackets tells lines of one route apart."""
    method, _, path = name.partition(" (")[0].partition(" ")
    return method, path


# ------------------------------------------------------------------------------------------------------ the scene


class Scene:
    """A hub in which every role is played by somebody, put back to the same state after whatever changes it."""

    def __init__(self, hub: Running, agent: YesAgent) -> None:
        self.hub = hub
        self.agent = agent
        self.headers: dict[str, dict[str, str]] = {"nobody": {}, "made-up": {"Authorization": f"Bearer wio_{'A' * 43}"}}
        self.values: dict[str, str] = {}
        self._database = hub.settings.data / "hub.sqlite"
        self._kept: dict[str, list[tuple[Any, ...]]] = {}

    async def people(self) -> None:
        """Make somebody for every role, and three whose tokens are good no more."""
        accounts = self.hub.app.state.services.accounts
        accounts._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # a second each is of no use here
        for name in (*(role for role in ROLES if role not in {"out", "ow"}), "owner", "asker", *OUT[2:]):
            email = f"{name}@lab.example"
            await accounts.create(NewAccount(email, name, PASSWORD), admin=name == "ad")
            answer = await self.hub.http.post("/sessions", json={"email": email, "password": PASSWORD})
            self.headers[name] = {"Authorization": f"Bearer {answer.json()['token']}"}
        self.headers["ow"] = self.headers["owner"]

    async def end_tokens(self) -> None:
        """Revoke, let expire and disable, after the hub has seen and may remember each token."""
        for name in OUT[2:]:
            await self._yes("GET", "/me", name)
        await self._yes("DELETE", "/sessions/current", "revoked")
        accounts = self.hub.app.state.services.accounts
        await accounts.disable("disabled", await accounts.actor(self.headers["ad"]["Authorization"].split()[1], ""))
        await asyncio.to_thread(self._expire)

    def _expire(self) -> None:
        with self._connection() as connection:
            connection.execute(
                "UPDATE tokens SET expires_at = ? WHERE user_id = (SELECT id FROM users WHERE username = 'expired')",
                (time.time_ns() // 1000,),
            )

    async def furnish(self) -> None:
        """Make what the routes are about."""
        await self._yes("POST", "/roots", "no", {"node": "lab3", "name": "data", "kind": "private", "bucket": "data"})
        roles = {"creators": ["cr", "owner"], "managers": ["rm"]}
        await self._yes("PATCH", "/roots/lab3/data", "no", roles)
        hidden = {"node": "lab3", "name": "hidden", "kind": "unmanaged-private", "bucket": "hidden"}
        await self._yes("POST", "/roots", "no", {**hidden, "accept_visible_names": True})
        await self._yes("PATCH", "/roots/lab3/hidden", "no", {"managers": ["rm"]})
        await self._yes("POST", "/groups", "go", {"name": "team"})
        await self._yes("PUT", "/groups/team/members/gg", "go", {"manager": True})
        await self._yes("PUT", "/groups/team/members/gm", "gg", {})
        for name, description in (("secret", ""), ("told", "what anybody may read about")):
            await self._yes("POST", "/workspaces", "ow", {"name": name, "root": "lab3/data", "description": description})
            for who, what in (("rd", "read"), ("wr", "write"), ("dr", "drop"), ("mg", "manage"), ("@team", "read")):
                await self._yes("PUT", f"/workspaces/owner/{name}/shares/{who}", "ow", {"permission": what})
        for who in ("ow", "rd"):
            await self._yes("POST", "/credentials", who, {"client_key": KEY, "paths": ["owner/secret/"], "read_only": True})
        link = await self._yes("POST", "/links", "rd", {"client_key": KEY, "path": "owner/told/a-link.csv"})
        asked = await self._yes("POST", "/requests", "asker", {"workspace": "owner/told"})
        quota = await self._yes("PUT", "/quotas", "no", {"kind": "workspace", "of": "owner/secret", "hard": 1 << 40})
        self.values = {"{request}": str(asked["id"]), "{quota}": str(quota["id"]), "{link}": str(link["link"]["id"])}
        await self._file("owner/secret/unheard-of.csv")

    async def _file(self, key: str) -> None:
        """Have the agent report a file, and wait until it is found."""
        roots = await self._yes("GET", "/roots", "no")
        root = next(one["id"] for one in roots if one["name"] == "data")
        rows = (Row(Change.PUT, root, key, 5, 10**18, "etag"),)
        await self.agent.say(Events(1, 0, rows, run_on(EMPTY_RUN, rows)))
        self.agent.at = (1, 1)
        self.agent.holds[root] = Sum(1, 5, object_number(key, 5, 10**18, "etag"))
        async with asyncio.timeout(10):
            while (await self._yes("GET", "/search?q=unheard", "ow"))["total"] != 1:  # noqa: ASYNC110 - found when indexed
                await asyncio.sleep(0.02)

    async def _yes(self, method: str, path: str, who: str, body: Any = None) -> Any:
        answer = await self.hub.http.request(method, path, json=body, headers=self.headers[who])
        assert answer.is_success, f"{method} {path} by {who}: {answer.text}"
        return answer.json() if answer.content else None

    # -------------------------------------------------------------------------------------------------- asking

    async def ask(self, name: str, who: str, *, absent: bool = False) -> httpx.Response:
        """Send what a line of the table is about, or the same about something that is not there."""
        case = CASES[name]
        self._forget_tries()
        return await self.hub.http.request(
            _route(name)[0],
            self._filled(case, case.path, absent=absent),
            json=None if case.body is None else self._inside(case, case.body, absent=absent),
            headers=self.headers[who],
        )

    def _filled(self, case: Case, text: str, *, absent: bool) -> str:
        if absent:
            text = text.replace(case.about, case.absent)
        for name, value in self.values.items():
            text = text.replace(name, value)
        return text

    def _inside(self, case: Case, value: Any, *, absent: bool) -> Any:
        if isinstance(value, str):
            return self._filled(case, value, absent=absent) if value != KEY else value
        if isinstance(value, list):
            return [self._inside(case, one, absent=absent) for one in value]
        if isinstance(value, dict):
            return {name: self._inside(case, one, absent=absent) for name, one in value.items()}
        return value

    def told(self, case: Case) -> str:
        """Return how the thing itself is named in an answer."""
        return self.values.get(case.about, case.about)

    def _forget_tries(self) -> None:
        """So many people do not come from one address within a second."""
        services = self.hub.app.state.services
        for limiter in (services.accounts._registrations, services.accounts._logins, services.assertions._given):
            limiter._seen.clear()

    # -------------------------------------------------------------------------------------------------- what is stored

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._database, timeout=10, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def stored(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every table, without what changes by itself."""
        with contextlib.closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as connection:
            return {table: self._rows(connection, table) for table in self._tables(connection)}

    @staticmethod
    def _tables(connection: sqlite3.Connection) -> list[str]:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return [name for (name,) in found]

    @staticmethod
    def _rows(connection: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if (table, row[1]) not in IDLE]
        rows = connection.execute(f"SELECT {', '.join(columns)} FROM {table}")  # noqa: S608 - ours
        return sorted((row for row in rows if table != "settings" or not row[0].startswith(WATCHED)), key=repr)

    def keep(self) -> None:
        """Remember everything, to come back to."""
        with self._connection() as connection:
            self._kept = {
                table: connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - ours
                for table in self._tables(connection)
            }

    def put_back(self) -> None:
        """Store again what was remembered; answers that were kept in memory are told that they are old."""
        with self._connection() as connection:
            [(access,)] = connection.execute("SELECT value FROM counters WHERE name = 'access'").fetchall()
            for table, rows in self._kept.items():
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - ours
                if rows:
                    marks = ", ".join("?" * len(rows[0]))
                    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608 - ours
            connection.execute("UPDATE counters SET value = ? WHERE name = 'access'", (access + 1,))
        self.hub.app.state.services.accounts._known.clear()


async def _heartbeat(agent: YesAgent) -> None:
    """Let the hub hear of the agent as often as it wants to."""
    while True:
        await agent.say(Health(time.time_ns() // 1000, 0, 0, paused=False))
        await asyncio.sleep(2)


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """The scene, shared: each test puts it back."""
    started: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def hold() -> None:  # opened and closed in one task, which a fixture's two halves are not
        async with contextlib.AsyncExitStack() as stack:
            hub = await stack.enter_async_context(_running(tmp_path_factory.mktemp("roles") / "hub"))
            made = Scene(hub, None)  # type: ignore[arg-type]  # the agent joins below
            await made.people()
            made.agent = await stack.enter_async_context(_joined(hub, made.headers["no"], "lab3"))
            beating = asyncio.create_task(_heartbeat(made.agent))
            stack.callback(beating.cancel)
            await stack.enter_async_context(_joined(hub, made.headers["on"], "lab4"))
            async with _joined(hub, made.headers["no"], "gone"):  # its agent is away ever after
                pass
            await made.furnish()
            await made.end_tokens()
            await asyncio.to_thread(made.keep)
            started.set_result(made)
            await over.wait()

    holding = asyncio.create_task(hold())
    await asyncio.wait({started, holding}, return_when=asyncio.FIRST_COMPLETED)
    if holding.done():
        await holding
    yield await started
    over.set()
    await holding


# ------------------------------------------------------------------------------------------------------ the tests


def test_the_table_has_every_route_and_no_other(scene: Scene) -> None:
    routes = {
        (method, route.path_format.removeprefix(BASE))
        for route in scene.hub.app.routes
        if isinstance(route, HTTPRoute) and route.path_format.startswith(BASE)
        for handler in route.route_handlers
        for method in handler.http_methods - {"OPTIONS"}  # the framework's own: what methods there are
    }
    listed = {_route(name) for name in ROWS}
    silent, gone = sorted(routes - listed), sorted(listed - routes)
    assert not silent, f"the table says nothing about {silent}"
    assert not gone, f"the table has lines about {gone}, which are gone"
    assert ROWS.keys() == CASES.keys(), "each line has something to send, and the other way round"


@pytest.mark.parametrize("name", list(CASES))
async def test_only_whom_the_table_names_is_let_do_it(scene: Scene, name: str) -> None:
    wanted = ROWS.get(name, dict.fromkeys(ROLES, "?"))
    found = {role: [await _try(scene, name, who) for who in (OUT if role == "out" else (role,))] for role in ROLES}
    wrong = {role: cells for role, cells in found.items() if set(cells) != {wanted[role]}}
    does = _line(name, ("/".join(sorted(set(cells))) for cells in found.values()))
    assert not wrong, f"\n{does}\nis what the hub does, and in the table stands\n{_line('', wanted.values())}"


def _line(name: str, cells: Iterable[str]) -> str:
    """Return a line as the table has it."""
    return f"{name:57} | {' '.join(f'{cell:3}' for cell in cells)}".rstrip()


async def _try(scene: Scene, name: str, who: str) -> str:
    """Do it, and return the cell that it makes: ``ok``, ``yes`` and ``no`` (whether it shows the thing), or a refusal."""
    case = CASES[name]
    before = scene.stored()
    answer = await scene.ask(name, who)
    after = scene.stored()
    changed = {table for table in after if before[table] != after[table]}
    if changed:
        await asyncio.to_thread(scene.put_back)  # the hub may be writing just now, and it needs this thread to come to an end
    if answer.is_success:
        cell = "ok" if not case.shows else "yes" if case.shows in answer.text else "no"
    else:
        cell = str(answer.status_code)
        assert answer.json()["code"] in CODES.get(cell, ()), f"{who} got {cell} {answer.text}"
        changed -= {"audit", "counters"} if case.noted else set()
        assert not changed, f"{who} was refused, and it changed {', '.join(changed)}"
    if cell in {"404", "no"} and case.about:
        away = await scene.ask(name, who, absent=True)
        if case.noted:
            await asyncio.to_thread(scene.put_back)
        real = answer.text.replace(scene.told(case), case.absent)
        assert (away.status_code, away.text) == (answer.status_code, real), f"{who} can tell that it is there"
    return cell
