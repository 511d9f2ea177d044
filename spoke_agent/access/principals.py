"""Everybody this node knows: their newest grant set, who carries it on the server, which keys are out.

In memory, and written down by ``records`` before the server hears of it. Decides what a subject may do *now*
(``Principals.allowed``): the signed set, and under it the ceiling, the lease, every grant's expiry, and the owner's pause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocol.errors import WioError
from protocol.grants import Grant, GrantSet, SignedGrantSet, Subject, SubjectKind, content_hash, open_set
from protocol.messages import Refusal
from spoke_agent.access.ceiling import Ceiling, clamp
from spoke_agent.access.reach import intersect, living
from spoke_agent.access.records import HolderRecord, KeyRecord, Records, SubjectRecord
from spoke_agent.storage.node import Holder, HolderKind

MICRO: Final = 1_000_000
HEARD_EVERY_S: Final = 60
"""How often it is written down that the hub was heard of."""
PROBE: Final = ("probe", 0)
"""The agent's own holder, which has nothing but shared access."""

HERE: Final = "minted_here:"
"""How the facts begin that say until when a person's keys may be out that were minted without the hub."""

SubjectKey = tuple[SubjectKind, int]
Clock = Callable[[], int]
"""Gives Unix microseconds."""
Chance = Callable[[int], bytes]
"""Gives so many random bytes, fit for keys."""


class Principal:
    """One subject. What concerns the server is changed only while ``Principals.lock`` of it is held."""

    def __init__(self, record: SubjectRecord, grant_set: GrantSet, other: GrantSet | None, holder: Holder | None) -> None:
        self.record = record
        self.grant_set = grant_set
        self.other = other
        self.content = content_hash(grant_set)
        self.granted = intersect(grant_set.grants, other.grants) if other is not None else grant_set.grants
        self.holder = holder
        self.enforced: tuple[Grant, ...] | None = None
        """What the server was made to allow; None where that is not known."""
        self.opened: tuple[Grant, ...] = ()
        """What may be open on the server at most, as far as this process knows: for saying what was taken away."""
        self.made = holder is not None
        """Whether the holder is on the server, as far as this process knows."""
        self.attached: tuple[Holder, ...] | None = None
        """Which shared holders the server counts for this person; None where that is not known."""
        self.cached: tuple[tuple[int, ...], Allowed] | None = None
        self.version = 0
        """Counts the sets taken in: what is worked out from this subject's set holds until it moves."""

    @property
    def subject(self) -> Subject:
        """Who it is."""
        return self.grant_set.subject

    @property
    def epoch(self) -> int:
        """The newest epoch accepted."""
        return self.grant_set.epoch

    @property
    def is_person(self) -> bool:
        """Whether people get keys of it."""
        return self.subject.kind is SubjectKind.PERSON

    @property
    def is_link(self) -> bool:
        """Whether it is a presigned link: it has a holder of its own, and may never do more than who made it."""
        return self.subject.kind is SubjectKind.LINK

    @property
    def is_shared(self) -> bool:
        """Whether its access counts for many persons beside their own."""
        return not (self.is_person or self.is_link)

    @property
    def applied(self) -> bool:
        """Whether the server was made to agree with the newest set."""
        return (self.record.applied_epoch, self.record.applied_content) == (self.epoch, self.content)

    def accept(self, record: SubjectRecord, grant_set: GrantSet, other: GrantSet | None) -> None:
        """Take a newer set in, once it is written down."""
        self.record, self.grant_set, self.other = record, grant_set, other
        self.content = content_hash(grant_set)
        self.granted = intersect(grant_set.grants, other.grants) if other is not None else grant_set.grants
        self.cached = None
        self.version += 1


class Allowed(msgspec.Struct, frozen=True):
    """What a subject may do now, what the ceiling cut away, and when that changes by itself (Unix seconds)."""

    grants: tuple[Grant, ...]
    refusals: tuple[Refusal, ...]
    until: int | None


