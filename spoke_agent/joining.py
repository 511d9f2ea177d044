"""Joining a hub, and leaving: what ``wio-agent join`` and ``leave`` do, step by step, so that nothing is left half done.

The storage server comes first: a join string is only used once there is something to join with. What was made there is
removed again where the hub refuses. The owner's admin key is used for these steps and kept nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from protocol.errors import AlreadyJoined, BadSetting, StorageRefused, StorageUnreachable, WioError
from protocol.identity import JoinString, fingerprint, label_of, public_bytes, to_text
from protocol.messages import Wishes
from protocol.names import check_name
from spoke_agent.access.state import NodeSettings, Secrets, StateDirectory, StorageSettings
from spoke_agent.agent import make_node
from spoke_agent.link.enrol import enrol
from spoke_agent.link.line import address_of
from spoke_agent.settings import Settings, check_endpoint
from spoke_agent.storage.joining import (
    check_owner,
    forget_keys,
    make_agent_user,
    neighbours,
    remove_agent_user,
    renew_policy,
)
from spoke_agent.storage.node import ServerFacts
from spoke_agent.storage.sigv4 import Key

ROOT_USER: Final = "MINIO_ROOT_USER"
ROOT_PASSWORD: Final = "MINIO_ROOT_PASSWORD"  # noqa: S105 - the name of a variable
STARTING_S: Final = (0.2, 0.4, 0.8, 1.6)
"""Waits between tries at a server that does not answer: one that has just been started takes a moment to manage users."""
_MC_HOST: Final = "MC_HOST_"


class Wanted(msgspec.Struct, frozen=True):
    """What the owner asks for; ``name`` empty: as the invitation says. ``repr`` shows neither join string nor key."""

    join: str
    s3: str
    owner: Key
    name: str = ""
    public_endpoints: tuple[str, ...] = ()
    insecure: bool = False
    region: str = "us-east-1"
    replace: bool = False
    """Take the place of an agent on that server whose state directory is lost."""
    label: str = ""
    """What that one's things on the server are named after; empty: its name."""

    def __repr__(self) -> str:
        return f"Wanted({self.s3})"


class Joined(msgspec.Struct, frozen=True):
    """What came of joining. ``made`` has one sentence per thing made; empty where this node had joined before."""

    name: str
    node: int
    hub: str
    hub_fingerprint: str
    node_fingerprint: str
    storage: str
    state: str
    again: bool
    made: tuple[str, ...]
    facts: ServerFacts


class Left(msgspec.Struct, frozen=True):
    """What leaving removed, one sentence per thing, and what is still to do."""

    name: str
    removed: tuple[str, ...]
    todo: str


def owner_key(environment: Mapping[str, str], url: str) -> Key:
    """Return the owner's admin key from the environment: a MinIO's own variables, or mc's for this server.

    Raises BadSetting where neither is there.
    """
    user, password = environment.get(ROOT_USER), environment.get(ROOT_PASSWORD)
    if user and password:
        return Key(user, password)
    for name in sorted(environment):
        if not name.startswith(_MC_HOST):
            continue
        try:
            parts = urlsplit(environment[name])
            same = (parts.hostname, parts.port) == (urlsplit(url).hostname, urlsplit(url).port)
        except ValueError:
            continue
        if same and parts.username and parts.password:
            return Key(unquote(parts.username), unquote(parts.password))
    raise BadSetting(
        "There is no admin key of the storage server in the environment.",
        todo=f"Set {ROOT_USER} and {ROOT_PASSWORD} (or {_MC_HOST}name), or give --admin-key.",
    )


