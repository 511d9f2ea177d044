"""What the node's owner may ask of an agent: the same questions and answers whether one runs or not.

A running agent answers over its control socket (``control``); where none runs, ``cli`` opens the agent's parts and asks
here directly. None of it needs the hub.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from protocol.errors import BadSetting, Problem, UnknownRoot
from protocol.messages import ProbeLine, RootConfig
from protocol.names import shown
from spoke_agent.access.access import Access
from spoke_agent.access.applying import Swept
from spoke_agent.access.minting import KeyOut
from spoke_agent.access.overview import Budget, Reach
from spoke_agent.access.overview import Cut as GrantCut
from spoke_agent.access.state import NodeSettings
from spoke_agent.index.feed import Feed
from spoke_agent.index.ledger import Ledger, Standing, is_indexed
from spoke_agent.index.proofs import Proofs
from spoke_agent.index.schedule import Schedule
from spoke_agent.index.snapshot import Totals
from spoke_agent.index.survey import ExtensionCount, OddNames
from spoke_agent.index.verify import Different
from spoke_agent.storage.node import ServerFacts, StorageNode


class What(enum.StrEnum):
    """What can be asked."""

    STATUS = "status"
    GRANTS = "grants"
    BUDGETS = "budgets"
    CUTS = "cuts"
    KEYS = "keys"
    PAUSE = "pause"
    RESUME = "resume"
    ROOTS = "roots"
    SCAN = "scan"
    COUNT = "count"
    VERIFY = "verify"
    PROBE = "probe"


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question; ``root`` is a root's name where one is meant."""

    what: What
    root: str = ""


class RootStatus(msgspec.Struct, frozen=True):
    """One root as the agent knows it. Times in Unix microseconds; ``digest`` as in ``protocol.digest``."""

    name: str
    place: str
    level: str
    objects: int
    bytes: int
    digest: int
    scanned_at: int | None
    scanning: bool
    scan_objects: int
    scan_bytes: int
    problem: Problem | None


class Status(msgspec.Struct, frozen=True):
    """The agent at a glance. ``connected_since`` in Unix microseconds; ``pid`` 0 where none runs."""

    name: str
    node: int
    hub: str
    storage: str
    pid: int
    connected_since: int | None
    problem: Problem | None
    paused: bool
    evicted: bool
    storage_ready: bool
    pending_rows: int
    dirty: int
    keys_out: int
    warnings: tuple[str, ...]
    roots: tuple[RootStatus, ...]
    endpoint: str = ""
    """Where people on this machine get keys; empty: nowhere."""
    unreadable: tuple[str, ...] = ()
    """Extractors that are left out, one sentence each, where the contents of objects are read; see ``probe``."""


class Cut(msgspec.Struct, frozen=True):
    """What came of pausing or resuming: how many holders were changed, and what the server did not take yet."""

    paused: bool
    changed: int
    problems: tuple[Problem, ...]


class Counted(msgspec.Struct, frozen=True):
    """What an import of a root would bring, counted without writing anything down."""

    root: str
    objects: int
    bytes: int
    extensions: tuple[ExtensionCount, ...]
    odd: tuple[OddNames, ...]
    took_s: float
    estimate_s: float
    """How long an import may take."""


class Verified(msgspec.Struct, frozen=True):
    """A root's storage, walked just now, beside what is known of it. ``unsettled``: hints that have not been looked at."""

    root: str
    storage: Totals
    kept: Totals
    recounted: Totals
    unknown: Different
    gone: Different
    other: Different
    same: bool
    unsettled: int


class Probed(msgspec.Struct, frozen=True):
    """What was found out about the storage server."""

    server: str
    probes: tuple[ProbeLine, ...]
    unreadable: tuple[str, ...] = ()
    """Extractors that are left out, one sentence each."""


class Connection(Protocol):
    """How the link to the hub stands."""

    def __call__(self) -> tuple[int | None, Problem | None]:
        """Return (since when there is a session, why there is none)."""


class Extractors(Protocol):
    """What reads fields out of files (``spoke_agent.extraction``)."""

    @property
    def prepared(self) -> bool:
        """Whether it is known which extractors there are."""

    async def prepare(self) -> None:
        """Find it out."""

    def missing(self) -> list[str]:
        """Return a sentence for each that is left out; may block before ``prepare``."""


Answer = (
    Status
    | list[Reach]
    | list[Budget]
    | list[GrantCut]
    | list[KeyOut]
    | Cut
    | list[RootStatus]
    | RootStatus
    | Counted
    | list[Verified]
    | Probed
)


