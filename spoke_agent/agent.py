"""The agent: wires storage, access, index and link together, and keeps each of them running. Nothing else.

Order of a start: the state directory is locked; what is on disk is read; the storage server is reached, however long that
takes; what it allows is compared with what it is meant to allow; only then is anything minted, watched or told to the hub.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from typing import Final

from protocol.errors import Evicted, NotFound, UnknownRoot, WioError
from protocol.identity import from_text
from protocol.messages import Finding, Report, RootConfig
from spoke_agent.access import ceiling as ceilings
from spoke_agent.access.access import Access
from spoke_agent.access.applying import Swept
from spoke_agent.access.state import NodeSettings, Secrets, StateDirectory
from spoke_agent.control import listening
from spoke_agent.endpoint.endpoint import Endpoint
from spoke_agent.extraction import Extraction
from spoke_agent.index.accesses import Accesses
from spoke_agent.index.database import Database
from spoke_agent.index.feed import Feed
from spoke_agent.index.hours import Limits, quiet_until, together
from spoke_agent.index.ledger import Ledger
from spoke_agent.index.proofs import Proofs
from spoke_agent.index.reading import Reading
from spoke_agent.index.scan import Scanner
from spoke_agent.index.schedule import Schedule
from spoke_agent.index.states import States
from spoke_agent.link.link import Link
from spoke_agent.owner import Owner
from spoke_agent.settings import Settings
from spoke_agent.storage.minio import MinioNode
from spoke_agent.storage.node import ServerFacts, StorageNode, Warns
from spoke_agent.storage.sigv4 import Key
from spoke_agent.storage.stream import Listening

FIRST_DELAY_S: Final = 0.2
LAST_DELAY_S: Final = 10.0
VERIFY_EVERY_S: Final = 600.0
"""How often what the server allows is compared with what it is meant to allow."""
ORPHANS_EVERY: Final = 6
TWICE_S: Final = 4.0
"""A server says to the second when it was started: within so long after one start another one may look like the same."""
TOLD_S: Final = 1.0
"""How long the hub has to hear why this agent stops."""
LOOK_EVERY_S: Final = 2.0
"""How often it is asked whether the storage server was started anew."""
TIDY_EVERY_S: Final = 300.0
"""How often uploads without an end are looked for in places over their quota."""
WATCHED_S: Final = 5.0
"""How long the first scans wait for the storage server to report changes: what it reports before nobody hears."""
STEADY_S: Final = 60.0
"""A part that ran this long failed for a new reason: it is started again soon."""

_log: Final = logging.getLogger(__name__)


def clock() -> int:
    """Return the time in Unix microseconds."""
    return time.time_ns() // 1000


def make_node(node: NodeSettings, keys: Secrets, settings: Settings) -> StorageNode:
    """Make the storage node that a state directory describes."""
    directory = node.storage.directory
    if directory is not None:
        from spoke_agent.storage.posix.posix import FOLDER, PosixNode  # noqa: PLC0415 - of no use on other nodes

        return PosixNode(
            settings.state / FOLDER,
            directory.exports,
            directory.serving,
            outlive_s=settings.outlive_s,
            polling=settings.polling,
            key=Key(node.storage.access_key, keys.storage_secret),
            master=keys.master,
            clock=clock,
            pause=asyncio.sleep,
            chance=secrets.token_bytes,
        )
    return MinioNode(
        node.storage.url,
        key=Key(node.storage.access_key, keys.storage_secret),
        master=keys.master,
        node=node.storage.label,
        clock=clock,
        pause=asyncio.sleep,
        chance=secrets.token_bytes,
        region=node.storage.region,
        listening=Listening(settings.listen_host, settings.listen_port),
    )


class Agent:
    """One agent on one state directory. ``open`` it, ``run`` it, ``close`` it."""

    def __init__(self, settings: Settings, state: StateDirectory, storage: StorageNode | None = None) -> None:
        """``storage`` is made from the state directory unless given. Raises NotFound where no node has joined."""
        self.state = state
        self._settings = settings
        self._node = state.settings()
        keys = state.secrets()
        self.storage: StorageNode = storage or make_node(self._node, keys, settings)
        self.ledger = Ledger(Database(state.path / "index.sqlite"))
        self.access = Access(state, self.storage, self.ledger.config, clock=clock, chance=secrets.token_bytes)
        if isinstance(self.storage, Warns):
            self.storage.on_warning = self.access.notice
        self.scanner = Scanner(
            self.storage,
            self.ledger,
            clock=clock,
            pace=lambda config: self.limits(config).pace,
            held=lambda root: self.schedule.held(root),  # noqa: PLW0108 - made below
            report=lambda progress: self.link.progress(progress),  # noqa: PLW0108 - made below
            doubt=lambda mark: self.feed.mark(mark),  # noqa: PLW0108 - made below
        )
        self.schedule = Schedule(
            self.ledger,
            self.scanner.scan_root,
            now=time.monotonic,
            every_s=settings.scan_every_s,
            quiet_s=self._quiet_s,
            told=lambda: self.link.health_changed(),  # noqa: PLW0108 - made below
        )
        self.feed = Feed(self.ledger, self.scanner, self.schedule, who=self.access.who)
        self.states = States(self.ledger, self.schedule, self.feed, clock=clock)
        self.proofs = Proofs(self.storage, self.ledger, self.scanner, clock=clock, pace=lambda config: self.limits(config).pace)
        self.extraction = Extraction()
        self.reading = Reading(
            self.ledger,
            self.storage,
            self.extraction,
            now=time.monotonic,
            doubt=self.feed.mark,
            busy=lambda: self.feed.backlog > 0 or self.schedule.current is not None,
            pace=lambda config: self.limits(config).pace,
            quiet=lambda root: self._quiet_s(root) > 0,
            tell=lambda text: self.access.notice("contents", text),
        )
        self._calls = Accesses(self.access.who, self.access.probes_with)
        self.link = Link(
            hub_url=self._node.hub_url,
            hub_key=from_text(self._node.hub_key),
            node_key=keys.node_key,
            access=self.access,
            ledger=self.ledger,
            schedule=self.schedule,
            feed=self.feed,
            proofs=self.proofs,
            calls=self._calls,
            report=self.report,
            states=self.states.look,
            clock=clock,
            now=time.monotonic,
            chance=random.random,
            secret=secrets.token_bytes,
            insecure=self._node.insecure,
        )
        self.endpoint = Endpoint(self.access, self._node.pinned, self._node.node, clock)
        self.owner = Owner(
            settings=self._node,
            access=self.access,
            storage=self.storage,
            ledger=self.ledger,
            schedule=self.schedule,
            feed=self.feed,
            proofs=self.proofs,
            connection=lambda: (self.link.state.since, self.link.state.problem),
            ready=lambda: self._reached,
            cut=self.link.health_changed,
            endpoint=lambda: self.endpoint.address,
            extraction=self.extraction,
        )
        self._facts = state.facts()
        self._reached = False

    # -------------------------------------------------------------------------------------------------- life

    async def open(self) -> None:
        """Take the state directory and read what is on disk. Raises AlreadyJoined, BadSetting, DiskFull."""
        self.state.lock()
        self.state.claim("index.sqlite")
        self.state.claim("grants.sqlite")
        await self.ledger.open()
        await self.access.open()
        await self.storage.open()

    async def close(self) -> None:
        """Write everything down and let go."""
        await self.extraction.close()
        await self.storage.close()
        await self.access.close()
        await self.ledger.close()
        self.state.unlock()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set. Raises Evicted where the hub no longer wants this node."""
        async with listening(self.state.path, self.owner.answer):
            work = asyncio.create_task(self._run())
            lost = asyncio.create_task(self._watch_state())
            stopped = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({work, lost, stopped}, return_when=asyncio.FIRST_COMPLETED)
                for task in (work, lost):
                    if task.done():
                        task.result()
            finally:
                for each in (work, lost, stopped):
                    each.cancel()
                await asyncio.gather(work, lost, stopped, return_exceptions=True)

    async def _run(self) -> None:
        await self._reach_storage()
        self.schedule.request_all(after_s=WATCHED_S)  # at once when changes are reported from then on
        parts = {
            "events": self._watch,
            "scans": self.schedule.run,
            "changes": self.feed.run,
            "reading": self.reading.run,
            "expiry": self._expire,
            "verification": self._verify,
            "storage": self._look,
            "probe": self._probe,
            "tidying": self._tidy,
            "endpoint": self._give_keys,
        }
        tasks = [asyncio.create_task(self._keep(name, part)) for name, part in parts.items()]
        link = asyncio.create_task(self._keep("link", self.link.run))
        try:
            await link  # ends only when this node is evicted
        finally:
            for task in (*tasks, link):
                task.cancel()
            await asyncio.gather(*tasks, link, return_exceptions=True)
        raise Evicted("This node was removed from its hub.", todo="Remove what is left of wio here: wio-agent leave.")

    # -------------------------------------------------------------------------------------------------- parts

    async def _keep(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part for ever; one that fails is started again, later each time, and shown among the warnings."""
        failures = 0
        while True:
            started = time.monotonic()
            well = asyncio.get_running_loop().call_later(STEADY_S, self.access.notice, name, None)
            try:
                await part()
            except Exception as error:  # noqa: BLE001 - whatever it is, the other parts go on
                failures = 0 if time.monotonic() - started > STEADY_S else failures
                said = str(error) if isinstance(error, WioError) else type(error).__name__
                _log.warning("%s failed: %s", name, said, exc_info=None if isinstance(error, WioError) else error)
                self.access.notice(name, f"{name.capitalize()} failed and is tried again: {said}")
                self.link.health_changed()
                await asyncio.sleep(min(FIRST_DELAY_S * 2**failures, LAST_DELAY_S))
                failures += 1
            else:
                self.access.notice(name, None)
                return
            finally:
                well.cancel()

    async def _reach_storage(self) -> None:
        """Wait for the storage server, and make it agree before anything else."""
        failures = 0
        while True:
            try:
                swept = await self.access.verify_once()
            except WioError as error:
                problem = error.problem
            else:
                if not any(problem.retry for problem in swept.problems):
                    break
                problem = swept.problems[0]
            if failures == 0:
                _log.warning("waiting for the storage server: %s", problem.message)
            self.access.notice("storage", problem.message)
            await asyncio.sleep(min(FIRST_DELAY_S * 2**failures, LAST_DELAY_S))
            failures += 1
        self.access.notice("storage", None)
        self._reached = True
        _tell(swept)

    async def _watch(self) -> None:
        try:
            await self.storage.watch(self.ledger.configs, self.feed.hint, self._calls.add)
        finally:
            self.schedule.request_all()  # what happened meanwhile nobody reported

    async def _expire(self) -> None:
        limits = self.access.ceiling
        while True:
            wait = await self.access.expire_once()
            if limits is not self.access.ceiling:
                limits = self.access.ceiling
                await self.link.limits_changed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self.access.changed.wait()

    async def _verify(self) -> None:
        """Compare now and then, with a look for holders that nobody remembers (150 ms, 64 MiB) every hour."""
        for number in itertools.count(1):
            await asyncio.sleep(VERIFY_EVERY_S)
            _tell(await self.access.verify_once(orphans=number % ORPHANS_EVERY == 0))

    async def _look(self) -> None:
        """Compare at once when the storage server is back from wherever it was: it may be as it was last month."""
        once_more: float | None = None
        while True:
            swept = await self.access.look_once()
            now = time.monotonic()
            if swept is not None:
                _tell(swept)
                self.schedule.request_all()  # what it was still to report is lost with it
                once_more = now + TWICE_S
            elif once_more is not None and now >= once_more:
                self.schedule.request_all()
                once_more = None
            await asyncio.sleep(LOOK_EVERY_S)

    async def _give_keys(self) -> None:
        if not self._settings.endpoint_host:
            return
        async with self.endpoint.listening(self._settings.endpoint_host, self._settings.endpoint_port):
            _log.info("keys for people on this machine: %s", self.endpoint.address)
            await asyncio.Event().wait()

    async def _watch_state(self) -> None:
        """Raise NotFound once the state directory is gone: what was written from then on nobody would ever read."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if not (name := self.state.missing()):
                continue
            await asyncio.sleep(LOOK_EVERY_S)  # once may be somebody who puts a copy in its place
            if not self.state.missing():
                continue
            gone = NotFound(
                f"{self.state.path / name} was removed while the agent ran, so it stopped.",
                todo=f"Put a copy back; or: wio node invite {self._node.name} --replace, and join again with what that prints.",
            )
            self.access.notice("state", f"{gone.message} {gone.todo}")
            self.link.health_changed()
            await asyncio.sleep(TOLD_S)
            raise gone

    async def _tidy(self) -> None:
        while True:
            ended = await self.access.tidy_once()
            if ended:
                _log.info("ended %d uploads in places over their quota", ended)
            await asyncio.sleep(TIDY_EVERY_S)

    async def _probe(self) -> None:
        """Try the server again after every start: it may be another version now."""
        facts = await self.storage.probe()
        if facts != self._facts:
            self._facts = facts
            self.state.keep_facts(facts)
            self.link.report_changed()
        await asyncio.Event().wait()

    def limits(self, config: RootConfig) -> Limits:
        """Return how a root may be scanned: what the hub asks for and what the owner allows, together."""
        owner = self.access.ceiling
        return together(Limits(config.pace, (config.quiet,)), Limits(owner.highest_pace, owner.quiet_hours or ()))

    def _quiet_s(self, root: int) -> float:
        """Return for how many more seconds a root's quiet hours last."""
        try:
            quiet = self.limits(self.ledger.config(root)).quiet
        except UnknownRoot:
            return 0.0
        now = clock()
        end = quiet_until(quiet, now)
        return float("inf") if end is None else (end - now) / 1_000_000

    def report(self) -> Report:
        """Return what the hub is told about this node."""
        limits, facts = self.access.ceiling, self._facts or ServerFacts("not yet tried", Finding.UNKNOWN, ())
        return Report(
            agent_version=version("workspacesio"),
            storage=self.storage.kind,
            server=facts.server[:500],
            endpoints=self._node.storage.public_endpoints,
            region=self._node.storage.region,
            isolates_names=facts.isolates_names,
            probes=facts.probes[:64],
            ceiling=ceilings.sentences(limits),
            longest_key_s=limits.longest_key_s,
            longest_link_s=limits.longest_link_s,
        )


def _tell(swept: Swept) -> None:
    if swept.differed:
        _log.warning("%d holders had other access on the server than they are meant to have: repaired", swept.differed)
    for orphan in swept.orphans:
        _log.warning("removed what nobody remembers: %s", orphan)


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Agent]:
    """Give an agent that is open and does not run: for what the owner asks while none does."""
    agent = Agent(settings, StateDirectory(settings.state))
    await agent.open()
    try:
        yield agent
    finally:
        await agent.close()