class Joining:
    """The steps. ``clock`` gives Unix microseconds, ``chance`` that many random bytes."""

    def __init__(
        self,
        settings: Settings,
        state: StateDirectory,
        *,
        clock: Callable[[], int],
        chance: Callable[[int], bytes],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._state = state
        self._clock = clock
        self._chance = chance
        self._pause = pause

    # -------------------------------------------------------------------------------------------------- join

    async def join(self, wanted: Wanted) -> Joined:
        """Join, or say that it is done already. The caller holds the directory's lock.

        Raises BadEndpoint, BadName, BadJoinString, BadSetting, AlreadyJoined, StorageUnreachable, NotAllowed, HubUnreachable,
        or what the hub refuses with.
        """
        url = check_endpoint(wanted.s3)
        endpoints = tuple(check_endpoint(one) for one in wanted.public_endpoints) or (url,)
        if wanted.name:
            check_name(wanted.name, "node")
        there = self._state.settings() if self._state.has_settings else None
        joined = there is not None and there.node != 0
        join = JoinString.parse(wanted.join, 0 if joined else self._clock() // 1_000_000)
        address_of(join.hub_url, insecure=wanted.insecure)
        if there is not None:
            self._check_same(there, join, url)
        if there is not None and joined:
            facts = await self._probe_again(there, wanted)
            return self._said(there, facts, ())
        return await self._join(wanted, join, there, url, endpoints)

    def _check_same(self, there: NodeSettings, join: JoinString, url: str) -> None:
        other = "Give this node another state directory: --state DIR."
        if there.hub_key != to_text(join.hub_key):
            raise AlreadyJoined(f"{self._state.path} belongs to node {there.name} of {there.hub_url}, another hub.", todo=other)
        if there.storage.url != url:
            raise AlreadyJoined(
                f"{self._state.path} belongs to node {there.name}, whose storage server is {there.storage.url}.", todo=other
            )

    async def _join(
        self, wanted: Wanted, join: JoinString, there: NodeSettings | None, url: str, endpoints: tuple[str, ...]
    ) -> Joined:
        keys = self._state.secrets() if self._state.has_secrets() else Secrets(self._chance(32), self._chance(32))
        label = there.storage.label if there is not None else wanted.name or label_of(public_bytes(keys.node_key))
        cleared = await self._clear_lost(wanted, url) if wanted.replace and there is None else []
        user = await self._make_user(wanted, label, url, replace=wanted.replace or there is not None)
        try:
            keys = Secrets(keys.node_seed, keys.master, user.secret_key)
            storage = StorageSettings("minio", url, user.access_key, endpoints, label, wanted.region)
            settings = NodeSettings(join.hub_url, to_text(join.hub_key), wanted.name or label, storage, 0, wanted.insecure)
            self._state.keep_secrets(keys)
            self._state.keep_settings(settings)
            facts = await self._probe(settings, keys)
            wishes = Wishes(wanted.name, "minio")
            welcome = await enrol(join, keys.node_key, wishes, nonce=self._chance(32), insecure=wanted.insecure)
        except WioError as error:
            await self._undo(wanted, label, url)
            if not error.retry:
                # Where the answer may only be lost, the node's key is kept: with it, trying again is harmless.
                self._state.forget()
            raise
        settings = msgspec.structs.replace(settings, node=welcome.node, name=welcome.name)
        self._state.keep_settings(settings)
        self._state.keep_facts(facts)
        self._state.make_ceiling()
        made = (
            f"On the storage server: user {user.access_key} with a policy of that name, for the agent.",
            f"On this machine: {self._state.path}, with the node's keys (node.key) and your limits (ceiling.toml).",
            f"On the hub: node {welcome.name}.",
            *(f"Removed, of the agent before: {one}" for one in cleared),
            *await self._beside(wanted, label, url),
        )
        return self._said(settings, facts, made)

    async def _clear_lost(self, wanted: Wanted, url: str) -> list[str]:
        """Remove what a lost agent made on the server, and with its users every key of theirs; say what it was.

        Before anything else: nobody could take back these keys any more. Raises BadSetting where it is not there.
        """
        await check_owner(url, wanted.owner, "any", region=wanted.region, clock=self._clock)
        there = await neighbours(url, wanted.owner, "", region=wanted.region, clock=self._clock)
        lost = next((one for one in (wanted.label, wanted.name) if one in there), None)
        if lost is None:
            if not there:
                return []  # the server was made anew as well
            raise BadSetting(
                f"Which agent is lost? On this server there are those of {', '.join(there)}.",
                todo="Say which with --label; or join without --replace, beside them.",
            )
        user = await self._make_user(wanted, lost, url, replace=True)
        storage = StorageSettings("minio", url, user.access_key, (url,), lost, wanted.region)
        await forget_keys(url, wanted.owner, lost, region=wanted.region, clock=self._clock)
        settings = NodeSettings("", "", lost, storage)
        removed = await self._clear(settings, Secrets(b"", self._chance(32), user.secret_key))
        if lost != wanted.name:
            removed += await remove_agent_user(url, wanted.owner, lost, region=wanted.region, clock=self._clock)
        return removed

    async def _make_user(self, wanted: Wanted, label: str, url: str, *, replace: bool) -> Key:
        for wait in (*STARTING_S, None):
            try:
                return await make_agent_user(url, wanted.owner, label, region=wanted.region, clock=self._clock, replace=replace)
            except StorageUnreachable:
                if wait is None:
                    raise
                await self._pause(wait)
        raise AssertionError  # pragma: no cover - the last try returns or raises

    async def _beside(self, wanted: Wanted, label: str, url: str) -> list[str]:
        """Say which other nodes live on the server. Not to know is no reason to fail."""
        try:
            others = await neighbours(url, wanted.owner, label, region=wanted.region, clock=self._clock)
        except WioError:
            return []
        return [
            f"Beside it on that server: node {other} of wio, with users and settings of its own. Neither touches the other's, "
            "and a folder that both may open is open to the people of both."
            for other in others
        ]

    async def _undo(self, wanted: Wanted, label: str, url: str) -> None:
        try:
            await remove_agent_user(url, wanted.owner, label, region=wanted.region, clock=self._clock)
        except WioError:
            return  # the error that led here says more; joining again uses what is left

    async def _probe(self, settings: NodeSettings, keys: Secrets) -> ServerFacts:
        node = make_node(settings, keys, self._settings)
        await node.open()
        try:
            return await node.probe()
        finally:
            await node.close()

    async def _probe_again(self, there: NodeSettings, wanted: Wanted) -> ServerFacts:
        """Probe a node that has joined; where the server no longer knows the agent's user, make it again."""
        storage = there.storage
        await renew_policy(storage.url, wanted.owner, storage.label, region=storage.region, clock=self._clock)
        try:
            facts = await self._probe(there, self._state.secrets())
        except StorageRefused:
            await self.renew_user(there, wanted.owner)
            facts = await self._probe(there, self._state.secrets())
        self._state.keep_facts(facts)
        self._state.make_ceiling()
        return facts

    async def renew_user(self, there: NodeSettings, owner: Key) -> None:
        """Give the agent's user on the server a new secret, made anew where it is gone."""
        storage = there.storage
        user = await make_agent_user(storage.url, owner, storage.label, region=storage.region, clock=self._clock, replace=True)
        keys = self._state.secrets()
        self._state.keep_secrets(Secrets(keys.node_seed, keys.master, user.secret_key))

    def _said(self, settings: NodeSettings, facts: ServerFacts, made: Sequence[str]) -> Joined:
        return Joined(
            settings.name,
            settings.node,
            settings.hub_url,
            fingerprint(settings.pinned.public_bytes_raw()),
            self._state.node_fingerprint(),
            settings.storage.url,
            str(self._state.path),
            not made,
            tuple(made),
            facts,
        )

    # -------------------------------------------------------------------------------------------------- leave

    async def leave(self, owner: Key) -> Left:
        """Remove everything wio made on the server, then the state directory's files. The data stays as it is.

        The caller holds the directory's lock. Raises StorageUnreachable, StorageRefused, NotAllowed: then it may be repeated.
        """
        there = self._state.settings()
        storage = there.storage
        await check_owner(storage.url, owner, storage.label, region=storage.region, clock=self._clock)
        await forget_keys(storage.url, owner, storage.label, region=storage.region, clock=self._clock)
        try:
            removed = await self._clear(there, self._state.secrets())
        except StorageRefused:
            # The agent's user may be gone, or changed. The owner's key makes it good once more.
            await self.renew_user(there, owner)
            removed = await self._clear(there, self._state.secrets())
        removed += await remove_agent_user(storage.url, owner, storage.label, region=storage.region, clock=self._clock)
        removed += [f"{self._state.path / name}" for name in self._state.forget()]
        return Left(there.name, tuple(removed), f"The hub still lists the node as offline: wio node evict {there.name}.")

    async def _clear(self, there: NodeSettings, keys: Secrets) -> list[str]:
        node = make_node(there, keys, self._settings)
        await node.open()
        try:
            return await node.leave()
        finally:
            await node.close()
