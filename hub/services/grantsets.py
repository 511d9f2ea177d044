"""Desired state: what each node is to allow each subject, compiled, signed, sent, and proven by receipts.

A change is *prepared* inside the transaction that makes it and *delivered* after that has committed. Changes of one
subject on one node take turns, from compiling to the answer, so the node sees them in order; across several workers the
row lock orders the epochs, and a node ignores an epoch lower than the one it has.

Only the living cost something: a subject without keys on the node is marked stale, compiled and sent before its next key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import grant_sets, grants, people, standings
from hub.db.database import Database
from hub.db.grant_sets import SetBrief, SetRow
from hub.domain.compile import Opening, OpenRoot, compile_grants, takes_away
from hub.services.ports import Agents, Chance, Clock
from protocol.errors import Internal, Problem, WioError, error_of
from protocol.grants import (
    Grant,
    GrantSet,
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
    ) -> None:
        self._database = database
        self._agents = agents
        self._clock = clock
        self._chance = chance
        self._key = hub_key
        self._locks: WeakValueDictionary[tuple[int, str, int], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turns(self, node: int, *subjects: Subject) -> AsyncIterator[None]:
        """Hold the turns of these subjects on a node; always taken in one order, so that nobody waits in a ring."""
        async with AsyncExitStack() as stack:
            for key in sorted({(node, str(subject.kind), subject.id) for subject in subjects}):
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
        ordered = sorted(subjects, key=lambda one: (one.kind, one.id))
        prepared = [
            await self._prepare(connection, node, one, workspace=workspace, with_receipt=with_receipt) for one in ordered
        ]
        await standings.changed(connection)
        return prepared

    async def _prepare(
        self, connection: AsyncConnection, node: At, subject: Subject, *, workspace: int | None, with_receipt: bool
    ) -> Prepared:
        now = self._clock.now()
        row = await grant_sets.claim(connection, node.id, subject)
        compiled = await self._compile(connection, node.id, subject, now)
        signed, epoch, exposure = None, row.epoch, None
        if not living(row, now):
            await grant_sets.mark_stale(connection, node.id, subject)
        else:
            if row.epoch > 0 and takes_away(_grants_in(row.body), compiled):
                exposure = max(0, -(-(row.keys_until - now) // _MICROSECOND))
            signed, epoch = await self._sign(connection, row, subject, compiled, now)
        receipt = None
        if with_receipt and workspace is not None:
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
            await grant_sets.add_receipt(connection, node.id, workspace, receipt)
        return Prepared(node, subject, epoch, signed, receipt, workspace)

    async def _compile(
        self, connection: AsyncConnection, node: int, subject: Subject, now: int, without: frozenset[int] = frozenset()
    ) -> tuple[Grant, ...]:
        """Return what a subject may do on a node now."""
        given = await grants.given_to(connection, node, subject.kind, subject.id)
        roots: list[tuple[str, str]] = []
        dropper = None
        if subject.kind is SubjectKind.EVERYONE:
            given += await grants.in_public_bucket_roots(connection, node)
            roots = await grants.public_prefix_roots(connection, node)
        elif subject.kind is SubjectKind.PERSON:
            user = await people.by_id(connection, subject.id)
            if user is None or user.disabled_at is not None:
                return ()
            dropper = user.username
            given += await grants.owned_by(connection, node, subject.id)
        return compile_grants(
            [
                Opening(one.workspace, one.layout, one.bucket, one.root_prefix, one.prefix, one.permission, one.expires_at)
                for one in given
                if one.workspace not in without
            ],
            roots=[OpenRoot(bucket, prefix) for bucket, prefix in roots],
            dropper=dropper,
            now=now,
        )

    async def _sign(
        self,
        connection: AsyncConnection,
        row: SetRow,
        subject: Subject,
        compiled: tuple[Grant, ...],
        now: int,
        *,
        floor: int = 0,
    ) -> tuple[SignedGrantSet, int]:
        """Sign the next epoch, above ``floor``, and keep it."""
        epoch = max(row.epoch, floor) + 1
        if epoch > MAX_ID:
            raise Internal(f"The grant sets of {subject.name} have run out of epochs.")
        lease_end = now // _MICROSECOND + LEASE_S
        grant_set = GrantSet(row.node_id, subject, epoch, compiled, lease_end)
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

    async def transmit(self, prepared: Prepared) -> tuple[Prepared, Outcome | None]:
        """Send a prepared change, once more without what the node refuses of it, and keep what became of it.

        The outcome is None where the node need not hear of it yet.
        """
        if prepared.signed is None:
            return prepared, None
        outcome = await self._ask(prepared)
        if isinstance(outcome, Refused) and self._may_leave_out(prepared, outcome):
            prepared = await self._without(prepared, outcome)
            outcome = await self._ask(prepared)
        await self._keep(prepared, outcome)
        return prepared, outcome

    @staticmethod
    def _may_leave_out(prepared: Prepared, outcome: Refused) -> bool:
        """One grant above the ceiling must hold up neither a revocation nor a key for everything else."""
        named = {refusal.workspace for refusal in outcome.refusals}
        return bool(named) and 0 not in named and prepared.workspace not in named

    async def _without(self, prepared: Prepared, outcome: Refused) -> Prepared:
        named = frozenset(refusal.workspace for refusal in outcome.refusals)
        now = self._clock.now()

        async def sign(connection: AsyncConnection) -> tuple[SignedGrantSet, int, Receipt | None]:
            row = await grant_sets.claim(connection, prepared.node.id, prepared.subject)
            compiled = await self._compile(connection, prepared.node.id, prepared.subject, now, named)
            signed, epoch = await self._sign(connection, row, prepared.subject, compiled, now)
            receipt = prepared.receipt
            if receipt is not None:
                receipt = msgspec.structs.replace(receipt, epoch=epoch)
                await grant_sets.change_receipt(connection, receipt)
            return signed, epoch, receipt

        signed, epoch, receipt = await self._database.run_write(sign)
        reasons = " ".join(dict.fromkeys(refusal.problem.message for refusal in outcome.refusals))
        return msgspec.structs.replace(prepared, signed=signed, epoch=epoch, receipt=receipt, left_out=reasons[:1000])

    async def _ask(self, prepared: Prepared) -> Outcome:
        signed = prepared.signed
        if signed is None:
            raise Internal("A change that nobody signed cannot be sent.")
        try:
            answer = await self._agents.ask(
                prepared.node.id, lambda request, deadline: SetGrants(request, deadline, signed), deadline_s=DEADLINE_S
            )
        except WioError as error:
            return Waiting(error.problem) if error.retry else Refused(error.problem, ())
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
            if prepared.receipt is not None and not isinstance(outcome, Applied):
                await grant_sets.change_receipt(connection, _told(prepared, outcome))

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

    async def due(self, node: At, subject: Subject, *, again: bool = False, floor: int = 0) -> Prepared:
        """Return what the node lacks of a subject's set, signed anew where that is due."""
        now = self._clock.now()

        async def look(connection: AsyncConnection) -> Prepared:
            row = await grant_sets.claim(connection, node.id, subject)
            if row.stale or row.epoch == 0 or floor >= row.epoch or not fresh(row.lease_end, now):
                compiled = await self._compile(connection, node.id, subject, now)
                signed, epoch = await self._sign(connection, row, subject, compiled, now, floor=floor)
                return Prepared(node, subject, epoch, signed, None)
            lacking = again or row.applied_epoch < row.epoch
            return Prepared(node, subject, row.epoch, SignedGrantSet(row.body, row.signature) if lacking else None, None)

        return await self._database.run_write(look)


def fresh(lease_end: int, now: int) -> bool:
    """Say whether more than half of a lease is left at Unix microsecond ``now``."""
    return lease_end - now // _MICROSECOND > LEASE_S // 2


def living(row: SetRow | SetBrief, now: int) -> bool:
    """Say whether a change has to reach the node at once.

    Everybody with a key has what everyone has, so that set counts as living from its first signature on.
    """
    if row.subject_kind == SubjectKind.EVERYONE:
        return row.epoch > 0
    return row.keys_until > now


def _grants_in(body: bytes) -> tuple[Grant, ...]:
    return msgspec.msgpack.decode(body, type=GrantSet).grants


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
    return f"Nobody has asked for a key on {node.name} yet; the first one will be made with this."


def _told(prepared: Prepared, outcome: Outcome | None) -> Receipt:
    receipt = prepared.receipt
    if receipt is None:
        raise Internal("A change without a workspace has no receipt.")
    if outcome is None:
        return receipt
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
