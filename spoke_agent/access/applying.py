"""Making the storage server agree: with the newest grant sets, the ceiling, the clock, and the owner's pause.

A set is written down before the server hears of it, wider or narrower: whatever is cut off in between, the next start
finds the newest set on disk and ``verify_once`` makes the server agree with it. There is one way in which access changes,
``agree``, whatever the reason.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

import msgspec

from protocol.errors import BadMessage, Conflict, NotAllowed, OverCeiling, Pending, Problem, WioError, error_of
from protocol.grants import Grant, GrantSet, SignedGrantSet, SubjectKind, content_hash, open_set
from protocol.messages import GrantsApplied, GrantsRefused, Refusal, SetGrants, WireProof
from spoke_agent.access.principals import Chance, Principal, Principals, holders_of, new_holder
from spoke_agent.access.reach import missing
from spoke_agent.access.receipts import Receipts
from spoke_agent.storage.node import Credential, Holder, HolderKind, StorageNode

_T = TypeVar("_T")

AT_ONCE: Final = 8
"""Holders changed side by side: more only queue up on the server."""


class Verdict(enum.Enum):
    """What a set is, beside the one that is known."""

    NEWER = "newer"
    REPEATED = "repeated"
    DIFFERENT = "different"
    """The same epoch with other content: a hub restored from its backup, or worse."""


class Changed(msgspec.Struct, frozen=True):
    """What became of a subject's access. ``at`` in Unix microseconds, when the server had confirmed the last write."""

    before: tuple[Grant, ...]
    after: tuple[Grant, ...]
    refusals: tuple[Refusal, ...]
    at: int


class Beside(msgspec.Struct, frozen=True):
    """What shared sets open beside a subject's own: what they open for certain, and what they may open just now."""

    surely: tuple[Grant, ...] = ()
    perhaps: tuple[Grant, ...] = ()


class Swept(msgspec.Struct, frozen=True):
    """What came of making everybody's access agree."""

    changed: int = 0
    problems: tuple[Problem, ...] = ()
    orphans: tuple[str, ...] = ()
    """What was there of holders that nobody remembers, and was removed: a sentence each."""
    differed: int = 0
    """Holders whose access on the server was not what it was meant to be."""


