"""What an administrator does to a hub from its own machine: prepare it, look at it, make accounts, rebuild the index."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final

import httpx
import msgspec
from sqlalchemy.exc import SQLAlchemyError

from hub.app import SystemChance, SystemClock, make_accounts, make_indexing, secret_keys
from hub.db.database import Database
from hub.db.migrate import current, newest, upgrade
from hub.home import SECRET_FILE, held, hold, make_home
from hub.services.health import OK, HubHealth
from hub.services.hub_key import open_hub_key
from hub.settings import Settings
from protocol.api import Health, NewAccount, Person
from protocol.errors import Unreachable, WioError
from protocol.identity import fingerprint, public_bytes
from search.tantivy import Tantivy

_HERE: Final = "this machine"
_ASK_S: Final = 5.0


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


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    what: str
    ok: bool
    says: str


async def init(settings: Settings) -> Ready:
    """Make whatever is not there yet; changes nothing that is. Raises BadSetting, DiskFull or Unreachable."""
    make_home(settings.data)
    async with _database(settings) as database:
        key = await open_hub_key(database, secret_keys(settings, SystemChance()), SystemChance())
    return Ready(str(settings.data), fingerprint(public_bytes(key)))


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
    async with _database(settings) as database:
        return await make_accounts(settings, database, SystemClock(), SystemChance()).create(asked, _HERE, admin=admin)


async def reindex(settings: Settings) -> Reindexed:
    """Empty the search index and fill it again from the catalogue. Raises Conflict while a hub runs."""
    make_home(settings.data)
    with hold(settings.data):
        engine = Tantivy(settings.index)
        async with _database(settings) as database:
            await engine.open()
            try:
                await engine.clear()
                indexing = make_indexing(database, engine)
                while await indexing.step():
                    pass
                stats = await engine.stats()
            finally:
                await engine.close()
    return Reindexed(stats.documents, stats.position)


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything the hub stands on; never raises for what is wrong with it."""
    if held(settings.data) if settings.data.exists() else False:
        return await ask_running(settings)
    findings = [await _look("data directory", _home(settings))]
    if findings[0].ok:
        findings += [await _look("database", _layout(settings)), await _look("hub key", _key(settings))]
        findings += [await _look("index", _index(settings))]
    return findings


async def ask_running(settings: Settings) -> list[Finding]:
    """Ask the hub that runs with these settings how it is."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  - compared, not bound
    url = f"http://{host}:{settings.port}/api/v1/health"
    try:
        async with httpx.AsyncClient(timeout=_ASK_S, trust_env=False) as http:
            answer = await http.get(url)
        health = msgspec.json.decode(answer.content, type=Health)
    except (httpx.HTTPError, msgspec.MsgspecError) as error:
        return [Finding("hub", ok=False, says=f"does not answer at {url} ({type(error).__name__})")]
    return [Finding(part, ok=word == OK, says=word) for part, word in health.parts.items()]
