"""Keys: one per node, minted there, sealed there, relayed here unread.

The hot path is one query, one round trip to the agent, and one small write that happens meanwhile. Grants are already on
the node; only where they are not (the first key, a change while nobody held one, half a lease gone) they are sent first.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import grant_sets, standings
from hub.db import groups as group_rows
from hub.db.database import Database
from hub.db.standings import Reached, SetState
from hub.domain.paths import Reading, readings
from hub.domain.quota import Strain, limit, strained
from hub.services.audit import Audit
from hub.services.compiling import compile_set
from hub.services.grantsets import EVERYONE, At, GrantSets, fresh, stale_lease
from hub.services.limits import Limiter
from hub.services.ports import Actor, Agents, Clock
from hub.services.reach import reaches, require, waiting
from protocol.api import Credentials, NewCredentials, NodeCredential, Opened
from protocol.errors import (
    BadInput,
    BadLifetime,
    BadMessage,
    Internal,
    NodeOffline,
    NotAllowed,
    OverCeiling,
    OverQuota,
    Pending,
    TooMany,
    UnknownWorkspace,
    WioError,
)
from protocol.grants import Grant, GrantSet, Narrowing, Permission, Subject, SubjectKind
from protocol.identity import from_text, to_text
from protocol.messages import Mint, Minted, Report
from protocol.names import NodeId, check_prefix, shown

DEADLINE_S: Final = 10.0
SHORTEST_S: Final = 900
"""What storage servers allow at least (4-storage)."""
_MICROSECOND: Final = 1_000_000
_MINUTE: Final = 60 * _MICROSECOND
_MOST_PATHS: Final = 50
"""As many places as ``Narrowing`` carries."""
_SLACK_S: Final = 30
"""A key's life begins when the node mints it, which is after the hub wrote down how long it may live."""
_TRIES: Final = 3
_KEY_BYTES: Final = 32


class _Wanted(msgspec.Struct, frozen=True):
    """One asked path, found."""

    opened: Opened
    reached: Reached


class _Job(msgspec.Struct, frozen=True):
    """A key to be minted on one node."""

    node: At
    actor: Actor
    client_key: bytes
    life_s: int
    narrowing: Narrowing
    wanted: tuple[_Wanted, ...]

    @property
    def subject(self) -> Subject:
        """Whose key that is."""
        return Subject(SubjectKind.PERSON, self.actor.id, self.actor.username)


class _Epochs(msgspec.Struct, frozen=True):
    """What the node must have before a key of this person may exist: their own set, and everyone's."""

    mine: int
    everyones: int | None
    """None: as it is, because the node waits for confirmation."""
    keys_until: int = 0
    """Until when keys may be out, as both sets already say."""


class _Moved(Exception):
    pass


