"""``Access``: who may do what on this node. The one door through which the rest of the agent comes.

The hub's signed word comes in, the owner's ceiling and pause stand above it, the storage server is made to agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from protocol.errors import BadName, BadSetting, NotAllowed, OverCeiling, Problem, StorageUnreachable, WioError
from protocol.grants import Narrowing, Permission
from protocol.identity import verify_eviction
from protocol.messages import (
    CheckRoot,
    Epochs,
    EpochState,
    Evict,
    Explain,
    Explained,
    GrantsApplied,
    GrantsRefused,
    IndexLevel,
    KeysOut,
    LinkSigned,
    Mint,
    Minted,
    OutUntil,
    PlaceWorkspace,
    RootConfig,
    SetGrants,
    SignLink,
    WireProof,
)
from protocol.names import Layout, Place, check_prefix, locate, shown
from spoke_agent.access import ceiling as ceilings
from spoke_agent.access import overview
from spoke_agent.access.applying import Applying, Swept
from spoke_agent.access.ceiling import Ceiling
from spoke_agent.access.minting import KeyOut, Minting
from spoke_agent.access.overview import Budget, Cut, Reach
from spoke_agent.access.presigning import Presigning
from spoke_agent.access.principals import MICRO, Chance, Clock, Principal, Principals
from spoke_agent.access.receipts import Receipts, proof_of
from spoke_agent.access.records import Records
from spoke_agent.access.state import StateDirectory
from spoke_agent.storage.node import Credential, StorageNode

EPOCHS_IN_ONE: Final = 3000
"""Subjects in one message: 200 bytes each at most, so that it fits a frame."""
KEYS_IN_ONE: Final = 1000
MAX_WARNINGS: Final = 16
RETRY_S: Final = 2
"""How soon what the server did not take is tried again."""
LOOK_S: Final = 5
"""How often ceiling and clock are looked at when nothing is known to come sooner."""
SAME_START_S: Final = 1
"""Two answers to when the server was started may differ by this and mean the same start (``StorageNode.started``)."""
UPLOAD_S: Final = 3600
"""How old an upload gets in a place over its quota before it is ended."""
UNKNOWN: Final = bytes(32)
"""The content hash of an epoch that is kept but not enforced: differs from every real one."""


class Access:
    """Who may do what on this node. ``open`` it first; then ``verify_once`` before anything is minted."""

    def __init__(
        self,
        state: StateDirectory,
        storage: StorageNode,
        roots: Callable[[int], RootConfig],
        *,
        clock: Clock,
        chance: Chance,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``roots`` gives a root of this node, or raises UnknownRoot. ``clock`` gives Unix microseconds."""
        settings = state.settings()
        self._state = state
        self._storage = storage
        self._roots = roots
        self._ceiling_stamp = state.ceiling_stamp()
        limits = ceilings.parse(state.ceiling_text())
        self._records = Records(state.path / "grants.sqlite")
        self._principals = Principals(self._records, settings.pinned, settings.node, limits, clock, paused=state.paused)
        self._receipts = Receipts(storage, clock, pause)
        self._applying = Applying(storage, self._principals, self._receipts, chance)
        self._minting = Minting(storage, self._principals, self._applying, settings, state.secrets())
        self._presigning = Presigning(storage, self._principals, self._applying, settings, state.secrets())
        self._unsettled: tuple[Problem, ...] = ()
        self._ceiling_problem = ""
        self._notices: dict[str, str] = {}
        self._started: int | None = None
        """When the storage server was started, in Unix microseconds, as closely as its answers say."""
        self._doubt = False
        """Whether the server may have another access than it was made to have."""

    # -------------------------------------------------------------------------------------------------- life

    async def open(self) -> None:
        """Read what is on disk. Raises BadSetting or DiskFull."""
        await self._principals.open()

    async def close(self) -> None:
        """Finish writing, close the file."""
        await self._records.close()

    # -------------------------------------------------------------------------------------------------- the hub asks

    async def set_grants(self, request: SetGrants) -> GrantsApplied | GrantsRefused:
        """Make the server agree with a grant set, and prove it: see ``Applying.set_grants``."""
        return await self._applying.set_grants(request)

    async def mint(self, request: Mint) -> Minted:
        """Mint a key, sealed to whoever asked: see ``Minting.mint``."""
        return await self._minting.mint(request)

    async def sign_link(self, request: SignLink) -> LinkSigned:
        """Presign one request of a link, sealed to whoever asked: see ``Presigning.sign``."""
        return await self._presigning.sign(request)

    async def mint_here(self, person: int, life_s: int, narrowing: Narrowing) -> Credential:
        """Mint a key without the hub, for a person who is known here: see ``Minting.mint_here``."""
        return await self._minting.mint_here(person, life_s, narrowing)

    async def explain(self, request: Explain) -> Explained:
        """Say what the server itself answers to a person at a key, just now. Raises UnknownRoot."""
        root = self._roots(request.root)
        place = locate(root.layout, root.bucket, root.prefix, request.key)
        principal = self._principals.get(request.subject)
        if principal is None or principal.holder is None:
            epoch = principal.epoch if principal is not None else 0
            return Explained(request.request, epoch, f"{request.subject.name} never had a key here, so nothing is open.", 0)
        proof = await self._proof_at(principal, place.bucket, place.key)
        policy = f"{principal.holder.name}: {self._why(principal, place.bucket, place.key)}"
        keys = self._principals.keys_out(principal)
        return Explained(request.request, principal.epoch, policy[:500], keys, proof)

    async def check_root(self, request: CheckRoot) -> None:
        """Raise OverCeiling or RootMissing where this root may not or cannot be here."""
        ceilings.check_root(self._principals.ceiling, request.root)
        await self._storage.check_root(request.root)

    async def place_workspace(self, request: PlaceWorkspace) -> None:
        """Make room for a workspace. Raises UnknownRoot, BadName, OverCeiling, RootMissing, or what the server says."""
        root = self._roots(request.root)
        check_prefix(request.prefix)
        if not request.prefix:
            raise BadName("A workspace has a folder of its own; this one has none.")
        place = locate(root.layout, root.bucket, root.prefix, request.prefix)
        ceilings.check_place(self._principals.ceiling, place.bucket, place.key)
        if root.layout is Layout.PREFIX:
            await self._storage.check_root(root)
            return
        if self._principals.ceiling.read_only:
            raise OverCeiling("This node is read only: no bucket is made for a workspace.", todo="Ask the node's owner.")
        if place.key:
            raise BadName(f"A workspace of root {root.name} is a whole bucket, not {shown(request.prefix)}.")
        await self._storage.make_bucket(place.bucket)

    async def evict(self, evict: Evict) -> None:
        """Take back everything, for good. Raises BadSignature unless the hub said it; StorageUnreachable: try again."""
        verify_eviction(self._principals.hub_key, evict, self._principals.node)
        await self._principals.note_evicted()
        swept = await self._sweep(self._applying.agree_all())
        if swept.problems:
            raise NotAllowed(f"The eviction is not enforced everywhere yet: {swept.problems[0].message}")

    async def epochs(self) -> Sequence[Epochs]:
        """Return what is enforced now. An epoch that is kept but not enforced comes with a content that equals no other."""
        states = [EpochState(one.subject, one.epoch, one.content if one.applied else UNKNOWN) for one in self._principals]
        parts = [states[at : at + EPOCHS_IN_ONE] for at in range(0, len(states), EPOCHS_IN_ONE)] or [[]]
        return [Epochs(tuple(part), part is parts[-1]) for part in parts]

    def keys_minted_here(self) -> Sequence[KeysOut]:
        """Return whose keys may be out that the hub did not ask for, and until when; nothing where there are none."""
        keys = [OutUntil(subject, until) for subject, until in self._principals.keys_minted_here()]
        return [KeysOut(tuple(keys[at : at + KEYS_IN_ONE])) for at in range(0, len(keys), KEYS_IN_ONE)]

    @property
    def minted_here(self) -> asyncio.Event:
        """Set when a key was minted without the hub: it wants to know. Whoever tells it clears it."""
        return self._principals.minted_here

    def admit(self, root: RootConfig) -> RootConfig | None:
        """Return a root as the owner lets the hub have it, perhaps with a lower index level; None where not at all."""
        limits = self._principals.ceiling
        try:
            ceilings.check_root(limits, msgspec.structs.replace(root, level=IndexLevel.NONE))
        except OverCeiling:
            return None
        try:
            ceilings.check_level(limits, root)
        except OverCeiling:
            return msgspec.structs.replace(root, level=limits.highest_index_level)
        return root

    # -------------------------------------------------------------------------------------------------- now and then

    async def heard(self) -> None:
        """Note that the hub is there: leases that the owner limits count from the last word of the hub."""
        await self._principals.heard()

    async def expire_once(self) -> float:
        """Take away what has ended, carry out what the server did not take before, look at the owner's file.

        Return in how many seconds to come again; sooner if ``changed`` is set.
        """
        self.changed.clear()
        self._read_ceiling()
        swept = await self._sweep(self._applying.agree_all())
        if swept.problems:
            return RETRY_S
        ends = [self._principals.allowed(one).until for one in self._principals if one.holder is not None]
        now_s = self._principals.clock() / MICRO
        return min([float(LOOK_S), *(max(end - now_s, 0.0) for end in ends if end is not None)])

    async def verify_once(self, *, orphans: bool = True) -> Swept:
        """Compare what the server actually allows with what it is meant to, and repair it: see ``Applying.verify_once``."""
        return await self._sweep(self._applying.verify_once(orphans=orphans))

    async def look_once(self) -> Swept | None:
        """Verify, at once, where the storage server was away or was started anew since the last look: it may be a backup's.

        Return what came of that, None where there was no reason. Raises StorageRefused.
        """
        try:
            started = await self._storage.started()
        except StorageUnreachable:
            self._doubt = True
            return None
        if started is not None:
            known = self._started
            again = known is not None and started > known + SAME_START_S * MICRO
            self._started = started if known is None or again else min(known, started)
            self._doubt = self._doubt or again
        if not self._doubt:
            return None
        swept = await self.verify_once()
        self._doubt = bool(swept.problems)
        return swept

    async def tidy_once(self) -> int:
        """End uploads that have no end in places where a quota is exceeded; return how many. Raises StorageUnreachable.

        Nobody can complete them, and what their parts take is counted nowhere. Those younger than ``UPLOAD_S`` are left
        alone: a quota that is kept again within that time lets them go on.
        """
        places = {
            Place(grant.bucket, grant.prefix)
            for one in self._principals
            for grant in self._principals.allowed(one).grants
            if grant.permission is Permission.TIDY
        }
        before = self._principals.clock() - UPLOAD_S * MICRO
        return await self._storage.end_uploads(sorted(places), begun_before=before) if places else 0

    @property
    def changed(self) -> asyncio.Event:
        """Set when the next ``expire_once`` may be due sooner than it said."""
        return self._applying.changed

    @property
    def caught_up(self) -> asyncio.Event:
        """Set when something was enforced later than it was asked for: tell the hub the epochs again."""
        return self._applying.caught_up

    async def _sweep(self, step: Awaitable[Swept]) -> Swept:
        swept = await step
        self._unsettled = swept.problems
        return swept

    def _read_ceiling(self) -> None:
        stamp = self._state.ceiling_stamp()
        if stamp == self._ceiling_stamp:
            return
        try:
            limits = ceilings.parse(self._state.ceiling_text())
        except BadSetting as error:
            # Half an edit must not open anything: the limits of before hold.
            self._ceiling_problem = f"{error.message} The limits of before hold."
            return
        self._ceiling_stamp, self._ceiling_problem = stamp, ""
        self._principals.rule(ceiling=limits)

    # -------------------------------------------------------------------------------------------------- the owner asks

    async def pause(self) -> Swept:
        """Cut everybody off, for as long as it takes; survives a restart. What could not be done yet is tried again."""
        self._state.set_paused(paused=True)
        self._principals.rule(paused=True)
        return await self._sweep(self._applying.agree_all())

    async def resume(self) -> Swept:
        """Let everybody in again, as their newest grants and the owner's file say: it may have been edited meanwhile."""
        self._read_ceiling()
        self._state.set_paused(paused=False)
        self._principals.rule(paused=False)
        return await self._sweep(self._applying.agree_all())

    def reaches(self) -> list[Reach]:
        """Return who can reach what now: see ``overview.reaches``."""
        return overview.reaches(self._principals)

    def budgets(self) -> list[Budget]:
        """Return what each subject's access costs, the dearest first."""
        return overview.budgets(self._principals, self._storage.weigh)

    def cuts(self) -> list[Cut]:
        """Return which grants the ceiling file, as it lies there now, narrows or leaves out. Raises BadSetting."""
        return overview.cuts(self._principals, ceilings.parse(self._state.ceiling_text()))

    async def keys(self) -> list[KeyOut]:
        """Return the keys that are out."""
        names = {one.subject.id: one.subject.name for one in self._principals if one.is_person}
        return [
            KeyOut(key.access_key, names.get(key.subject_id, str(key.subject_id)), key.issued_at, key.expires, key.narrowed)
            for key in await self._records.keys(self._principals.now)
        ]

    # -------------------------------------------------------------------------------------------------- small answers

    def who(self, holder: str) -> int:
        """Return the id of the person behind a holder's name; 0 for nobody known."""
        return self._principals.who(holder)

    def probes_with(self, access_key: str) -> bool:
        """Say whether this is one of the agent's own keys, with which it tries what a person may do."""
        return self._receipts.uses(access_key)

    @property
    def paused(self) -> bool:
        """Whether the owner has cut everybody off."""
        return self._principals.paused

    @property
    def evicted(self) -> bool:
        """Whether the hub no longer wants this node."""
        return self._principals.evicted

    @property
    def ceiling(self) -> Ceiling:
        """The owner's limits."""
        return self._principals.ceiling

    def notice(self, part: str, sentence: str | None) -> None:
        """Let a part of the agent that is not well say so among the warnings; None: it is well again."""
        self._notices.pop(part, None)
        if sentence is not None:
            self._notices[part] = sentence

    @property
    def warnings(self) -> Sequence[str]:
        """What the owner and the hub should know, one sentence each."""
        said = [*self._notices.values(), *([self._ceiling_problem] if self._ceiling_problem else [])]
        said += [f"Not enforced yet: {problem.message}" for problem in self._unsettled]
        said += overview.warnings(self._principals)
        said += self._principals.warnings
        return [sentence[:500] for sentence in said[:MAX_WARNINGS]]

    # -------------------------------------------------------------------------------------------------- within

    async def _proof_at(self, principal: Principal, bucket: str, key: str) -> WireProof | None:
        credential: Credential | None = await self._applying.key_of(principal)
        if credential is None:
            return None
        allowed = self._reads(principal, bucket, key)
        try:
            answered = await self._storage.attempt(credential, Permission.READ, Place(bucket, key), key)
        except WioError:
            return None
        return proof_of(answered, allowed=allowed)

    def _reads(self, principal: Principal, bucket: str, key: str) -> bool:
        return any(
            grant.bucket == bucket and key.startswith(grant.prefix) and grant.permission.reads
            for grant in self._principals.whole(principal)
        )

    def _why(self, principal: Principal, bucket: str, key: str) -> str:
        for grant in self._principals.whole(principal):
            if grant.bucket == bucket and key.startswith(grant.prefix):
                return f"{grant.permission} on {grant.bucket}/{grant.prefix}"
        return f"no grant reaches {bucket}/{key}"