class Owner:
    """Answers. A scan is only begun here: the schedule carries it out."""

    def __init__(
        self,
        *,
        settings: NodeSettings,
        access: Access,
        storage: StorageNode,
        ledger: Ledger,
        schedule: Schedule,
        feed: Feed,
        proofs: Proofs,
        connection: Connection = lambda: (None, None),
        ready: Callable[[], bool] = lambda: False,
        cut: Callable[[], None] = lambda: None,
        endpoint: Callable[[], str] = lambda: "",
        extraction: Extractors | None = None,
    ) -> None:
        """``cut`` is called after a pause or its end; ``ready`` says whether the storage server has been reached."""
        self._settings = settings
        self._access = access
        self._storage = storage
        self._ledger = ledger
        self._schedule = schedule
        self._feed = feed
        self._proofs = proofs
        self._connection = connection
        self._ready = ready
        self._cut = cut
        self._endpoint = endpoint
        self._extraction = extraction
        self._answers: dict[What, Callable[[str], Awaitable[Answer]]] = {
            What.STATUS: lambda _: self.status(),
            What.GRANTS: lambda _: self.grants(),
            What.BUDGETS: lambda _: self.budgets(),
            What.CUTS: lambda _: self.cuts(),
            What.KEYS: lambda _: access.keys(),
            What.PAUSE: lambda _: self.pause(),
            What.RESUME: lambda _: self.resume(),
            What.ROOTS: lambda _: self.roots(),
            What.SCAN: self.scan,
            What.COUNT: lambda root: self.count(self._root(root)),
            What.VERIFY: self.verify,
            What.PROBE: lambda _: self.probe(),
        }

    async def answer(self, ask: Ask) -> Answer:
        """Do what is asked. Raises WioError."""
        return await self._answers[ask.what](ask.root)

    async def status(self) -> Status:
        """Return the agent at a glance."""
        since, problem = self._connection()
        return Status(
            self._settings.name,
            self._settings.node,
            self._settings.hub_url,
            self._settings.storage.url,
            os.getpid(),
            since,
            problem,
            self._access.paused,
            self._access.evicted,
            self._ready(),
            self._ledger.pending,
            self._feed.backlog,
            len(await self._access.keys()),
            tuple(self._access.warnings),
            tuple(await self.roots()),
            self._endpoint(),
            tuple(self._unreadable()),
        )

    async def roots(self) -> list[RootStatus]:
        """Return every root."""
        standings = {standing.root: standing for standing in await self._ledger.standings()}
        return [self._shown(config, standings[config.root]) for config in self._ledger.configs() if config.root in standings]

    async def count(self, root: RootConfig) -> Counted:
        """Walk through a root's storage and count; nothing is written down."""
        found = await self._proofs.count(root)
        return Counted(root.name, found.objects, found.bytes, found.extensions, found.odd, found.took_s, found.estimate_s)

    async def grants(self) -> list[Reach]:
        """Return who can reach what."""
        return self._access.reaches()

    async def budgets(self) -> list[Budget]:
        """Return what everybody's access costs the storage server."""
        return self._access.budgets()

    async def cuts(self) -> list[GrantCut]:
        """Return which grants the ceiling file cuts, as it lies there now."""
        return self._access.cuts()

    async def pause(self) -> Cut:
        """Cut everybody off."""
        return self._told(await self._access.pause())

    async def resume(self) -> Cut:
        """Let everybody in again."""
        return self._told(await self._access.resume())

    async def scan(self, root: str) -> RootStatus:
        """Begin a scan of a root, if none is under way; its quiet hours do not count for what its owner asks for."""
        config = self._root(root)
        if not is_indexed(config):
            raise BadSetting(f"Root {config.name} is not scanned: its index level is {config.level}.")
        self._schedule.insist(config.root)
        await self._schedule.remember()
        return next(one for one in await self.roots() if one.name == config.name)

    async def probe(self) -> Probed:
        """Try the storage server again."""
        facts = probed(await self._storage.probe())
        if self._extraction is None:
            return facts
        await self._extraction.prepare()
        return msgspec.structs.replace(facts, unreadable=tuple(self._extraction.missing()))

    def _unreadable(self) -> list[str]:
        """Say what cannot be read, if that is known and anything is to be read."""
        if self._extraction is None or not self._extraction.prepared or not self._ledger.read():
            return []
        return self._extraction.missing()

    async def verify(self, root: str) -> list[Verified]:
        """Compare one root with its storage, or all that are indexed."""
        return [await self._verify(one) for one in ([self._root(root)] if root else self._ledger.indexed())]

    async def _verify(self, root: RootConfig) -> Verified:
        found = await self._proofs.compare(root)
        return Verified(
            root.name,
            found.storage,
            found.kept,
            found.recounted,
            found.unknown,
            found.gone,
            found.other,
            found.equal,
            self._feed.backlog,
        )

    def _told(self, swept: Swept) -> Cut:
        self._cut()
        return Cut(self._access.paused, swept.changed, swept.problems)

    def _root(self, name: str) -> RootConfig:
        for config in self._ledger.configs():
            if config.name == name:
                return config
        known = ", ".join(sorted(config.name for config in self._ledger.configs())) or "none yet"
        raise UnknownRoot(f"There is no root {shown(name)} on this node.", todo=f"Roots here: {known}.")

    def _shown(self, config: RootConfig, standing: Standing) -> RootStatus:
        return RootStatus(
            config.name,
            f"{config.bucket}/{config.prefix}",
            config.level.value,
            standing.objects,
            standing.bytes,
            standing.digest,
            standing.scanned_at,
            self._schedule.waiting(config.root),
            standing.scan_objects,
            standing.scan_bytes,
            standing.problem,
        )


def probed(facts: ServerFacts) -> Probed:
    """Return the probe table as the owner sees it."""
    return Probed(facts.server, facts.probes)
