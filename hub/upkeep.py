"""What an administrator does to a hub from its own machine: prepare it, look at it, make accounts, rebuild the index."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from hub.app import SystemChance, SystemClock, Wiring, database_trouble, open_database, open_engine, secret_keys
from hub.db.migrate import current, newest, upgrade
from hub.home import held, hold, make_home
from hub.services.health import OK, HubHealth
from hub.services.hub_key import open_hub_key
from hub.services.indexing import Indexing
from hub.settings import Settings
from protocol.api import Health, NewAccount, Person
from protocol.errors import BadSetting, Unreachable, WioError
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
    async with open_database(settings) as database:
        keys = secret_keys(settings, SystemChance())
        hub_key = await open_hub_key(database, keys, SystemChance())
        engine = Tantivy(settings.index)  # not opened: a hub that runs has it
        wiring = Wiring(settings, database, engine, keys, hub_key, clock=SystemClock(), chance=SystemChance())
        user = await wiring.accounts.create(asked, admin=admin, address=_HERE)
    return Person(user.id, user.username, user.email, user.admin, user.created_at)


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
