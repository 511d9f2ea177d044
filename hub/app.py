"""Wire a hub together: the one place that knows every part. Opens them in order, and closes them in the reverse one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib.metadata import version
from typing import Final

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar import Litestar
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from hub.db.database import Database
from hub.db.migrate import upgrade
from hub.db.tables import users
from hub.domain.alarms import Thresholds
from hub.gateway.connections import Connections
from hub.gateway.gateway import Gateway
from hub.gateway.route import agent_route
from hub.home import hold, make_home, open_secret, trouble
from hub.metrics import Metrics
from hub.services.accounts import Accounts
from hub.services.alarms import Alarms, Caller
from hub.services.assertions import Assertions
from hub.services.audit import Audit
from hub.services.counting import Counting
from hub.services.credentials import Issuing
from hub.services.details import Details
from hub.services.enrolment import Enrolment
from hub.services.evicted import EvictedNodes
from hub.services.figures import Figures
from hub.services.freshness import Freshness
from hub.services.grantsets import GrantSets
from hub.services.groups import Groups
from hub.services.health import HubHealth
from hub.services.history import History, Pruning
from hub.services.hub_key import SecretKeys, open_hub_key
from hub.services.indexing import Indexing
from hub.services.ingest import Ingest
from hub.services.levels import Levels
from hub.services.links import Links
from hub.services.ports import Chance, Clock
from hub.services.quotas import Quotas, QuotaStep
from hub.services.reach import People
from hub.services.repairing import Repairing
from hub.services.requests import Requests
from hub.services.root_changes import RootChanges
from hub.services.roots import Roots
from hub.services.searching import Searching
from hub.services.settling import Settling
from hub.services.sharing import Sharing
from hub.services.verifying import Verifying
from hub.services.watching import Watching
from hub.services.why import Explaining
from hub.services.workspace_changes import WorkspaceChanges
from hub.services.workspaces import Workspaces
from hub.settings import Registration, Settings
from hub.web.call import Services, address_of
from hub.web.metrics import metrics_route
from hub.web.problems import add_headers, answer
from hub.web.routes import people_routes
from protocol.api import HubInfo
from protocol.errors import DiskFull, Unreachable
from protocol.identity import public_bytes, to_text
from protocol.names import MAX_ID
from search.engine import Engine
from search.tantivy import Tantivy

_LOG: Final = logging.getLogger("wio.hub")
_SECRET_BYTES: Final = 32
_DRIVER_CLASS: Final = re.compile(r"^<class '[\w.]+'>: ")
"""What SQLAlchemy puts before the sentences of asyncpg."""
RETRY_EVERY_S: Final = 5.0
"""How often grant sets are sent again that a connected node has not answered to."""
AGAIN_S: Final = 2.0
"""How long a loop that failed waits before it begins again."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """Return the time in Unix microseconds."""
        return time.time_ns() // 1000


class SystemChance:
    """The operating system's randomness."""

    def new_id(self) -> int:
        """Return a random id: 1 to 2**53 - 1."""
        return secrets.randbelow(MAX_ID) + 1

    def secret(self, size: int) -> bytes:
        """Return ``size`` random bytes fit for keys."""
        return secrets.token_bytes(size)


@contextmanager
def database_trouble() -> Iterator[None]:
    """Turn what goes wrong while a database is opened into an error that says what to do. No URL: it may hold a password."""
    try:
        yield
    except (SQLAlchemyError, OSError, asyncpg.PostgresError) as error:
        text = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        why = text.splitlines()[0][:300]
        if "disk is full" in why or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
            raise DiskFull("There is no space left for the database.", todo="Make room, or move WIO_DATA.") from error
        raise Unreachable(
            f"The database cannot be used: {_DRIVER_CLASS.sub('', why).rstrip('.')}.",
            todo="Check WIO_DATABASE_URL (wio-hub settings shows it) and that the server runs.",
        ) from error


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """Open the database, brought to the newest layout first. Raises Unreachable, DiskFull or BadSetting."""
    with database_trouble():
        await upgrade(settings.database_url)
    database = Database(settings.database_url)
    try:
        yield database
    except SQLAlchemyError:
        with database_trouble():
            raise
    finally:
        await database.close()


@asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[Engine]:
    """Open the search index. Raises Conflict where another process has it, DiskFull or BadSetting."""
    engine = Tantivy(settings.index)
    try:
        await engine.open()
    except OSError as error:
        raise trouble(settings.index, error) from error
    try:
        yield engine
    finally:
        await engine.close()