class Applying:
    """Carries access to the server."""

    def __init__(self, storage: StorageNode, principals: Principals, receipts: Receipts, chance: Chance) -> None:
        self._storage = storage
        self._principals = principals
        self._receipts = receipts
        self._chance = chance
        self._making = asyncio.Lock()
        self._probe_lock = asyncio.Lock()
        self._probe_ready = False
        self.changed = asyncio.Event()
        """Set when somebody's access changed, so that the next expiry is worked out anew; never where nothing did."""
        self.caught_up = asyncio.Event()
        """Set when an epoch was applied later than it arrived: the hub does not know yet."""

    # -------------------------------------------------------------------------------------------------- a set arrives

    async def set_grants(self, request: SetGrants) -> GrantsApplied | GrantsRefused:
        """Carry out a grant set and prove it.

        Raises BadSignature, BadMessage, BadName, NotAllowed (another node's), Pending (kept, and the server does not answer).
        """
        principals = self._principals
        grant_set = open_set(principals.hub_key, request.grant_set)
        if grant_set.node != principals.node:
            raise NotAllowed(f"A grant set of {grant_set.subject.name} is for another node; it was ignored.")
        if grant_set.subject.kind is SubjectKind.EVERYONE and grant_set.subject.id != 0:
            raise BadMessage("A grant set for everyone has an id.")
        async with principals.lock(grant_set.subject):
            await _quietly(principals.heard())  # whatever keeps it from being written down must not keep a revocation waiting
            return await self._set_grants(request, grant_set)

    async def _set_grants(self, request: SetGrants, grant_set: GrantSet) -> GrantsApplied | GrantsRefused:
        principals = self._principals
        known = principals.get(grant_set.subject)
        verdict = weigh(known, grant_set)
        if isinstance(verdict, Problem):
            return GrantsRefused(request.request, grant_set.subject, grant_set.epoch, verdict)
        probe: asyncio.Task[Credential | None] | None = None
        if known is not None and known.holder is not None and verdict is not Verdict.REPEATED:
            # Minted before the change, so that it was out when the change came.
            probe = asyncio.create_task(self._probe_key(known))
        beside = self._beside(known) if known is not None else Beside()
        try:
            await self._keep(request.grant_set, grant_set, verdict, known)
            principal = principals.get(grant_set.subject)
            if principal is None:  # pragma: no cover - it was taken in just now
                raise BadMessage("A grant set was not kept.")
            changed = await self._carry_out(principal)
            proofs = await self._prove(principal, probe, changed, beside)
        finally:
            if probe is not None:
                probe.cancel()
            self.changed.set()
        if principal.other is not None:
            return GrantsRefused(request.request, grant_set.subject, grant_set.epoch, _twofold(grant_set), changed.refusals)
        if changed.refusals:
            return GrantsRefused(request.request, grant_set.subject, grant_set.epoch, _cut(changed.refusals), changed.refusals)
        keys = principals.keys_out(principal)
        if principal.is_link:
            await _quietly(self._bury(principal))
        return GrantsApplied(request.request, grant_set.subject, grant_set.epoch, changed.at, keys, proofs)

    async def _keep(self, signed: SignedGrantSet, grant_set: GrantSet, verdict: Verdict, known: Principal | None) -> None:
        """Write a set down. Where that cannot be done, whatever it takes away is taken away all the same."""
        try:
            if verdict is Verdict.NEWER:
                await self._principals.accept(signed, grant_set, None)
            elif verdict is Verdict.DIFFERENT and known is not None and known.other is None:
                await self._principals.accept(known.record.signed, known.grant_set, (signed, grant_set))
        except WioError:
            if known is not None:
                known.accept(known.record, known.grant_set, grant_set)
                await _quietly(self.agree(known))
            raise

    async def _carry_out(self, principal: Principal) -> Changed:
        try:
            return await self.agree(principal)
        except WioError as error:
            raise Pending(
                f"Epoch {principal.epoch} of {principal.subject.name} is kept, but not enforced yet: {error.message}",
                todo="It is enforced as soon as the storage server takes it.",
            ) from error

    # -------------------------------------------------------------------------------------------------- agreeing

    async def agree(self, principal: Principal) -> Changed:
        """Make the server allow exactly what this subject may do now. The caller holds the subject's lock."""
        allowed = self._principals.allowed(principal)
        before, late = principal.opened, not principal.applied
        if principal.holder is None and principal.is_shared and allowed.grants:
            await self.make_holder(principal, allowed.grants)
        elif principal.holder is not None:
            await self._rewrite(principal, principal.holder, allowed.grants)
        await self._follow(principal)
        at = self._principals.clock()
        if late:
            await _quietly(self._principals.note_applied(principal))
        after = allowed.grants if principal.holder is not None else ()
        return Changed(before, after, allowed.refusals, at)

    async def _follow(self, principal: Principal) -> None:
        """Take from the links that lean on somebody's access what that no longer holds. Raises what the server says."""
        swept = await self._sweep(self._principals.links_under(principal), self._agree_one)
        if swept.problems:
            raise error_of(swept.problems[0])

    async def _bury(self, link: Principal) -> bool:
        """Remove what carries a link that is over, and forget it once nobody will speak of it. The caller holds its lock."""
        principals = self._principals
        if not principals.over(link):
            return False
        holder = link.holder
        if holder is not None:
            await self._storage.remove(holder)
            self._receipts.forget(holder)
            await principals.retire_holder(link)
        if principals.now >= link.grant_set.lease_end:
            await principals.forget(link)
        return holder is not None

    async def _rewrite(self, principal: Principal, holder: Holder, grants: tuple[Grant, ...]) -> None:
        if principal.enforced != grants:
            principal.enforced, principal.opened = None, (*principal.opened, *grants)
            await self._storage.set_access(holder, grants)
            principal.enforced = principal.opened = grants
            self.changed.set()
        if principal.is_person:
            await self._attach(principal, holder)

    async def _attach(self, person: Principal, holder: Holder) -> None:
        wanted = tuple(holders_of(self._principals.shared_of(person)))
        if person.attached != wanted:
            person.attached = None
            await self._storage.set_shared(holder, wanted)
            person.attached = wanted

    async def make_holder(self, principal: Principal, grants: tuple[Grant, ...]) -> Holder:
        """Make the holder of a subject on the server. The caller holds the subject's lock.

        Its name is written down first. Where making it fails the name is never used again.
        """
        principals = self._principals
        holder = new_holder(HolderKind.SHARED if principal.is_shared else HolderKind.PERSON, self._chance)
        async with self._making:
            await principals.give_holder(principal, holder)
            shared = tuple(holders_of(principals.shared_of(principal))) if principal.is_person else ()
            try:
                await self._storage.create(holder, grants, shared)
            except WioError:
                await principals.retire_holder(principal)
                await _quietly(self._storage.remove(holder))
                raise
        principal.enforced = principal.opened = grants
        principal.made, principal.attached = True, shared
        self.changed.set()
        if principal.is_person:
            await self._attach(principal, holder)  # shared access may have come meanwhile
        elif principal.is_shared:
            await self._share_out(principal)
        return holder

    async def _share_out(self, shared: Principal) -> None:
        """Let a new shared holder count for everybody it is for."""

        async def one(person: Principal) -> bool:
            async with self._principals.lock(person.subject):
                if person.holder is not None:
                    await self._attach(person, person.holder)
            return True

        swept = await self._sweep(self._principals.members_of(shared), one)
        probe = self._principals.probe()
        if probe is not None:
            await self._storage.set_shared(probe, self._all_shared())
        if swept.problems:
            raise error_of(swept.problems[0])

    def _all_shared(self) -> list[Holder]:
        return holders_of(one for one in self._principals if one.is_shared)

    # -------------------------------------------------------------------------------------------------- everybody

    async def agree_all(self) -> Swept:
        """Make the server agree for everybody: after a pause, a new ceiling, an expiry, an outage.

        One that fails does not hold up the others; it is tried again the next time.
        """
        return await self._sweep(self._principals, self._agree_one)

    async def _agree_one(self, principal: Principal) -> bool:
        async with self._principals.lock(principal.subject):
            if principal.is_link and self._principals.over(principal):
                return await self._bury(principal)
            late = not principal.applied
            wanted = self._principals.allowed(principal).grants
            changed = principal.enforced != wanted if principal.holder is not None else bool(wanted) and principal.is_shared
            if changed or late:
                await self.agree(principal)
            if late:
                self.caught_up.set()
            return changed

    async def verify_once(self, *, orphans: bool = True) -> Swept:
        """Compare what the server actually allows with what it is meant to, and repair it.

        ``orphans``: also remove holders of this node that nobody remembers (costs 150 ms): a lost state directory or a
        server restored from its backup revives nothing.
        """
        shared = await self._sweep([one for one in self._principals if one.is_shared], self._verify_one)
        persons = await self._sweep([*self._principals.persons(), *self._principals.links()], self._verify_one)
        problems = (*shared.problems, *persons.problems)
        async with self._making:  # a holder made just now would look like an orphan
            removed = await self._storage.remove_orphans(self._principals.active_holders()) if orphans else []
        caught_up = await self.agree_all()
        differed = shared.changed + persons.changed
        return Swept(caught_up.changed + differed, (*problems, *caught_up.problems), tuple(removed), differed)

    async def _verify_one(self, principal: Principal) -> bool:
        principals = self._principals
        async with principals.lock(principal.subject):
            if principal.holder is None:
                return False
            actual = await self._storage.get_access(principal.holder)
            if actual is None:
                # Made anew under the old name, keys of the past would live again.
                self._receipts.forget(principal.holder)
                await principals.retire_holder(principal)
                await self.agree(principal)
                return True
            wanted = principals.allowed(principal).grants
            same = actual == self._storage.fingerprint(wanted)
            principal.made, principal.attached = True, None
            principal.enforced = wanted if same else None
            principal.opened = wanted if same else principal.opened
            await self.agree(principal)
            if principal.is_person:
                await self._attach(principal, principal.holder)
            return not same

    async def _sweep(self, what: Iterable[_T], step: Callable[[_T], Awaitable[bool]]) -> Swept:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(item: _T) -> bool | Problem:
            async with slots:
                try:
                    return await step(item)
                except WioError as error:
                    return error.problem

        found = await asyncio.gather(*(one(item) for item in what))
        problems = tuple(dict.fromkeys(answer for answer in found if isinstance(answer, Problem)))
        return Swept(sum(answer is True for answer in found), problems)

    # -------------------------------------------------------------------------------------------------- proving

    async def _probe_key(self, principal: Principal) -> Credential | None:
        """Return a key to prove a subject's access with; None where there is none."""
        try:
            if not principal.is_shared:
                return await self._receipts.key(principal.holder) if principal.holder is not None else None
            return await self._receipts.key(await self._probe_holder())
        except WioError:
            return None  # a change that cannot be proven is a change all the same

    async def _probe_holder(self) -> Holder:
        async with self._probe_lock:
            known = self._principals.probe()
            if known is not None and (self._probe_ready or await self._storage.get_access(known) is not None):
                self._probe_ready = True
                return known
            if known is not None:
                await self._principals.retire(known)
            holder = new_holder(HolderKind.PERSON, self._chance)
            async with self._making:
                await self._principals.give_probe(holder)
                await self._storage.create(holder, (), self._all_shared())
            self._probe_ready = True
            return holder

    def _beside(self, principal: Principal) -> Beside:
        """Return what the key that proves a subject's changes opens beside that subject's own set."""
        if principal.is_link:
            return Beside()
        others = self._principals.shared_of(principal) if principal.is_person else self._principals
        shared = [one for one in others if one.is_shared and one is not principal]
        # A holder that was made just now opens nothing to a person before it is attached to theirs.
        attached = principal.attached or () if principal.is_person else holders_of(shared)
        return Beside(
            tuple(grant for one in shared if one.holder in attached for grant in one.enforced or ()),
            tuple(grant for one in shared for grant in one.opened),
        )

    async def _prove(
        self,
        principal: Principal,
        probe: asyncio.Task[Credential | None] | None,
        changed: Changed,
        beside: Beside,
    ) -> tuple[WireProof, ...]:
        if principal.holder is None:
            return ()
        now = self._beside(principal)
        # A shared set may be on its way to the server at this moment: what it may open proves nothing either way.
        lost = missing((*changed.before, *beside.surely), (*changed.after, *now.perhaps))
        gained = missing((*changed.after, *now.surely), (*changed.before, *beside.perhaps))
        if not lost and not gained:
            return ()
        key = await probe if probe is not None else await self._probe_key(principal)
        return await self._receipts.prove(key, lost, gained) if key is not None else ()

    async def key_of(self, principal: Principal) -> Credential | None:
        """Return a probe key of a person, as ``Explain`` needs it."""
        return await self._probe_key(principal)