class Principals:
    """All subjects of this node."""

    def __init__(
        self, records: Records, hub_key: Ed25519PublicKey, node: int, ceiling: Ceiling, clock: Clock, *, paused: bool
    ) -> None:
        self.records = records
        self.hub_key = hub_key
        self.node = node
        self.clock = clock
        self._ceiling = ceiling
        self._paused = paused
        self._rules = 0
        """Counts the changes of ceiling and pause."""
        self._locks: dict[SubjectKey, asyncio.Lock] = {}
        self.evicted = False
        self.heard_at = 0
        """When the hub was last heard of, in Unix seconds."""
        self.warnings: list[str] = []
        self._all: dict[SubjectKey, Principal] = {}
        self._holders: dict[str, HolderRecord] = {}
        self._links: dict[int, dict[int, Principal]] = {}
        """Links by who made them: person -> link -> the link."""
        self._keys: dict[int, dict[str, int]] = {}
        """Living keys by person: access key -> expiry."""
        self._heard_kept = 0
        self._minted_here: dict[int, int] = {}
        """Until when keys may be out that were minted without the hub, by person."""
        self.minted_here = asyncio.Event()
        """Set when such a key was minted. Whoever tells the hub clears it."""

    @property
    def now(self) -> int:
        """The time in Unix seconds."""
        return self.clock() // MICRO

    # -------------------------------------------------------------------------------------------------- life

    async def open(self) -> None:
        """Read what is on disk. A set whose signature does not verify counts as one without grants."""
        loaded = await self.records.open(self.now)
        self._holders = {record.holder.name: record for record in loaded.holders}
        active = {record.subject: record.holder for record in loaded.holders if not record.retired}
        for record in loaded.subjects:
            subject = record.subject
            grant_set, other = self._reopen(record)
            holder = active.get((subject.kind.value, subject.id))
            self._add(Principal(record, grant_set, other, holder))
        for key in loaded.keys:
            self._keys.setdefault(key.subject_id, {})[key.access_key] = key.expires
        self.heard_at = self._heard_kept = loaded.facts.get("heard_at", 0)
        self.evicted = bool(loaded.facts.get("evicted", 0))
        for name, until in loaded.facts.items():
            if name.startswith(HERE):
                self._minted_here[int(name.removeprefix(HERE))] = until

    def _add(self, principal: Principal) -> None:
        self._all[principal.subject.kind, principal.subject.id] = principal
        if principal.is_link:
            self._links.setdefault(principal.grant_set.under, {})[principal.subject.id] = principal

    def _reopen(self, record: SubjectRecord) -> tuple[GrantSet, GrantSet | None]:
        try:
            grant_set = open_set(self.hub_key, record.signed)
            other = open_set(self.hub_key, record.other) if record.other is not None else None
            mine = (self.node, record.subject.kind, record.subject.id, record.epoch)
            for one in (grant_set, other or grant_set):
                if (one.node, one.subject.kind, one.subject.id, one.epoch) != mine:
                    raise WioError("A stored grant set is another one than its record says.")  # noqa: TRY301 - one way out
        except WioError:
            self.warnings.append(f"The stored grant set of {record.subject.name} is damaged: it counts as empty.")
            return GrantSet(self.node, record.subject, record.epoch, (), 0), None
        return grant_set, other

    # -------------------------------------------------------------------------------------------------- rules

    @property
    def ceiling(self) -> Ceiling:
        """The owner's limits."""
        return self._ceiling

    @property
    def paused(self) -> bool:
        """Whether the owner has everybody cut off."""
        return self._paused

    def rule(self, *, ceiling: Ceiling | None = None, paused: bool | None = None) -> None:
        """Change the owner's limits, or the pause. The server does not know of it yet."""
        self._ceiling = self._ceiling if ceiling is None else ceiling
        self._paused = self._paused if paused is None else paused
        self._rules += 1

    # -------------------------------------------------------------------------------------------------- who

    def lock(self, subject: Subject) -> asyncio.Lock:
        """Return the lock under which a subject's access is changed."""
        return self._locks.setdefault((subject.kind, subject.id), asyncio.Lock())

    def __iter__(self) -> Iterator[Principal]:
        return iter(list(self._all.values()))

    def get(self, subject: Subject) -> Principal | None:
        """Return a subject that is known here."""
        return self._all.get((subject.kind, subject.id))

    def persons(self) -> list[Principal]:
        """Return all persons that have a holder."""
        return [one for one in self if one.is_person and one.holder is not None]

    def links(self) -> list[Principal]:
        """Return all links that have a holder."""
        return [link for made in self._links.values() for link in made.values() if link.holder is not None]

    def links_under(self, principal: Principal) -> list[Principal]:
        """Return the links that have a holder and lean on a subject's access: a person's own, a shared subject's members'."""
        if principal.is_person:
            return [link for link in self._links.get(principal.subject.id, {}).values() if link.holder is not None]
        if principal.is_link:
            return []
        return [link for link in self.links() if principal in self._wider(link)]

    def _wider(self, link: Principal) -> list[Principal]:
        """Return whose access together a link can never exceed: its maker's, with what is shared with them."""
        maker = self._all.get((SubjectKind.PERSON, link.grant_set.under))
        return [] if maker is None else [maker, *self.shared_of(maker)]

    def over(self, link: Principal) -> bool:
        """Say whether a link has ended for good: it was revoked, or its time is up."""
        return self.now >= link.grant_set.lease_end or not living(link.granted, self.now)

    def shared_of(self, person: Principal) -> list[Principal]:
        """Return the shared subjects that count for a person: everyone, and the groups its set names."""
        shared = [(SubjectKind.EVERYONE, 0), *((SubjectKind.GROUP, group) for group in person.grant_set.groups)]
        return [found for key in shared if (found := self._all.get(key)) is not None]

    def members_of(self, shared: Principal) -> list[Principal]:
        """Return the persons with a holder for whom a shared subject counts."""
        return [person for person in self.persons() if shared in self.shared_of(person)]

    def who(self, holder: str) -> int:
        """Return the id of the person behind a holder's name, also one no longer used; 0 for nobody.

        Behind a link is who made it.
        """
        record = self._holders.get(holder)
        kind, number = record.subject if record is not None else ("", 0)
        if kind == SubjectKind.LINK.value:
            link = self._all.get((SubjectKind.LINK, number))
            return 0 if link is None else link.grant_set.under
        return number if kind == SubjectKind.PERSON.value else 0

    def active_holders(self) -> list[Holder]:
        """Return all holders that are to be on the server."""
        return [record.holder for record in self._holders.values() if not record.retired]

    # -------------------------------------------------------------------------------------------------- what

    def allowed(self, principal: Principal) -> Allowed:
        """Say what a subject may do now."""
        if self._paused or self.evicted:
            return Allowed((), (), None)
        wider = self._wider(principal) if principal.is_link else []
        stamp = (self._rules, *(number for one in wider for number in (id(one), one.version)))
        cached = principal.cached  # set aside by ``accept``; what it leans on besides is in the stamp
        if cached is not None and cached[0] == stamp and cached[1].until is not None and self.now < cached[1].until:
            return cached[1]
        allowed = self._work_out(principal)
        if principal.is_link:
            allowed = _under(allowed, [self.allowed(one) for one in wider])
        principal.cached = (stamp, allowed)
        return allowed

    def _work_out(self, principal: Principal) -> Allowed:
        now, lease_end = self.now, self.lease_end(principal)
        if now >= lease_end:
            return Allowed((), (), None)
        clamped = clamp(self.ceiling, principal.subject, principal.granted)
        left = living(clamped.grants, now)
        ends = [grant.expires for grant in left if grant.expires is not None]
        return Allowed(left, clamped.refusals, min([*ends, lease_end]))

    def lease_end(self, principal: Principal) -> int:
        """Return when a subject's access ends unless the hub is heard of, in Unix seconds."""
        ends = [one.lease_end for one in (principal.grant_set, principal.other) if one is not None]
        return min(*ends, self.heard_at + self._ceiling.longest_lease_s)

    def whole(self, person: Principal) -> tuple[Grant, ...]:
        """Return everything the server was made to allow a person, shared access included."""
        shared = [grant for one in self.shared_of(person) for grant in (one.enforced or ())]
        return (*(person.enforced or ()), *shared)

    # -------------------------------------------------------------------------------------------------- keys

    def keys_out(self, principal: Principal) -> int:
        """Return how many keys are out for which this subject's access counts."""
        if principal.is_person:
            return self._living(principal.subject.id)
        if principal.is_link:
            return int(principal.holder is not None)
        return sum(self._living(person.subject.id) for person in self.members_of(principal))

    def _living(self, person: int) -> int:
        keys = self._keys.get(person, {})
        now = self.now
        for name in [name for name, expires in keys.items() if expires <= now]:
            del keys[name]
        return len(keys)

    # -------------------------------------------------------------------------------------------------- changes

    async def accept(self, signed: SignedGrantSet, grant_set: GrantSet, other: tuple[SignedGrantSet, GrantSet] | None) -> None:
        """Write the newest set of a subject down, then take it in."""
        key = (grant_set.subject.kind, grant_set.subject.id)
        known = self._all.get(key)
        applied = (known.record.applied_epoch, known.record.applied_content) if known is not None else (0, b"")
        record = SubjectRecord(grant_set.subject, grant_set.epoch, signed, other[0] if other else None, *applied)
        await self.records.keep_set(record)
        opened = other[1] if other else None
        if known is not None:
            known.accept(record, grant_set, opened)
        else:
            self._add(Principal(record, grant_set, opened, None))

    async def note_applied(self, principal: Principal) -> None:
        """Note that the server agrees with the newest set."""
        principal.record = msgspec.structs.replace(
            principal.record, applied_epoch=principal.epoch, applied_content=principal.content
        )
        await self.records.keep_applied(principal.subject, principal.epoch, principal.content)

    async def give_holder(self, principal: Principal, holder: Holder) -> None:
        """Write down who carries a subject's access, before it is made on the server."""
        await self._keep(HolderRecord(holder, (principal.subject.kind.value, principal.subject.id), retired=False))
        principal.holder, principal.enforced, principal.made, principal.attached = holder, None, False, None

    async def retire_holder(self, principal: Principal) -> None:
        """Never use a subject's holder again."""
        if principal.holder is not None:
            await self.retire(principal.holder)
        principal.holder, principal.enforced, principal.made, principal.attached = None, None, False, None
        principal.opened = ()

    async def forget(self, link: Principal) -> None:
        """Forget a link that is over and has no holder any more, as if it had never been."""
        await self.records.drop_link(link.subject.id)
        key = (link.subject.kind, link.subject.id)
        self._all.pop(key, None)
        self._links.get(link.grant_set.under, {}).pop(link.subject.id, None)
        mine = (link.subject.kind.value, link.subject.id)
        self._holders = {name: record for name, record in self._holders.items() if record.subject != mine}

    async def give_probe(self, holder: Holder) -> None:
        """Write down the agent's own holder."""
        await self._keep(HolderRecord(holder, PROBE, retired=False))

    async def retire(self, holder: Holder) -> None:
        """Never use a holder again; its name is kept, to know who it was."""
        record = self._holders[holder.name]
        await self._keep(msgspec.structs.replace(record, retired=True))

    def probe(self) -> Holder | None:
        """Return the agent's own holder."""
        found = (record.holder for record in self._holders.values() if record.subject == PROBE and not record.retired)
        return next(found, None)

    async def _keep(self, record: HolderRecord) -> None:
        await self.records.keep_holder(record)
        self._holders[record.holder.name] = record

    async def note_key(self, key: KeyRecord) -> None:
        """Note that a key was handed out."""
        self._keys.setdefault(key.subject_id, {})[key.access_key] = key.expires
        await self.records.keep_key(key)

    async def note_minted_here(self, person: Principal, until: int) -> None:
        """Note that a key was handed out of which the hub does not know."""
        number = person.subject.id
        if until > self._minted_here.get(number, 0):
            self._minted_here[number] = until
            await self.records.keep_fact(f"{HERE}{number}", until)
        self.minted_here.set()

    def keys_minted_here(self) -> list[tuple[Subject, int]]:
        """Return whose keys may be out of which the hub was not asked, and until when (Unix seconds)."""
        known = {one.subject.id: one.subject for one in self if one.is_person}
        return [(known[number], until) for number, until in self._minted_here.items() if until > self.now and number in known]

    async def heard(self) -> None:
        """Note that the hub was heard of now."""
        self.heard_at = max(self.heard_at, self.now)
        if self.heard_at - self._heard_kept >= HEARD_EVERY_S:
            self._heard_kept = self.heard_at
            await self.records.keep_fact("heard_at", self.heard_at)

    async def note_evicted(self) -> None:
        """Note for good that the hub no longer wants this node."""
        self.evicted = True
        await self.records.keep_fact("evicted", 1)


def _under(own: Allowed, wider: Sequence[Allowed]) -> Allowed:
    """Return what of a link's own access others have too, and until when that is so."""
    grants = intersect(own.grants, [grant for one in wider for grant in one.grants])
    ends = [one.until for one in (own, *wider) if one.until is not None]
    return Allowed(grants, own.refusals, min(ends, default=None))


def new_holder(kind: HolderKind, chance: Chance) -> Holder:
    """Name a new holder: 128 random bits, so that no name ever comes twice."""
    return Holder(kind, chance(16).hex())


def holders_of(shared: Iterable[Principal]) -> list[Holder]:
    """Return the holders of shared subjects that have one on the server."""
    return [one.holder for one in shared if one.holder is not None and one.made]
