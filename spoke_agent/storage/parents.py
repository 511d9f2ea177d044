"""Who has access on a MinIO-family server: storage users that only the agent can sign in as, and their policies.

A *person* is such a user; people get keys that the server makes from it and whose every request it checks against the
policies of that user, so rewriting those acts on keys that are out (4-storage). *Shared* access is a policy of its own,
attached beside a person's own.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import urlencode

import msgspec

from protocol.errors import BadLifetime, Internal, StorageRefused
from protocol.grants import Grant, Narrowing
from spoke_agent.storage import policy
from spoke_agent.storage.admin import Admin
from spoke_agent.storage.connection import Connection, refusal
from spoke_agent.storage.node import Credential, Holder, HolderKind
from spoke_agent.storage.placing import AGENT, Naming, parent_key
from spoke_agent.storage.sigv4 import Key

SHORTEST_KEY_S: Final = 900
"""Seconds; the server refuses shorter ones."""

_FORM: Final = {"content-type": "application/x-www-form-urlencoded"}
_STS: Final = {
    name: re.compile(rb"<" + name.encode() + rb">([^<]{1,8192})</")
    for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
}


class _Held(msgspec.Struct):
    """What this process knows that the server has of a holder. Forgotten whenever a write may or may not have arrived."""

    names: tuple[str, ...]
    """Its own policies, in order."""
    shared: tuple[str, ...] = ()
    """Policies of shared holders attached beside them."""
    opened: tuple[policy.Patterns, ...] = ()
    """What each of its own policies opens; empty where that is not known."""


class Parents:
    """Holders on one server. ``master`` is the node's master key, from which their secrets are derived.

    Calls about one holder are the caller's to order; those about different holders may run at the same time.
    """

    def __init__(self, connection: Connection, admin: Admin, naming: Naming, master: bytes) -> None:
        self._connection = connection
        self._admin = admin
        self._naming = naming
        self._master = master
        self._held: dict[str, _Held] = {}
        self._keys: dict[str, Key] = {}
        self._sharing = asyncio.Lock()
        """Held while policies of shared holders are attached or change in number, so that nobody is left with old ones."""

    async def create(self, holder: Holder, grants: Sequence[Grant], shared: Sequence[Holder]) -> None:
        """Make a new holder with this access.

        Policies first, then the user, then both together: at no instant has the user anything but what the policies say,
        and nobody but the agent knows its secret before ``mint``.
        """
        opened = policy.arrange(policy.patterns(grants))
        names = tuple(self._naming.policy(holder.name, number) for number in range(len(opened)))
        self._held.pop(holder.name, None)
        for name, part in zip(names, opened, strict=True):
            await self._admin.put_policy(name, policy.document(part))
        held = _Held(names, opened=opened)
        if holder.kind is HolderKind.PERSON:
            parent = self._parent(holder)
            await self._admin.put_user(parent.access_key, parent.secret_key)
            async with self._sharing:
                held.shared = await self._shared_names(shared)
                await self._admin.attach(parent.access_key, (*held.names, *held.shared))
        self._held[holder.name] = held

    async def set_access(self, holder: Holder, grants: Sequence[Grant]) -> None:
        """Make the holder's own access exactly this, at once, for every key that is out.

        What a policy opens now and may go on opening stays in it, so nothing moves from one to another; those that lose
        something are written first.
        """
        held = await self._hold(holder)
        opened = policy.arrange(policy.patterns(grants), held.opened)
        names = tuple(self._naming.policy(holder.name, number) for number in range(len(opened)))
        order = sorted(range(len(opened)), key=lambda n: n >= len(held.opened) or held.opened[n] <= opened[n])
        self._held.pop(holder.name, None)
        for number in order:
            await self._admin.put_policy(names[number], policy.document(opened[number]))
        if names != held.names:
            await self._reattach(holder, held, names)
        held.names, held.opened = names, opened
        self._held[holder.name] = held

    async def set_shared(self, holder: Holder, shared: Sequence[Holder]) -> None:
        """Change which shared holders count for a person."""
        held = await self._hold(holder)
        async with self._sharing:
            names = await self._shared_names(shared)
            self._held.pop(holder.name, None)
            await self._admin.attach(self._naming.user(holder.name), (*held.names, *names))
        held.shared = names
        self._held[holder.name] = held

    async def get_access(self, holder: Holder) -> str | None:
        """Return a fingerprint of what the server actually allows the holder; None where the holder is not there.

        Asks the server for everything, and keeps nothing of what this process believed before.
        """
        self._held.pop(holder.name, None)
        strange: list[bytes] = []
        if holder.kind is HolderKind.PERSON:
            user = await self._admin.user(self._naming.user(holder.name))
            if user is None:
                return None
            own = tuple(name for name in user.policies if self._naming.holder(name) == holder.name)
            # A disabled user, or a policy that is not ours, makes it another access than any that wio grants.
            strange = [f"foreign {name}".encode() for name in user.policies if not self._naming.holder(name)]
            strange += [] if user.enabled else [b"disabled"]
        else:
            own = await self._own_policies(holder)
            if not own:
                return None
        documents = [await self._admin.policy(name) or f"missing {name}".encode() for name in own]
        return policy.fingerprint([*documents, *strange])

    def fingerprint(self, grants: Sequence[Grant]) -> str:
        """Return what ``get_access`` returns where the holder's access is exactly ``grants``."""
        return policy.fingerprint(policy.document(part) for part in policy.arrange(policy.patterns(grants)))

    async def remove(self, holder: Holder) -> None:
        """Remove the holder; its keys are dead when this returns. Fine if it is not there."""
        self._held.pop(holder.name, None)
        if holder.kind is HolderKind.PERSON:
            user = self._naming.user(holder.name)
            there = await self._admin.user(user)
            await self._admin.drop_user(user)
            self._keys.pop(holder.name, None)
            names = {self._naming.policy(holder.name, 0), *(await self._own_policies(holder))}
            names |= {name for name in (there.policies if there else ()) if self._naming.holder(name) == holder.name}
        else:
            async with self._sharing:
                names = set(await self._own_policies(holder))
                await self._detach_everywhere(names, ())
        for name in sorted(names):
            await self._admin.drop_policy(name)

    async def mint(self, holder: Holder, *, life_s: int, narrowing: Narrowing | None) -> Credential:
        """Mint a key of this person: one call, signed with the parent's own key. Raises BadLifetime below 900 seconds."""
        if life_s < SHORTEST_KEY_S:
            raise BadLifetime(
                f"A key cannot live {life_s} seconds on this server.", todo=f"Ask for at least {SHORTEST_KEY_S} seconds."
            )
        form = {"Action": "AssumeRole", "Version": "2011-06-15", "DurationSeconds": str(life_s)}
        session = policy.narrowed(narrowing) if narrowing is not None else None
        if session is not None:
            form["Policy"] = session.decode()
        body = urlencode(form).encode()
        reply = await self._connection.ask(self._parent(holder), "POST", "/", (), body, service="sts", headers=_FORM)
        if not reply.ok:
            raise refusal(reply, "mint a key")
        found = {name: match.group(1).decode() for name, pattern in _STS.items() if (match := pattern.search(reply.body))}
        try:
            expires = int(dt.datetime.fromisoformat(found["Expiration"]).timestamp())
            return Credential(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], expires)
        except (KeyError, ValueError):
            raise StorageRefused("The storage server answered to AssumeRole without a key.") from None

    async def remove_orphans(self, keep: Collection[Holder]) -> list[str]:
        """Remove this node's storage users and policies that belong to none of ``keep``; one sentence per thing removed.

        Takes some 150 ms and 64 MiB: for starting and leaving.
        """
        kept = {holder.name for holder in keep} | {AGENT}
        removed = []
        for user in sorted(await self._admin.users()):
            holder = self._naming.holder(user)
            if holder and holder not in kept:
                await self._admin.drop_user(user)
                self._held.pop(holder, None)
                removed.append(f"The storage user {user}.")
        gone = {name for name in await self._admin.policies() if (holder := self._naming.holder(name)) and holder not in kept}
        if gone:
            async with self._sharing:
                left = {name for name in sorted(gone) if not await self._admin.drop_policy(name)}
                await self._detach_everywhere(left, ())
                for name in left:
                    await self._admin.drop_policy(name)
        return removed + [f"The access policy {name}." for name in sorted(gone)]

    # -------------------------------------------------------------------------------------------------- what is there

    def _parent(self, holder: Holder) -> Key:
        if holder.kind is not HolderKind.PERSON:
            raise Internal("Keys are minted for persons only.")
        kept = self._keys.get(holder.name)
        if kept is None:
            kept = self._keys[holder.name] = parent_key(self._master, self._naming.user(holder.name))
        return kept

    async def _hold(self, holder: Holder) -> _Held:
        """Return what the server has of a holder, from memory or from the server. Raises StorageRefused if it has none."""
        held = self._held.get(holder.name)
        if held is not None:
            return held
        if holder.kind is HolderKind.PERSON:
            user = await self._admin.user(self._naming.user(holder.name))
            attached = user.policies if user is not None else ()
            names = tuple(name for name in attached if self._naming.holder(name) == holder.name)
            shared = tuple(name for name in attached if self._naming.holder(name) not in {"", holder.name})
            there = user is not None
        else:
            names, shared = await self._own_policies(holder), ()
            there = bool(names)
        if not there:
            raise StorageRefused(f"The storage server does not know holder {holder.name}.", todo="It has to be made again.")
        return _Held(names, shared)

    async def _own_policies(self, holder: Holder) -> tuple[str, ...]:
        names = []
        for number in range(policy.MAX_POLICIES):
            name = self._naming.policy(holder.name, number)
            if await self._admin.policy(name) is None:
                break
            names.append(name)
        return tuple(names)

    async def _shared_names(self, shared: Sequence[Holder]) -> tuple[str, ...]:
        return tuple([name for one in shared for name in (await self._hold(one)).names])

    async def _reattach(self, holder: Holder, held: _Held, names: tuple[str, ...]) -> None:
        """Attach the policies a holder has now, and delete those it has no longer."""
        surplus = set(held.names) - set(names)
        if holder.kind is HolderKind.PERSON:
            await self._admin.attach(self._naming.user(holder.name), (*names, *held.shared))
        else:
            async with self._sharing:
                await self._detach_everywhere(set(held.names), names)
        for name in sorted(surplus):
            await self._admin.drop_policy(name)

    async def _detach_everywhere(self, old: set[str], new: tuple[str, ...]) -> None:
        """Give everybody who has any of the ``old`` policies the ``new`` ones in their place. Slow, and rare."""
        if not old:
            return
        for name, user in (await self._admin.users()).items():
            if not old.isdisjoint(user.policies):
                rest = tuple(one for one in user.policies if one not in old and one not in new)
                await self._admin.attach(name, (*rest, *new))
                self._held.pop(self._naming.holder(name), None)