class Issuing:
    """Issues keys."""

    def __init__(self, *, database: Database, agents: Agents, clock: Clock, audit: Audit, sets: GrantSets) -> None:
        self._database = database
        self._agents = agents
        self._clock = clock
        self._audit = audit
        self._sets = sets
        self._refusals = Limiter(clock=clock, tries=100, window_s=600, what="refused keys")

    async def issue(self, actor: Actor, new: NewCredentials) -> Credentials:
        """Return one sealed key for each node on which the asked paths lie.

        Raises BadInput, BadName, BadLifetime, UnknownWorkspace, NoGrant, OverCeiling, NodeOffline, DeadlinePassed, and what
        the node says. If one node fails, no key is returned.
        """
        client_key = read_client_key(new.client_key)
        if not 1 <= len(new.paths) <= _MOST_PATHS:
            raise BadInput(f"Keys are made for 1 to {_MOST_PATHS} paths; {len(new.paths)} were asked for.")
        possible = {path: readings(path, actor.username) for path in new.paths}
        names = {(one.owner, one.name) for read in possible.values() for one in read}
        now = self._clock.now()
        found = await self._database.run_glance(
            lambda connection: standings.reached(connection, actor.id, names, now, lease=stale_lease(now))
        )
        by_node: dict[int, list[_Wanted]] = {}
        for path, read in possible.items():
            try:
                wanted = self._open(actor, path, read, found, read_only=new.read_only)
            except (NotAllowed, UnknownWorkspace) as error:
                await self._note_refusal(actor, path, error)
                raise
            by_node.setdefault(wanted.reached.standing.node_id, []).append(wanted)
        jobs = [_job(actor, new, client_key, wanted) for wanted in by_node.values()]
        warnings = _warnings(one for job in jobs for one in job.wanted)
        if len(jobs) == 1:
            return Credentials((await self._one(jobs[0]),), warnings)
        keys: list[NodeCredential] = []
        for outcome in await asyncio.gather(*(self._one(job) for job in jobs), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            keys.append(outcome)
        return Credentials(tuple(keys), warnings)

    @staticmethod
    def _open(
        actor: Actor,
        path: str,
        read: Sequence[Reading],
        found: dict[tuple[str, str], Reached],
        *,
        read_only: bool,
    ) -> _Wanted:
        """Find the workspace of a path and see that a key may be made for it."""
        reading = next((one for one in read if (one.owner, one.name) in found), read[0])
        reached = found.get((reading.owner, reading.name))
        standing = None if reached is None else reached.standing
        drops = standing is not None and reaches(actor, standing)[0] is Permission.DROP
        want = Permission.DROP if drops and not read_only else Permission.READ
        require(actor, standing, want, path)
        if reached is None:
            raise Internal("A workspace that may be used was not found.")
        permission, place = reaches(actor, reached.standing)
        if permission is None:
            raise Internal("A workspace that may be used gives no permission.")
        if reached.standing.strain == Strain.OVER:
            permission = limit(permission)
            if permission is None:
                raise OverQuota(
                    f"{reached.standing.owner}/{reached.standing.name} is over its quota: nothing can be dropped into it now.",
                    todo=f"Ask {reached.standing.owner} to make room, then try again.",
                )
        opened = Opened(
            path=path,
            workspace=f"{reached.standing.owner}/{reached.standing.name}",
            bucket=place.bucket,
            prefix=place.key,
            key=place.key + reading.rest,
            permission=Permission.READ if read_only else permission,
        )
        return _Wanted(opened, reached)

    async def _note_refusal(self, actor: Actor, path: str, error: WioError) -> None:
        """Write down that no key was made, and why; of very many in a short time only the first."""
        try:
            self._refusals.count(actor.username)
        except TooMany:
            return

        async def note(connection: AsyncConnection) -> None:
            await self._audit.record(connection, actor, "key.refused", shown(path), reason=error.code)

        await self._database.run_write(note)

    # -------------------------------------------------------------------------------------------------- one node

    async def _one(self, job: _Job) -> NodeCredential:
        """Mint one key, once the node has what the key is to open."""
        if not self._agents.online(job.node.id):
            raise NodeOffline(
                f"{job.node.name} is not connected, so no key can be made.",
                todo="Keys you hold go on working. Try again later.",
            )
        first = job.wanted[0].reached
        doubtful = first.standing.unconfirmed_since is not None
        if doubtful:
            await self._check_confirmed(job)
        known = None if doubtful or first.groups_behind else await self._known(job, first.mine, first.everyones)
        again = False
        for left in reversed(range(_TRIES)):
            epochs = known or await self._ready(job, again=again, doubtful=doubtful)
            known = None
            try:
                return await self._mint(job, epochs)
            except Pending:
                again = True  # the agent has an older set than we thought: it was restored, or lost its state
                if not left:
                    raise
            except _Moved:
                again = False  # somebody shared or revoked meanwhile: that key is thrown away unseen
        raise Pending(
            f"What {job.actor.username} may do on {job.node.name} changes faster than keys are made.", todo="Try again."
        )

    async def _known(self, job: _Job, mine: SetState, everyones: SetState) -> _Epochs | None:
        """Return the epochs if the node has both sets, as far as the one query could tell."""
        now = self._clock.now()
        if not all(
            state.epoch > 0 and not state.stale and state.applied_epoch == state.epoch and fresh(state.lease_end, now)
            for state in (mine, everyones)
        ):
            return None
        if mine.refused is not None or everyones.refused is not None:
            await self._check_left_out(job)
        return _Epochs(mine.epoch, everyones.epoch, min(mine.keys_until, everyones.keys_until))

    async def _ready(self, job: _Job, *, again: bool, doubtful: bool) -> _Epochs:
        if doubtful:
            # What is shared stands on the node as it was last sent there, or as less: that needs no new word of this hub.
            return _Epochs(await self._sets.ready(job.node, job.subject, again=again), None)
        await self._sets.ready_groups(job.node, job.subject)
        everyones, mine = await asyncio.gather(
            self._sets.ready(job.node, EVERYONE, again=again),
            self._sets.ready(job.node, job.subject, again=again),
            return_exceptions=True,
        )
        for outcome in (everyones, mine):
            if isinstance(outcome, BaseException):
                raise outcome
        await self._check_left_out(job)
        return _Epochs(int(mine), int(everyones))  # type: ignore[arg-type]  # mypy does not see that exceptions were raised

    async def _check_left_out(self, job: _Job) -> None:
        """Raise OverCeiling where the node's owner does not allow what a key is asked for."""
        async with self._database.read() as connection:
            groups = await group_rows.of_person(connection, job.node.id, job.subject.id, self._clock.now())
            shared = [EVERYONE, *(group for group, has_set, _ in groups if has_set)]
            bodies = [await grant_sets.body(connection, job.node.id, subject) for subject in (*shared, job.subject)]
        enforced = [grant for body in bodies if body for grant in msgspec.msgpack.decode(body, type=GrantSet).grants]
        for one in job.wanted:
            if not _inside(one.opened, enforced):
                raise OverCeiling(
                    f"The owner of {job.node.name} does not allow {one.opened.permission} on {one.opened.workspace}.",
                    todo="Ask them; wio-agent ceiling shows their limits.",
                )

    async def _check_confirmed(self, job: _Job) -> None:
        """Raise NotAllowed where what a key is asked for waits for the node's owner: this hub came back from a backup."""
        now = self._clock.now()

        async def compiled(connection: AsyncConnection) -> list[Grant]:
            groups = await group_rows.of_person(connection, job.node.id, job.subject.id, now)
            subjects = [EVERYONE, job.subject, *(group for group, has_set, _ in groups if has_set)]
            return [grant for one in subjects for grant in (await compile_set(connection, job.node.id, one, now)).grants]

        confirmed = await self._database.run_read(compiled)
        for one in job.wanted:
            if not _inside(one.opened, confirmed):
                raise waiting(one.opened.workspace, job.node.name)

    async def _mint(self, job: _Job, epochs: _Epochs) -> NodeCredential:
        """Have the key minted while the hub writes down that it may be out; neither counts without the other."""
        minted, noted = await asyncio.gather(self._ask(job, epochs), self._note(job, epochs), return_exceptions=True)
        for outcome in (noted, minted):
            if isinstance(outcome, BaseException):
                raise outcome
        if not isinstance(minted, Minted):
            raise BadMessage(f"{job.node.name} gave an answer to Mint that does not fit.")
        credential = minted.credential
        report = _report(job.wanted[0].reached)
        return NodeCredential(
            node=job.node.name,
            node_id=job.node.id,
            node_key=to_text(job.wanted[0].reached.key),
            subject=job.actor.id,
            request=minted.request,
            sealed=to_text(credential.sealed),
            signature=to_text(credential.signature),
            expires_at=credential.expires,
            endpoint=report.endpoints[0],
            region=report.region,
            opens=tuple(one.opened for one in job.wanted),
        )

    async def _ask(self, job: _Job, epochs: _Epochs) -> object:
        return await self._agents.ask(
            job.node.id,
            lambda request, deadline: Mint(
                request, deadline, job.subject, epochs.mine, job.client_key, job.life_s, job.narrowing
            ),
            deadline_s=DEADLINE_S,
        )

    async def _note(self, job: _Job, epochs: _Epochs) -> None:
        """Write down that keys may be out until then, so that from here on every change is sent at once.

        Raises _Moved where a set has changed since: whoever changed it did not see this key, so it must not leave. Where
        the sets say already that keys may be out for so long, whoever changed one has sent it, and it reaches this key too.
        """
        until = self._clock.now() + (job.life_s + _SLACK_S) * _MICROSECOND
        until += -until % _MINUTE  # so that keys minted one after the other need not write it each time
        both = ((EVERYONE, epochs.everyones), (job.subject, epochs.mine)) if epochs.keys_until < until else ()
        subjects = [(subject, epoch) for subject, epoch in both if epoch is not None]

        async def note(connection: AsyncConnection) -> None:
            for subject, epoch in subjects:
                if not await grant_sets.hold_keys(connection, job.node.id, subject, epoch=epoch, until=until):
                    raise _Moved
            await self._audit.record(
                connection,
                job.actor,
                "key.mint",
                job.node.name,
                node=job.node.id,
                life_s=job.life_s,
                paths=" ".join(one.opened.path for one in job.wanted)[:2000],
                read_only=job.narrowing.read_only or None,
            )

        await self._database.run_write(note)


def _inside(place: Opened, grants: Iterable[Grant]) -> bool:
    return any(grant.bucket == place.bucket and place.prefix.startswith(grant.prefix) for grant in grants)


def _warnings(wanted: Iterable[_Wanted]) -> tuple[str, ...]:
    standings_of = [one.reached.standing for one in wanted]
    said = [strained(f"{one.owner}/{one.name}", Strain(one.strain)) for one in standings_of]
    return tuple(dict.fromkeys(one for one in said if one))


def _job(actor: Actor, new: NewCredentials, client_key: bytes, wanted: list[_Wanted]) -> _Job:
    """Check what depends on the node, and put together what it is asked for."""
    standing = wanted[0].reached.standing
    longest = _report(wanted[0].reached).longest_key_s
    if not SHORTEST_S <= new.life_s <= longest:
        raise BadLifetime(
            f"A key on {standing.node} lives {SHORTEST_S} s to {longest} s; {new.life_s} s were asked for.",
            todo="Choose another --ttl.",
        )
    places = tuple(dict.fromkeys(_narrow_place(one.opened) for one in wanted)) if new.narrow else ()
    node = At(NodeId(standing.node_id), standing.node)
    return _Job(node, actor, client_key, new.life_s, Narrowing(places, new.read_only), tuple(wanted))


def _narrow_place(opened: Opened) -> tuple[str, str]:
    """Return the folder that a narrowed key is for: a path without a slash at its end means that folder too."""
    key = opened.key
    return opened.bucket, check_prefix(key if not key or key.endswith("/") else key + "/")


def _report(reached: Reached) -> Report:
    if reached.report is None:
        raise NodeOffline(f"{reached.standing.node} has not said yet how it is reached.", todo="Try again in a moment.")
    return _read_report(reached.report)


@functools.lru_cache(maxsize=1024)
def _read_report(body: bytes) -> Report:
    return msgspec.msgpack.decode(body, type=Report)


def read_client_key(text: str) -> bytes:
    """Return the public key that a client wants something sealed to. Raises BadInput."""
    try:
        key = from_text(text)
    except BadMessage as error:
        raise BadInput("client_key is not base64url.") from error
    if len(key) != _KEY_BYTES:
        raise BadInput(f"client_key holds {len(key)} bytes; an X25519 public key has {_KEY_BYTES}.")
    return key
