"""What an administrator does to a hub from its own machine: prepare it, look at it, make accounts, rebuild the index."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub import backup
from hub.app import SystemChance, SystemClock, Wiring, database_trouble, open_database, open_engine, secret_keys
from hub.db import facts, grant_sets, nodes, people
from hub.db.database import Database
from hub.db.migrate import current, newest, upgrade
from hub.home import SECRET_FILE, held, hold, make_home
from hub.services.health import OK, HubHealth
from hub.services.hub_key import open_hub_key
from hub.services.indexing import Indexing
from hub.services.ports import Actor
from hub.settings import Settings
from protocol.api import Health, NewAccount, Person
from protocol.errors import BadSetting, Unreachable, WioError
from protocol.grants import Subject, SubjectKind
from protocol.identity import fingerprint, public_bytes
from protocol.names import UserId
from search.tantivy import Tantivy

_HERE: Final = "this machine"
_ASK_S: Final = 5.0
WAIT_S: Final = 15.0
"""How long is waited for a hub that runs to bring a change to its nodes: it looks every 5 s, and a node has 10 s."""
_LOOK_S: Final = 0.1
_OPERATOR: Final = Actor(UserId(0), "hub", admin=True, address=_HERE)
"""Whoever may run programs beside the hub's data; the audit trail has them as the hub itself, on this machine."""


class Ready(msgspec.Struct, frozen=True):
    """A hub that can be served. ``fingerprint`` is a short form of its public key, for people to compare."""

    data: str
    fingerprint: str


class Moved(msgspec.Struct, frozen=True):
    """From which layout of the database to which."""

    before: str | None
    after: str | None


class Reindexed(msgspec.Struct, frozen=True):
    """What the new index holds, and up to which revision."""

    documents: int
    position: int


class EndedOn(msgspec.Struct, frozen=True):
    """What became of somebody's keys on a node: ``enforced``, or ``pending`` and for how long at most they go on working."""

    node: str
    state: str
    exposure_s: int


class Ended(msgspec.Struct, frozen=True):
    """An account that was ended, or opened again, and the nodes on which keys of it were out."""

    username: str
    nodes: tuple[EndedOn, ...]


class Restored(msgspec.Struct, frozen=True):
    """The nodes that wait for their owners to confirm what is shared."""

    nodes: tuple[str, ...]


class BackedUp(msgspec.Struct, frozen=True):
    """A backup, how large it is, and what is in it."""

    file: str
    bytes: int
    parts: tuple[str, ...]


class _KeysOn(msgspec.Struct, frozen=True):
    node: str
    pending: bool
    keys_until: int


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    what: str
    ok: bool
    says: str


async def init(settings: Settings) -> Ready:
    """Make whatever is not there yet; changes nothing that is. Raises BadSetting, DiskFull or Unreachable."""
    make_home(settings.data)
    return Ready(str(settings.data), await _fingerprint(settings))


async def migrate(settings: Settings) -> Moved:
    """Bring the database to the newest layout."""
    make_home(settings.data)
    with database_trouble():
        before = await current(settings.database_url)
        await upgrade(settings.database_url)
    return Moved(before, newest())


async def create_user(settings: Settings, asked: NewAccount, *, admin: bool) -> Person:
    """Make an account, whatever WIO_REGISTRATION says. May be done while the hub runs."""
    make_home(settings.data)
    async with _wired(settings) as (_, wiring):
        user = await wiring.accounts.create(asked, admin=admin, address=_HERE)
    return Person(user.id, user.username, user.email, user.admin, user.created_at)