def secret_keys(settings: Settings, chance: Chance) -> SecretKeys:
    """Return the keys made from WIO_SECRET or, where that is not set, from the secret in the data directory."""
    return SecretKeys(settings.secret or open_secret(settings.data, fresh=chance.secret(_SECRET_BYTES)))


class Wiring:
    """Every service of a hub over one database, one engine, one key. Making it does no I/O."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        engine: Engine,
        keys: SecretKeys,
        hub_key: Ed25519PrivateKey,
        *,
        clock: Clock,
        chance: Chance,
    ) -> None:
        agents = Connections()
        audit = Audit(database=database, clock=clock)
        metrics = Metrics()
        sets = GrantSets(database=database, agents=agents, clock=clock, chance=chance, hub_key=hub_key, observe=metrics.receipt)
        freshness = self.freshness = Freshness(database=database, agents=agents, clock=clock)
        self.caller = None
        if settings.alarm_url is not None:
            self.caller = Caller(settings.alarm_url, hub=settings.address(settings.port), clock=clock)
        alarms = self.alarms = Alarms(
            database=database,
            clock=clock,
            audit=audit,
            freshness=freshness,
            thresholds=Thresholds(settings.alarm_offline_s, settings.alarm_behind_s, settings.alarm_unscanned_days),
            tell=self.caller.tell if self.caller is not None else lambda _: None,
        )
        settling = self.settling = Settling(database=database, agents=agents, clock=clock, audit=audit, sets=sets)
        indexing = self.indexing = Indexing(database=database, engine=engine)
        levels = self.levels = Levels(database=database, clock=clock, changed=indexing.changed, indexed=indexing.indexed)
        links = self.links = Links(database=database, agents=agents, clock=clock, chance=chance, audit=audit, sets=sets)
        self.accounts = Accounts(
            database=database,
            clock=clock,
            chance=chance,
            audit=audit,
            settling=settling,
            wither=links.wither,
            registration_open=settings.registration is Registration.OPEN,
        )
        enrolment = Enrolment(
            database=database,
            agents=agents,
            clock=clock,
            chance=chance,
            audit=audit,
            hub_key=hub_key,
            hub_url=settings.address(settings.port),
            freshness=freshness,
            alarms=alarms.of_node,
        )
        roots = Roots(
            database=database,
            agents=agents,
            clock=clock,
            chance=chance,
            audit=audit,
            sets=sets,
            searchable=indexing.searchable,
            freshness=freshness,
        )
        sharing = Sharing(
            database=database, clock=clock, chance=chance, audit=audit, sets=sets, settling=settling, wither=links.wither
        )
        reach = People(database=database, clock=clock)
        watching = Watching(database=database, reach=reach, cursor_key=keys.cursors)

        def changed() -> None:
            indexing.changed()
            watching.stirred()

        quota_step = self.quota_step = QuotaStep(database=database, clock=clock, audit=audit, sets=sets)
        self.pruning = Pruning(database=database, clock=clock, days=settings.access_days)
        ingest = Ingest(
            database=database,
            clock=clock,
            changed=changed,
            indexed=indexing.indexed,
            moved=quota_step.moved,
            applied=metrics.applied,
            drifted=lambda: self.repairing.drifted(),  # noqa: PLW0108 - made below
        )
        assertions = Assertions(database=database, clock=clock, audit=audit, sets=sets, hub_key=hub_key)
        self.gateway = Gateway(
            connections=agents,
            hub_key=hub_key,
            clock=clock,
            chance=chance,
            enrolment=enrolment,
            evicted=EvictedNodes(database=database),
            roots=roots,
            settling=settling,
            ingest=ingest,
            address_of=address_of,
            keys=assertions,
        )
        self.repairing = Repairing(
            database=database,
            agents=agents,
            clock=clock,
            audit=audit,
            settled=ingest.settled,
            begin_anew=ingest.begin_anew,
        )
        self.counting = Counting(database=database, clock=clock, drifted=self.repairing.drifted)
        self.figures = Figures(
            database=database,
            clock=clock,
            metrics=metrics,
            freshness=freshness,
            alarms=alarms,
            ingest=ingest,
            indexing=indexing,
        )
        self.services = Services(
            info=_info(settings, hub_key),
            health=HubHealth(database=database, engine=engine, data=settings.data),
            accounts=self.accounts,
            enrolment=enrolment,
            roots=roots,
            root_changes=RootChanges(
                database=database,
                agents=agents,
                clock=clock,
                chance=chance,
                audit=audit,
                sets=sets,
                roots=roots,
                noted=levels.noted,
            ),
            workspaces=Workspaces(
                database=database,
                agents=agents,
                clock=clock,
                chance=chance,
                audit=audit,
                sets=sets,
                charged=quota_step.charged,
            ),
            workspace_changes=WorkspaceChanges(
                database=database, clock=clock, chance=chance, audit=audit, sets=sets, charged=quota_step.charged
            ),
            sharing=sharing,
            settling=settling,
            groups=Groups(database=database, clock=clock, chance=chance, audit=audit, sets=sets),
            requests=Requests(database=database, clock=clock, chance=chance, audit=audit, sharing=sharing),
            assertions=assertions,
            links=links,
            issuing=Issuing(database=database, agents=agents, clock=clock, audit=audit, sets=sets),
            searching=Searching(
                database=database, engine=engine, reach=reach, agents=freshness, clock=clock, cursor_key=keys.cursors
            ),
            watching=watching,
            details=Details(database=database, reach=reach, roots=roots),
            audit=audit,
            quotas=Quotas(database=database, clock=clock, chance=chance, audit=audit, step=quota_step),
            explaining=Explaining(database=database, agents=agents, clock=clock, sets=sets),
            history=History(database=database, clock=clock),
            verifying=Verifying(
                database=database,
                agents=agents,
                clock=clock,
                audit=audit,
                roots=roots,
                drifted=self.repairing.drifted,
            ),
            alarms=alarms,
            metrics=metrics,
            proxy_hops=settings.proxy_hops,
        )


def _info(settings: Settings, hub_key: Ed25519PrivateKey) -> HubInfo:
    name = settings.address(settings.port)
    return HubInfo(name, version("workspacesio"), to_text(public_bytes(hub_key)), settings.registration.value)


def create_app(settings: Settings, *, clock: Clock, chance: Chance) -> Litestar:
    """Return the hub as an ASGI application. Nothing is opened before its lifespan begins.

    The lifespan raises Conflict where another hub holds the data directory, BadSetting, DiskFull or Unreachable where
    something it stands on cannot be used.
    """

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            make_home(settings.data)
            stack.enter_context(hold(settings.data))
            keys = secret_keys(settings, chance)
            database = await stack.enter_async_context(open_database(settings))
            hub_key = await open_hub_key(database, keys, chance)
            engine = await stack.enter_async_context(open_engine(settings))
            wiring = Wiring(settings, database, engine, keys, hub_key, clock=clock, chance=chance)
            await wiring.freshness.load()
            await wiring.alarms.load()
            app.state.update(
                {
                    "services": wiring.services,
                    "gateway": wiring.gateway,
                    "database": database,
                    "figures": wiring.figures,
                }
            )
            app.state.nobody = await _nobody(database)
            await stack.enter_async_context(_kept_going("indexing", wiring.indexing.run))
            await stack.enter_async_context(_kept_going("repairs", wiring.repairing.run))
            await stack.enter_async_context(_kept_going("counts", wiring.counting.run))
            await stack.enter_async_context(_kept_going("settling", lambda: _retrying(wiring.settling)))
            await stack.enter_async_context(_kept_going("links", wiring.links.run))
            await stack.enter_async_context(_kept_going("quotas", wiring.quota_step.run))
            await stack.enter_async_context(_kept_going("pruning", wiring.pruning.run))
            await stack.enter_async_context(_kept_going("levels", wiring.levels.run))
            await stack.enter_async_context(_kept_going("freshness", wiring.freshness.run))
            await stack.enter_async_context(_kept_going("alarms", wiring.alarms.run))
            if wiring.caller is not None:
                await stack.enter_async_context(_kept_going("alarm calls", wiring.caller.run))
            yield

    return Litestar(
        [people_routes(), agent_route(), metrics_route(settings.metrics_token, lambda state: state.figures.text())],
        lifespan=[lifespan],
        exception_handlers={Exception: answer},
        before_send=[add_headers],
        openapi_config=None,  # hub.web.openapi describes the routes, from the types that are really read and written
        logging_config=None,  # hub.serve
    )


async def _nobody(database: Database) -> bool:
    async with database.read() as connection:
        return await connection.scalar(select(func.count()).select_from(users)) == 0


async def _retrying(settling: Settling) -> None:
    while True:
        await asyncio.sleep(RETRY_EVERY_S)
        await settling.retry_once()


@asynccontextmanager
async def _kept_going(what: str, run: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run a loop for the length of the block; one that fails is logged and begun again, for it is what the hub is for."""

    async def going() -> None:
        while True:
            try:
                await run()
            except Exception:  # noqa: BLE001  - logged whole, and the loop goes on
                _LOG.exception("The %s loop failed; it begins again in %s s", what, AGAIN_S)
            await asyncio.sleep(AGAIN_S)

    task = asyncio.create_task(going(), name=what)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
