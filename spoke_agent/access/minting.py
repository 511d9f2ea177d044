"""Minting: a key of a person, sealed to the client that asked. One call to the storage server on the straight path.

Grants are not worked out here: the person's holder has them already. What is checked is that it has the newest ones.
"""

from __future__ import annotations

import asyncio

import msgspec

from protocol.errors import BadLifetime, NoGrant, NotAllowed, OverCeiling, Pending
from protocol.grants import Grant, Narrowing, Subject, SubjectKind
from protocol.messages import Mint, Minted
from protocol.sealing import ClearCredential, Context, seal
from spoke_agent.access.applying import Applying
from spoke_agent.access.principals import Principal, Principals
from spoke_agent.access.reach import touches
from spoke_agent.access.records import KeyRecord
from spoke_agent.access.state import NodeSettings, Secrets
from spoke_agent.storage.node import Credential, Holder, StorageNode

SHORTEST_S = 900
"""The shortest life a MinIO gives a key (4-storage)."""


class Minting:
    """Mints keys."""

    def __init__(
        self, storage: StorageNode, principals: Principals, applying: Applying, settings: NodeSettings, secrets: Secrets
    ) -> None:
        self._storage = storage
        self._principals = principals
        self._applying = applying
        self._node = settings.node
        self._endpoint = settings.storage.public_endpoints[0]
        self._region = settings.storage.region
        self._key = secrets.node_key

    async def mint(self, request: Mint) -> Minted:
        """Mint and seal a key.

        Raises OverCeiling (paused), Pending (an older epoch than the hub's), BadLifetime, NoGrant, BadMessage (a client key
        that is none), and what storage raises.
        """
        person = self._person(request.subject, request.epoch)
        minted, kept = await self._mint(person, request.life_s, request.narrowing)
        try:
            clear = ClearCredential(
                minted.access_key, minted.secret_key, minted.session_token, minted.expires, self._endpoint, self._region
            )
            context = Context(self._node, person.subject.id, request.request, request.client_key)
            sealed = seal(self._key, context, clear)
        finally:
            await kept
        return Minted(request.request, sealed)

    async def mint_here(self, person: int, life_s: int, narrowing: Narrowing) -> Credential:
        """Mint a key for a person who is known here, on the newest grants this node has. Never longer than ``life_s``.

        Raises what ``mint`` raises, and NotAllowed for somebody who is not known.
        """
        subject = Subject(SubjectKind.PERSON, person, f"person {person}")
        known = self._principals.get(subject)
        if known is None:
            raise NotAllowed("This node does not know you yet.", todo="Ask for a key through the hub once: wio creds.")
        minted, kept = await self._mint(self._person(known.subject, known.epoch), life_s, narrowing)
        await kept
        await self._principals.note_minted_here(known, minted.expires)
        return minted

    async def _mint(self, person: Principal, life_s: int, narrowing: Narrowing) -> tuple[Credential, asyncio.Task[None]]:
        """Mint a key; what comes with it is writing it down, which is under way."""
        life = self._life(life_s, person)
        holder = await self._ready(person)
        self._check_reach(person, narrowing)
        narrowed = narrowing if narrowing != Narrowing() else None
        issued = self._principals.now
        minted = await self._storage.mint(holder, life_s=life, narrowing=narrowed)
        key = KeyRecord(minted.access_key, person.subject.id, issued, minted.expires, narrowed is not None)
        return minted, asyncio.create_task(self._principals.note_key(key))

    def _person(self, subject: Subject, epoch: int) -> Principal:
        person = known(self._principals, subject, epoch)
        if not person.is_person:
            raise NotAllowed(f"Keys are for persons, and {subject.name} is none.")
        return person

    def _life(self, wanted_s: int, person: Principal) -> int:
        """Return how long a key may live: with the agent gone, it ends with the first grant that would, or soon after."""
        principals = self._principals
        if wanted_s < SHORTEST_S:
            raise BadLifetime(
                f"A key of {wanted_s} s is too short: the storage server makes none under {SHORTEST_S} s.",
                todo=f"Ask for {SHORTEST_S} s or more.",
            )
        left = principals.lease_end(person) - principals.now
        if left < SHORTEST_S:
            raise BadLifetime(
                f"The lease of {person.subject.name} on this node ends in {max(left, 0)} s, "
                f"and the storage server makes no key under {SHORTEST_S} s.",
                todo="The hub renews the lease as soon as it reaches this node.",
            )
        subjects = (person, *principals.shared_of(person))
        ends = [until - principals.now for one in subjects if (until := principals.allowed(one).until) is not None]
        return min(wanted_s, principals.ceiling.longest_key_s, left, max(SHORTEST_S, min(ends, default=left)))

    async def _ready(self, person: Principal) -> Holder:
        """Return the person's holder, made now if this is their first key, with the access it is meant to have."""
        wanted = self._principals.allowed(person).grants
        if person.holder is not None and person.enforced == wanted and person.applied:
            return person.holder
        async with self._principals.lock(person.subject):
            if person.holder is None:
                self._check_any(person)
                holder = await self._applying.make_holder(person, self._principals.allowed(person).grants)
                await self._applying.agree(person)
                return holder
            await self._applying.agree(person)
            return person.holder

    def _check_any(self, person: Principal) -> tuple[Grant, ...]:
        whole = (*self._principals.allowed(person).grants, *self._principals.whole(person))
        if not whole:
            raise NoGrant(
                f"{person.subject.name} has no access on this node.", todo="Ask the owner of a workspace here to share it."
            )
        return whole

    def _check_reach(self, person: Principal, narrowing: Narrowing) -> None:
        whole = self._check_any(person)
        for bucket, prefix in narrowing.places:
            if not touches(whole, bucket, prefix):
                raise NoGrant(f"{person.subject.name} has no access in {bucket}/{prefix} on this node.")


def known(principals: Principals, subject: Subject, epoch: int) -> Principal:
    """Return who something is to be made for. Raises NotAllowed (evicted), OverCeiling (paused), Pending (an older epoch)."""
    if principals.evicted:
        raise NotAllowed("This node was removed from its hub: nobody gets keys.")
    if principals.paused:
        raise OverCeiling(
            "The owner of this node has paused it: nobody gets keys, and keys that are out open nothing.",
            todo="Ask the node's owner.",
        )
    found = principals.get(subject)
    if found is None or found.epoch < epoch:
        has = found.epoch if found is not None else 0
        raise Pending(f"The newest grant set of {subject.name} has not arrived here: epoch {has}, and the hub has {epoch}.")
    return found


class KeyOut(msgspec.Struct, frozen=True):
    """A key that is out, for the owner to see. Times in Unix seconds."""

    access_key: str
    person: str
    issued_at: int
    expires: int
    narrowed: bool
