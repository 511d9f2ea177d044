"""Desired state: what each node is to allow each subject, compiled, signed, sent, and proven by receipts.

A change is *prepared* inside the transaction that makes it and *delivered* after that has committed. Changes of one
subject on one node take turns, from compiling to the answer, so the node sees them in order; across several workers the
row lock orders the epochs, and a node ignores an epoch lower than the one it has.

Only the living cost something: a subject without keys on the node is marked stale, compiled and sent before its next key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import grant_sets, groups, nodes, standings
from hub.db.database import Database
from hub.db.grant_sets import SetBrief, SetRow
from hub.domain.compile import takes_away
from hub.services.compiling import Compiled, compile_set
from hub.services.ports import Agents, Chance, Clock
from protocol.errors import BadSetting, Internal, Problem, WioError, error_of
from protocol.grants import (
    GrantSet,
    Permission,
    ProbeProof,
    Receipt,
    ReceiptState,
    SignedGrantSet,
    Subject,
    SubjectKind,
    content_hash,
    sign_set,
)
from protocol.messages import GrantsApplied, GrantsRefused, Refusal, SetGrants
from protocol.names import MAX_ID, NodeId

_LOG: Final = logging.getLogger("wio.hub.grants")

DEADLINE_S: Final = 10.0
"""How long a node may take to make its server agree with a set."""
LEASE_S: Final = 30 * 86_400
"""How long an agent honours a set without hearing from the hub."""
EVERYONE: Final = Subject(SubjectKind.EVERYONE, 0, "everyone")
_NARROWINGS: Final = 6
"""How often a set is made narrower because the node refuses some of it: it names 200 grants at a time, each twice at most."""
_MICROSECOND: Final = 1_000_000


class At(msgspec.Struct, frozen=True):
    """A node as sets are sent to it."""

    id: NodeId
    name: str


class Applied(msgspec.Struct, frozen=True):
    """The node enforces it."""

    at: int
    keys_out: int
    proofs: tuple[ProbeProof, ...]


class Refused(msgspec.Struct, frozen=True):
    """The node does not want it."""

    problem: Problem
    refusals: tuple[Refusal, ...]


class Waiting(msgspec.Struct, frozen=True):
    """The node did not answer; it gets the set when it is back."""

    problem: Problem


Outcome = Applied | Refused | Waiting


class Prepared(msgspec.Struct, frozen=True):
    """A change as its transaction leaves it. ``signed`` is None where the node need not hear of it before the next key."""

    node: At
    subject: Subject
    epoch: int
    signed: SignedGrantSet | None
    receipt: Receipt | None
    workspace: int | None = None
    left_out: str | None = None
    without: frozenset[int] = frozenset()
    """The workspaces that the node refused as they were, and that the set is now without."""
    reading: frozenset[int] = frozenset()
    """Those that it refused as they were, and that the set now opens for reading only."""
    lenient: bool = False


class Wish(msgspec.Struct, frozen=True):
    """How a set is to be prepared.

    ``workspace`` is the one that it is about: where a node refuses that very one, nothing is carried out, unless
    ``lenient``: then the rest is. ``receipt``: make one. ``changed_only``: leave alone what stays as it is. ``first``: sign
    the set even if it is the subject's first one here. ``keys_until``: no key for which a group's set counts lives longer.
    """

    workspace: int | None = None
    receipt: bool = False
    lenient: bool = False
    changed_only: bool = False
    first: bool = False
    keys_until: int = 0


class GrantSets:
    """Every grant set of this hub."""

    def __init__(
        self,
        *,
        database: Database,
        agents: Agents,
        clock: Clock,
        chance: Chance,
        hub_key: Ed25519PrivateKey,
        observe: Callable[[Receipt], None] = lambda _: None,
    ) -> None:
        """``observe`` is shown what a node made of each change of access that was sent to it."""
        self._observe = observe
        self._database = database
        self._agents = agents
        self._clock = clock
        self._chance = chance
        self._key = hub_key
        self._locks: WeakValueDictionary[tuple[int, str, int], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turns(self, node: int, *subjects: Subject) -> AsyncIterator[None]:
        """Hold the turns of these subjects on a node; always taken in one order, so that nobody waits in a ring."""
        async with self.all_turns((node, subject) for subject in subjects):
            yield

    @asynccontextmanager
    async def all_turns(self, pairs: Iterable[tuple[int, Subject]]) -> AsyncIterator[None]:
        """Hold the turns of subjects on several nodes."""
        async with AsyncExitStack() as stack:
            for key in sorted({(node, str(subject.kind), subject.id) for node, subject in pairs}):
                lock = self._locks.get(key)
                if lock is None:
                    lock = self._locks[key] = asyncio.Lock()
                await stack.enter_async_context(lock)
            yield

    # -------------------------------------------------------------------------------------------------- preparing

    async def prepare(
        self,
        connection: AsyncConnection,
        node: At,
        *subjects: Subject,
        workspace: int | None = None,
        with_receipt: bool = False,
    ) -> list[Prepared]:
        """Compile the subjects' sets inside the transaction that changes what they are made of; hold their turns meanwhile.

        To be called last in the transaction: it takes locks in the order that all transactions share. ``workspace`` is the
        one that it is about: where a node refuses that very one, nothing is carried out. Raises BadInput where there would
        be too many grants.
        """
        wish = Wish(workspace=workspace, receipt=with_receipt and workspace is not None)
        ordered = sorted(subjects, key=lambda one: (one.kind, one.id))
        prepared = [await self.prepare_one(connection, node, one, wish) for one in ordered]
        await standings.changed(connection)
        return [one for one in prepared if one is not None]

    async def prepare_one(self, connection: AsyncConnection, node: At, subject: Subject, wish: Wish) -> Prepared | None:
        """Do the same for one subject, without saying that who may read what changes. None: it stays as it is."""
        now = self._clock.now()
        row = await grant_sets.claim(connection, node.id, subject)
        alive = living(row, now) or wish.first
        if wish.changed_only and not alive:
            await grant_sets.mark_stale(connection, node.id, subject)
            return None
        compiled = await compile_set(connection, node.id, subject, now)
        if wish.changed_only and _stands(row, compiled, subject, now):
            await grant_sets.mark_fresh(connection, node.id, subject)
            return None
        signed, epoch, exposure = None, row.epoch, None
        if not alive:
            await grant_sets.mark_stale(connection, node.id, subject)
        else:
            if row.epoch > 0 and _takes_away(row.body, compiled):
                exposure = max(0, -(-(max(row.keys_until, wish.keys_until) - now) // _MICROSECOND))
            signed, epoch = await self._sign(connection, row, subject, compiled, now)
        receipt = None
        if wish.receipt:
            receipt = Receipt(
                id=f"{self._chance.new_id():x}",
                node=node.name,
                subject=subject,
                epoch=epoch,
                state=ReceiptState.PENDING if signed else ReceiptState.ENFORCED,
                asked_at=now,
                enforced_at=None if signed else now,
                exposure_s=exposure,
                reason="" if signed else _nobody(node, subject),
            )
            await grant_sets.add_receipt(connection, node.id, wish.workspace or 0, receipt)
        return Prepared(node, subject, epoch, signed, receipt, wish.workspace, lenient=wish.lenient)

    async def _sign(
        self,
        connection: AsyncConnection,
        row: SetRow,
        subject: Subject,
        compiled: Compiled,
        now: int,
        *,
        epoch: int | None = None,
    ) -> tuple[SignedGrantSet, int]:
        """Sign the next epoch, or this very one, and keep it. The first set of a group takes over from its members' own."""
        if subject.kind is SubjectKind.GROUP and row.epoch == 0:
            await grant_sets.mark_members_stale(connection, row.node_id, subject.id)
        epoch = row.epoch + 1 if epoch is None else epoch
        if epoch > MAX_ID:
            raise Internal(f"The grant sets of {subject.name} have run out of epochs.")
        lease_end = now // _MICROSECOND + LEASE_S
        if compiled.ends is not None:
            lease_end = min(lease_end, compiled.ends)
        grant_set = GrantSet(row.node_id, subject, epoch, compiled.grants, lease_end, compiled.groups, compiled.under)
        signed = sign_set(self._key, grant_set)
        await grant_sets.sign(
            connection,
            row.node_id,
            subject,
            epoch=epoch,
            body=signed.body,
            signature=signed.signature,
            content=content_hash(grant_set),
            lease_end=lease_end,
        )
        return signed, epoch

    # -------------------------------------------------------------------------------------------------- delivering

    async def deliver(self, prepared: Prepared) -> Receipt:
        """Send a prepared change once its transaction has committed, in the same turn, and return its receipt."""
        if prepared.receipt is None:
            raise Internal("A change without a workspace has no receipt.")
        prepared, outcome = await self.transmit(prepared)
        return _told(prepared, outcome)

    @staticmethod
    def told(prepared: Prepared, outcome: Outcome | None) -> Receipt:
        """Return the receipt of a change, given what became of it."""
        return _told(prepared, outcome)

    async def transmit(self, prepared: Prepared) -> tuple[Prepared, Outcome | None]:
        """Send a prepared change, again without what the node refuses of it, and keep what became of it.

        What is refused is tried once more for reading only: that is what an owner's file leaves of writing. The outcome is
        None where the node need not hear of it yet.
        """
        if prepared.signed is None:
            return prepared, None
        outcome = await self._ask(prepared)
        for _ in range(_NARROWINGS):
            if not isinstance(outcome, Refused) or not self._may_leave_out(prepared, outcome):
                break
            prepared = await self._narrowed(prepared, outcome)
            outcome = await self._ask(prepared)
        await self._keep(prepared, outcome)
        if prepared.receipt is not None:
            self._observe(_told(prepared, outcome))
        return prepared, outcome

    @staticmethod
    def _may_leave_out(prepared: Prepared, outcome: Refused) -> bool:
        """One grant above the ceiling must hold up neither a revocation nor a key for everything else."""
        named = {refusal.workspace for refusal in outcome.refusals}
        return bool(named) and 0 not in named and (prepared.lenient or prepared.workspace not in named)

    async def _narrowed(self, prepared: Prepared, outcome: Refused) -> Prepared:
        """Sign the set again with what was refused opened for reading only, and what was refused even so left out."""
        named = frozenset(refusal.workspace for refusal in outcome.refusals)
        once = _more_than_read(prepared) & named
        reading = (prepared.reading | once) - (named - once)
        without = prepared.without | (named - once)
        now = self._clock.now()

        async def sign(connection: AsyncConnection) -> tuple[SignedGrantSet, int, Receipt | None]:
            row = await grant_sets.claim(connection, prepared.node.id, prepared.subject)
            node, subject = prepared.node.id, prepared.subject
            compiled = await compile_set(connection, node, subject, now, without=without, reading=reading)
            signed, epoch = await self._sign(connection, row, prepared.subject, compiled, now)
            receipt = prepared.receipt
            if receipt is not None:
                receipt = msgspec.structs.replace(receipt, epoch=epoch)
                await grant_sets.change_receipt(connection, receipt)
            return signed, epoch, receipt

        signed, epoch, receipt = await self._database.run_write(sign)
        before = [prepared.left_out] if prepared.left_out else []
        reasons = " ".join(dict.fromkeys([*before, *(refusal.problem.message for refusal in outcome.refusals)]))
        return msgspec.structs.replace(
            prepared,
            signed=signed,
            epoch=epoch,
            receipt=receipt,
            left_out=reasons[:1000],
            without=without,
            reading=reading,
        )

    async def _ask(self, prepared: Prepared) -> Outcome:
        signed = prepared.signed
        if signed is None:
            raise Internal("A change that nobody signed cannot be sent.")
        try:
            answer = await self._agents.ask(
                prepared.node.id, lambda request, deadline: SetGrants(request, deadline, signed), deadline_s=DEADLINE_S
            )
        except WioError as error:
            # A fault of the agent's own, or of what it stands on, is no word about the set: it is sent again until it is taken.
            again = error.retry or isinstance(error, Internal | BadSetting)
            return Waiting(error.problem) if again else Refused(error.problem, ())
        if isinstance(answer, GrantsRefused):
            return Refused(answer.problem, answer.refusals)
        fits = isinstance(answer, GrantsApplied) and (answer.subject.id, answer.epoch) == (prepared.subject.id, prepared.epoch)
        if not isinstance(answer, GrantsApplied) or not fits:
            _LOG.error("Node %s answered SetGrants with %s.", prepared.node.name, type(answer).__name__)
            return Waiting(Internal(f"{prepared.node.name} gave an answer that does not fit.").problem)
        proofs = tuple(ProbeProof(one.what, one.status, one.at, one.expected) for one in answer.proofs)
        doubtful = next((one for one in proofs if not one.expected), None)
        if doubtful is not None:
            told = f"{prepared.node.name} has applied it, but {doubtful.what} was answered with {doubtful.status}."
            return Waiting(Internal(told).problem)
        return Applied(answer.at, answer.keys_out, proofs)

    async def _keep(self, prepared: Prepared, outcome: Outcome) -> None:
        async def keep(connection: AsyncConnection) -> None:
            if isinstance(outcome, Applied):
                await self.applied(connection, prepared, outcome)
            elif isinstance(outcome, Refused):
                await grant_sets.refused(
                    connection, prepared.node.id, prepared.subject, epoch=prepared.epoch, reason=outcome.problem.message
                )
            if prepared.receipt is not None:
                told = _told(prepared, outcome)
                if told.state is not ReceiptState.ENFORCED:
                    await grant_sets.change_receipt(connection, told)

        await self._database.run_write(keep)

    async def applied(self, connection: AsyncConnection, prepared: Prepared, outcome: Applied) -> None:
        """Note it, and turn every receipt that waited for this epoch or an older one into an enforced one."""
        node, subject, epoch = prepared.node.id, prepared.subject, prepared.epoch
        await grant_sets.applied(connection, node, subject, epoch=epoch, at=outcome.at, left_out=prepared.left_out)
        for receipt in await grant_sets.pending_receipts(connection, node, subject, up_to=epoch):
            await grant_sets.change_receipt(connection, _enforced(receipt, outcome))

    # -------------------------------------------------------------------------------------------------- for keys

    async def ready(self, node: At, subject: Subject, *, again: bool = False) -> int:
        """See to it that the node has this subject's newest set, and return its epoch.

        ``again``: send it even if the node has had it, because it says otherwise. Raises what keeps the node from having
        it: NodeOffline, DeadlinePassed, OverCeiling …
        """
        async with self.turns(node.id, subject):
            prepared = await self.due(node, subject, again=again)
            if prepared.signed is None:
                return prepared.epoch
            prepared, outcome = await self.transmit(prepared)
        if isinstance(outcome, Applied):
            return prepared.epoch
        if outcome is None:
            raise Internal("A set that was to be sent was not.")
        raise error_of(outcome.problem)

    async def ready_groups(self, node: At, person: Subject) -> None:
        """See to it that the node has the shared sets of a person's groups, made now where enough members hold keys there.

        Raises what keeps the node from having them.
        """
        for group in await self.groups_of(node, person):
            await self.ready(node, group)

    async def groups_of(self, node: At, person: Subject) -> list[Subject]:
        """Return a person's groups that have a shared set on the node, or are to have one."""
        now = self._clock.now()
        found = await self._database.run_read(lambda connection: groups.of_person(connection, node.id, person.id, now))
        return [subject for subject, shared, others in found if shared or others >= groups.LARGE]

    async def due(self, node: At, subject: Subject, *, again: bool = False) -> Prepared:
        """Return what the node lacks of a subject's set, signed anew where that is due."""
        now = self._clock.now()

        async def look(connection: AsyncConnection) -> Prepared:
            if subject.kind is SubjectKind.PERSON:
                await groups.hold_those_of(connection, subject.id)
            row = await grant_sets.claim(connection, node.id, subject)
            compiled = None
            if row.stale or row.epoch == 0 or aging(row, now):
                compiled = await compile_set(connection, node.id, subject, now)
            elif subject.kind is SubjectKind.PERSON and await nodes.unconfirmed_since(connection, node.id) is not None:
                confirmed = await compile_set(connection, node.id, subject, now)
                compiled = None if _content(row, subject, confirmed) == row.content else confirmed
            if compiled is not None:
                signed, epoch = await self._sign(connection, row, subject, compiled, now)
                return Prepared(node, subject, epoch, signed, None)
            lacking = again or row.applied_epoch < row.epoch
            return Prepared(node, subject, row.epoch, SignedGrantSet(row.body, row.signature) if lacking else None, None)

        return await self._database.run_write(look)

    # -------------------------------------------------------------------------------------------------- after a backup

    async def overlap(self, node: At, subject: Subject, epoch: int, *, keys_until: int) -> Prepared:
        """Sign what this hub knows with the very epoch that the node has: so the node opens only what both sets open.

        For a hub whose database is older than the node's. What opens nothing is signed above it instead. ``keys_until``: keys
        may be out until then of which it is not known.
        """
        now = self._clock.now()

        async def sign(connection: AsyncConnection) -> Prepared:
            row = await grant_sets.claim(connection, node.id, subject)
            compiled = await compile_set(connection, node.id, subject, now, unconfirmed=True)
            same = max(epoch, row.epoch) + (0 if compiled.grants or compiled.groups else 1)
            signed, _ = await self._sign(connection, row, subject, compiled, now, epoch=same)
            await grant_sets.expect_keys(connection, node.id, until=keys_until)
            return Prepared(node, subject, same, signed, None)

        return await self._database.run_write(sign)