async def disable_user(settings: Settings, username: str, *, wait_s: float = WAIT_S) -> Ended:
    """End an account, its tokens, and what its keys open; a hub that runs brings that to the nodes, and this waits for it.

    Raises UnknownUser.
    """
    make_home(settings.data)
    async with _wired(settings) as (database, wiring):
        before = await _keys_of(database, username)
        await wiring.accounts.disable(username, _OPERATOR)
        after = await _keys_of(database, username)
        deadline = time.monotonic() + (wait_s if held(settings.data) else 0.0)
        while any(one.pending for one in after) and time.monotonic() < deadline:  # another process does it
            await asyncio.sleep(_LOOK_S)
            after = await _keys_of(database, username)
    keys = {one.node: one.keys_until for one in before}
    now = SystemClock().now()
    told = [
        EndedOn(one.node, "pending" if one.pending else "enforced", max(0, keys.get(one.node, 0) - now) // 1_000_000)
        for one in after
        if one.pending or keys.get(one.node, 0) > now
    ]
    return Ended(username, tuple(told))


async def enable_user(settings: Settings, username: str) -> Ended:
    """Let somebody back in. Raises UnknownUser."""
    make_home(settings.data)
    async with _wired(settings) as (_, wiring):
        await wiring.accounts.enable(username, _OPERATOR)
    return Ended(username, ())


async def restored(settings: Settings) -> Restored:
    """Have every node wait for confirmation, because the database came from a backup. Raises Conflict while a hub runs."""
    make_home(settings.data)
    with hold(settings.data):
        async with _wired(settings) as (_, wiring):
            return Restored(tuple(await wiring.settling.restored(_OPERATOR)))


async def write_backup(settings: Settings, target: Path) -> BackedUp:
    """Write the whole hub into one file; it may run meanwhile. Raises what ``backup.write`` raises."""
    parts, size = await asyncio.to_thread(backup.write, settings, target)
    return BackedUp(str(target), size, parts)


async def restore(settings: Settings, source: Path) -> Restored:
    """Make a hub of a backup, in an empty data directory, and have its nodes wait for confirmation.

    Raises what ``backup.read`` raises, and BadSetting where the secret is not the one that belongs to it.
    """
    make_home(settings.data)
    with hold(settings.data):
        parts = await asyncio.to_thread(backup.read, settings, source)
        if settings.secret is None and SECRET_FILE not in parts:
            backup.discard(settings)
            raise BadSetting(
                "This backup has no secret in it: its hub got it from WIO_SECRET.",
                todo="Set WIO_SECRET to the secret that belongs to it, then restore again.",
            )
    return await restored(settings)


async def verify(settings: Settings) -> list[Finding]:
    """Check the database and the audit trail line by line; the hub may run meanwhile. Raises Unreachable or BadSetting."""
    findings = []
    if settings.database_url.startswith("sqlite"):
        wrong = await asyncio.to_thread(backup.damage, backup.database_file(settings))
        findings.append(Finding("database", ok=not wrong, says=wrong or "sound"))
        if wrong:
            return findings
    async with _wired(settings) as (_, wiring):
        found = await wiring.services.audit.check(_OPERATOR)
    says = f"{found.lines:,} lines, none changed and none missing; head {found.head[:16]}"
    if not found.whole:
        says = f"line {found.broken_at} is not as it was written, or one before it is missing"
    return [*findings, Finding("audit trail", ok=found.whole, says=says)]


async def _keys_of(database: Database, username: str) -> list[_KeysOn]:
    """Return on which nodes somebody has a grant set, whether that is yet to be taken over, and until when keys may be out."""

    async def look(connection: AsyncConnection) -> list[_KeysOn]:
        user = await people.by_name(connection, username)
        if user is None:
            return []
        found = []
        subject = Subject(SubjectKind.PERSON, user.id, user.username)
        for number in await grant_sets.nodes_of(connection, subject):
            row, brief = await nodes.by_id(connection, number), await facts.set_of(connection, number, subject.kind, user.id)
            if row is not None and row.evicted_at is None and brief is not None:
                found.append(_KeysOn(row.name, brief.applied_epoch < brief.epoch, brief.keys_until))
        return found

    return await database.run_read(look)


@asynccontextmanager
async def _wired(settings: Settings) -> AsyncIterator[tuple[Database, Wiring]]:
    """Open the database with every service over it, beside a hub that may run: no index is opened and no agent connected."""
    async with open_database(settings) as database:
        keys = secret_keys(settings, SystemChance())
        hub_key = await open_hub_key(database, keys, SystemChance())
        engine = Tantivy(settings.index)  # not opened: a hub that runs has it
        yield database, Wiring(settings, database, engine, keys, hub_key, clock=SystemClock(), chance=SystemChance())


async def reindex(settings: Settings) -> Reindexed:
    """Empty the search index and fill it again from the catalogue. Raises Conflict while a hub runs."""
    make_home(settings.data)
    with hold(settings.data):
        async with open_database(settings) as database, open_engine(settings) as engine:
            await engine.clear()
            indexing = Indexing(database=database, engine=engine)
            while await indexing.step():
                pass
            stats = await engine.stats()
    return Reindexed(stats.documents, stats.position)


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything the hub stands on; never raises for what is wrong with it. Asks the hub itself where one runs."""
    if settings.data.is_dir() and held(settings.data):
        return await ask_running(settings)
    looks: dict[str, Callable[[Settings], Awaitable[str]]] = {
        "data directory": _home,
        "database": _layout,
        "hub key": _fingerprint,
        "index and disk": _parts,
    }
    findings: list[Finding] = []
    for what, look in looks.items():
        try:
            findings.append(Finding(what, ok=True, says=await look(settings)))
        except WioError as error:
            findings.append(Finding(what, ok=False, says=f"{error} {error.todo}".strip()))
            break  # each stands on the one before
    return findings


async def _home(settings: Settings) -> str:
    if not settings.data.is_dir():
        raise BadSetting(f"{settings.data} is not there yet.", todo="Make it: wio-hub init.")
    make_home(settings.data)
    return str(settings.data)


async def _layout(settings: Settings) -> str:
    with database_trouble():
        found = await current(settings.database_url)
    if found != newest():
        raise BadSetting(f"It is at {found or 'nothing'}, and this version needs {newest()}.", todo="Run: wio-hub migrate.")
    return f"at {found}"


async def _fingerprint(settings: Settings) -> str:
    async with open_database(settings) as database:
        key = await open_hub_key(database, secret_keys(settings, SystemChance()), SystemChance())
    return fingerprint(public_bytes(key))


async def _parts(settings: Settings) -> str:
    with hold(settings.data):
        async with open_database(settings) as database, open_engine(settings) as engine:
            health = await HubHealth(database=database, engine=engine, data=settings.data).check()
    if not health.ok:
        raise Unreachable("; ".join(f"{part}: {word}" for part, word in health.parts.items() if word != OK) + ".")
    return OK


async def ask_running(settings: Settings) -> list[Finding]:
    """Ask the hub that runs with these settings how it is."""
    import httpx  # noqa: PLC0415  - takes a tenth of a second to load, and nothing else here needs it

    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  - compared, not bound
    url = f"http://{host}:{settings.port}/api/v1/health"
    try:
        async with httpx.AsyncClient(timeout=_ASK_S, trust_env=False) as http:
            answer = await http.get(url)
        health = msgspec.json.decode(answer.content, type=Health)
    except (httpx.HTTPError, msgspec.MsgspecError) as error:
        return [Finding("hub", ok=False, says=f"does not answer at {url} ({type(error).__name__})")]
    return [Finding(part, ok=word == OK, says=word) for part, word in health.parts.items()]
