"""The hub's signed word that a person is who they say, for one node: with it their tools get keys there while this hub is away.

A node mints such keys without asking. So from the moment an assertion is given out, keys of its person count as being out on
that node until the last that it can have brought forth has ended: every change is sent at once, and one that cannot be sent
says for how long at most a key goes on working.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import grant_sets, nodes
from hub.db.database import Database
from hub.services.audit import Audit
from hub.services.grantsets import EVERYONE, At, GrantSets
from hub.services.limits import Limiter
from hub.services.ports import Actor, Clock
from protocol.api import AssertionIssued, NewAssertion
from protocol.errors import BadLifetime, NoGrant, Pending, UnknownNode, WioError
from protocol.grants import Subject, SubjectKind
from protocol.identity import Assertion, assertion_text, sign_assertion
from protocol.messages import KeysOut
from protocol.names import NodeId, shown

SHORTEST_S: Final = 900
LONGEST_S: Final = 7 * 86_400
"""As long as a node believes one at most."""
KEY_S: Final = 3600
"""How long a key lives that a node mints under one."""
_SLACK_S: Final = 60
_TRIES: Final = 3
_MICROSECOND: Final = 1_000_000
_LOG: Final = logging.getLogger("wio.hub.grants")


class Assertions:
    """Gives out assertions, and hears of the keys that were minted under them."""

    def __init__(self, *, database: Database, clock: Clock, audit: Audit, sets: GrantSets, hub_key: Ed25519PrivateKey) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit
        self._sets = sets
        self._key = hub_key
        self._given = Limiter(clock=clock, tries=60, window_s=3600, what="assertions")

    async def issue(self, actor: Actor, new: NewAssertion) -> AssertionIssued:
        """Return an assertion for a node that knows this person already.

        Raises BadLifetime, UnknownNode, NoGrant (they never had a key there), TooMany, NodeOffline or what else keeps the node
        from having their newest grants.
        """
        if not SHORTEST_S <= new.life_s <= LONGEST_S:
            raise BadLifetime(
                f"An assertion holds {SHORTEST_S} s to {LONGEST_S} s; {new.life_s} s were asked for.",
                todo="Choose another --ttl.",
            )
        subject = Subject(SubjectKind.PERSON, actor.id, actor.username)
        async with self._database.read() as connection:
            row = await nodes.by_name(connection, new.node)
            known = row is not None and await grant_sets.body(connection, row.id, subject)
        if row is None or row.evicted_at is not None:
            raise UnknownNode(f"There is no node called {shown(new.node)}.", todo="wio node ls shows them.")
        if not known:
            raise NoGrant(f"{row.name} does not know you yet.", todo="Ask for a key there once: wio creds WORKSPACE.")
        self._given.count(actor.username)
        node = At(NodeId(row.id), row.name)
        for _ in range(_TRIES):
            epochs = [(one, await self._sets.ready(node, one)) for one in (EVERYONE, subject)]
            issued = self._clock.now() // _MICROSECOND
            if await self._hold(actor, node, epochs, issued, new.life_s):
                signed = sign_assertion(self._key, Assertion(node.id, actor.id, actor.username, issued, issued + new.life_s))
                expires = (issued + new.life_s) * _MICROSECOND
                return AssertionIssued(node.name, node.id, assertion_text(signed), expires)
        raise Pending(f"What {actor.username} may do on {node.name} changes faster than it is sent.", todo="Try again.")

    async def _hold(self, actor: Actor, node: At, epochs: Sequence[tuple[Subject, int]], issued: int, life_s: int) -> bool:
        """Note until when keys may be out; False where a set has changed since it was sent."""
        until = (issued + life_s + KEY_S + _SLACK_S) * _MICROSECOND

        async def hold(connection: AsyncConnection) -> bool:
            for one, epoch in epochs:
                if not await grant_sets.hold_keys(connection, node.id, one, epoch=epoch, until=until):
                    return False
            await self._audit.record(connection, actor, "assertion.issue", node.name, node=node.id, life_s=life_s)
            return True

        return await self._database.run_write(hold)

    async def keys_out(self, node: NodeId, told: KeysOut) -> None:
        """Note that keys are out which this hub did not ask for, and send what those persons' sets have become meanwhile."""
        subjects = [one.subject for one in told.keys if one.subject.kind is SubjectKind.PERSON]
        if not subjects:
            return
        until = max(one.until for one in told.keys) * _MICROSECOND

        async def raise_all(connection: AsyncConnection) -> str | None:
            row = await nodes.by_id(connection, node)
            if row is None or row.evicted_at is not None:
                return None
            for one in told.keys:
                await grant_sets.raise_keys(connection, node, one.subject, until=one.until * _MICROSECOND)
            await grant_sets.raise_keys(connection, node, EVERYONE, until=until)
            return row.name

        name = await self._database.run_write(raise_all)
        for subject in subjects if name is not None else ():
            try:
                await self._sets.ready(At(node, name or ""), subject)
            except WioError as error:
                _LOG.warning("%s has keys of %s out and not their newest grants: %s", name, subject.name, error.message)