def weigh(known: Principal | None, grant_set: GrantSet) -> Verdict | Problem:
    """Say what a set is, beside what is known of its subject; a Problem where it is too old to count. Pure."""
    if known is None or grant_set.epoch > known.epoch:
        return Verdict.NEWER
    if grant_set.epoch < known.epoch:
        return Conflict(
            f"Epoch {grant_set.epoch} of {grant_set.subject.name} is older than epoch {known.epoch}, which this node has.",
            todo="A hub restored from a backup goes on above the highest epoch that its nodes report.",
        ).problem
    return Verdict.REPEATED if content_hash(grant_set) == known.content else Verdict.DIFFERENT


def _twofold(grant_set: GrantSet) -> Problem:
    return Conflict(
        f"There are two grant sets of {grant_set.subject.name} with epoch {grant_set.epoch}: only what both open is open.",
        todo="Was the hub restored from a backup? Let somebody with the right confirm the grants: share again.",
    ).problem


def _cut(refusals: tuple[Refusal, ...]) -> Problem:
    more = f" ({len(refusals)} grants are above the ceiling)" if len(refusals) > 1 else ""
    problem = refusals[0].problem
    return OverCeiling(problem.message[:400] + more, todo="Ask the node's owner: the ceiling file decides.").problem


async def _quietly(what: Awaitable[object]) -> None:
    """Await something that may as well fail: a holder left behind is removed at the next start."""
    try:
        await what
    except WioError:
        return