def aging(row: SetRow | SetBrief, now: int) -> bool:
    """Say whether a set has to be signed anew for its lease. A link's lasts as long as the link itself."""
    return row.subject_kind != SubjectKind.LINK and not fresh(row.lease_end, now)


def fresh(lease_end: int, now: int) -> bool:
    """Say whether more than half of a lease is left at Unix microsecond ``now``."""
    return lease_end - now // _MICROSECOND > LEASE_S // 2


def stale_lease(now: int) -> int:
    """Return the Unix second before which a lease's end is no longer ``fresh`` at Unix microsecond ``now``."""
    return now // _MICROSECOND + LEASE_S // 2 + 1


def living(row: SetRow | SetBrief, now: int) -> bool:
    """Say whether a change has to reach the node at once.

    Everybody with a key has what everyone has, so that set counts as living from its first signature on; so does a group's.
    """
    if row.subject_kind in {SubjectKind.PERSON, SubjectKind.LINK}:
        return row.keys_until > now
    return row.epoch > 0


def _takes_away(body: bytes, compiled: Compiled) -> bool:
    before = msgspec.msgpack.decode(body, type=GrantSet)
    return takes_away(before.grants, compiled.grants) or not set(before.groups) <= set(compiled.groups)


def _more_than_read(prepared: Prepared) -> frozenset[int]:
    """Return the workspaces that a set opens for more than reading, and that would be something for reading only."""
    if prepared.signed is None:
        return frozenset()
    grants = msgspec.msgpack.decode(prepared.signed.body, type=GrantSet).grants
    return frozenset(one.workspace for one in grants if one.permission.reads and one.permission is not Permission.READ)


def _content(row: SetRow, subject: Subject, compiled: Compiled) -> bytes:
    grants, groups, under = compiled.grants, compiled.groups, compiled.under
    return content_hash(GrantSet(row.node_id, subject, max(row.epoch, 1), grants, 0, groups, under))


def _stands(row: SetRow, compiled: Compiled, subject: Subject, now: int) -> bool:
    """Say whether the node enforces this very content already, and goes on doing so."""
    applied = row.epoch > 0 and row.applied_epoch == row.epoch and not aging(row, now)
    return applied and _content(row, subject, compiled) == row.content


def _enforced(receipt: Receipt, outcome: Applied) -> Receipt:
    return msgspec.structs.replace(
        receipt,
        state=ReceiptState.ENFORCED,
        enforced_at=outcome.at,
        keys_out=outcome.keys_out,
        proofs=outcome.proofs,
        exposure_s=None,
        reason="",
    )


def _nobody(node: At, subject: Subject) -> str:
    if subject.kind is SubjectKind.PERSON:
        return f"{subject.name} holds no key on {node.name}; the next one will be made with this."
    if subject.kind is SubjectKind.LINK:
        return "It had ended already."
    return f"Nobody has asked for a key on {node.name} yet; the first one will be made with this."


def _told(prepared: Prepared, outcome: Outcome | None) -> Receipt:
    receipt = prepared.receipt
    if receipt is None:
        raise Internal("A change without a workspace has no receipt.")
    if outcome is None:
        return receipt
    if isinstance(outcome, Applied) and prepared.workspace in prepared.without | prepared.reading:
        return msgspec.structs.replace(receipt, state=ReceiptState.REFUSED, reason=prepared.left_out or "")
    if isinstance(outcome, Applied):
        return _enforced(receipt, outcome)
    if isinstance(outcome, Waiting):
        return msgspec.structs.replace(receipt, reason=outcome.problem.message)
    return msgspec.structs.replace(receipt, state=ReceiptState.REFUSED, reason=_why(outcome, prepared))


def _why(outcome: Refused, prepared: Prepared) -> str:
    """Return the node's reason, in its words about the very workspace if it has any."""
    for refusal in outcome.refusals:
        if refusal.workspace == prepared.workspace:
            return refusal.problem.message
    return outcome.problem.message
