"""Why somebody may reach a path or may not: the chain from the person to the policy, and what the server itself answers.

Each link is told whether or not it decides: who asks why wants to see what was looked at. The last word is the storage
server's: its agent tries the very path with a key of that person and says what came back.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import audit as audit_rows
from hub.db import facts, grant_sets, people, quotas, standings
from hub.db.database import Database
from hub.db.facts import GrantFacts, SetFacts, WorkspaceFacts
from hub.db.people import UserRow
from hub.db.standings import Standing
from hub.domain.access import Denied, decide
from hub.domain.paths import Reading, readings
from hub.domain.quota import Strain, limit, size
from hub.services.grantsets import EVERYONE, At, GrantSets
from hub.services.ports import Actor, Agents, Clock
from hub.services.reach import held
from protocol.api import Why, WhyStep
from protocol.errors import NotAllowed, UnknownUser, UnknownWorkspace, WioError
from protocol.grants import GrantSet, Permission, Subject, SubjectKind
from protocol.messages import Explain, Explained, Health
from protocol.names import NodeId, UserId, locate, shown

DEADLINE_S: Final = 10.0
_MICROSECOND: Final = 1_000_000
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_FIRST_BAD: Final = 300
_NOBODYS_KEY: Final = ".wio-why"
"""What is tried below a folder: a name that is most likely not there, which the server answers with 404 where one may read."""


class _Seen(msgspec.Struct, frozen=True):
    """Everything that was read about the question."""

    reading: Reading
    person: UserRow
    there: WorkspaceFacts
    standing: Standing | None
    given: list[GrantFacts]
    groups: dict[int, str]
    mine: SetFacts | None
    everyones: SetFacts | None
    opened: bool
    """Whether the sets that were signed last open anything of the workspace."""
    over: list[str]
    ended: str
    """Who ended what this person was given, in words; empty where nobody did."""

    @property
    def called(self) -> str:
        """``owner/name``."""
        return f"{self.there.owner}/{self.there.name}"

    @property
    def paused(self) -> bool:
        """Whether the node's owner has everybody cut off, as far as the node said."""
        return self.there.health is not None and msgspec.msgpack.decode(self.there.health, type=Health).paused


class _Verdict(msgspec.Struct, frozen=True):
    permission: Permission | None
    because: str
    todo: str


class Explaining:
    """Answers why."""

    def __init__(self, *, database: Database, agents: Agents, clock: Clock, sets: GrantSets) -> None:
        self._database = database
        self._agents = agents
        self._clock = clock
        self._sets = sets

    async def why(self, actor: Actor, who: str, path: str) -> Why:
        """Explain whether ``who`` (a user name, or ``me``) may reach a path, which is read as whoever asks writes it.

        One may ask about oneself; about others, who manages the workspace, its node's owner and admins may. Raises
        UnknownUser, UnknownWorkspace, NotAllowed, BadName.
        """
        who = actor.username if who == "me" else who
        read = readings(path, actor.username)
        seen = await self._database.run_read(lambda connection: self._look(connection, actor, who, path, read))
        if isinstance(seen, Why):
            return seen
        now = self._clock.now()
        verdict = _verdict(seen)
        steps = _chain(seen, now, online=self._agents.online(NodeId(seen.there.node_id)))
        said, agrees, step = await self._ask(seen, verdict)
        if step is not None:
            steps.append(step)
        return Why(
            who=who,
            path=path,
            allowed=verdict.permission is not None,
            permission=verdict.permission,
            because=verdict.because,
            steps=tuple(steps),
            server_said=said,
            agrees=agrees,
            todo=verdict.todo,
        )

    # -------------------------------------------------------------------------------------------------- looking

    async def _look(
        self, connection: AsyncConnection, actor: Actor, who: str, path: str, read: tuple[Reading, ...]
    ) -> _Seen | Why:
        person = await people.by_name(connection, who)
        there, reading = None, read[0]
        for one in read:
            there = await facts.workspace(connection, one.owner, one.name)
            if there is not None:
                reading = one
                break
        await self._check(connection, actor, who, path, there)
        if person is None:
            raise UnknownUser(f"There is nobody called {shown(who)}.", todo="User names are lower case.")
        if there is None:
            return _unknown(person, path)
        seen = await self._read(connection, person, there, reading)
        runs = actor.admin or actor.id == there.node_owner_id
        if person.id == actor.id and not runs and not _knows(seen):
            return _unknown(person, path)
        return seen

    async def _check(
        self, connection: AsyncConnection, actor: Actor, who: str, path: str, there: WorkspaceFacts | None
    ) -> None:
        """See that this may be asked; who may not know of a workspace hears the same whether or not there is one."""
        if actor.username == who or actor.admin:
            return
        unknown = UnknownWorkspace(f"There is no workspace {shown(path)}, or none that you may use.")
        if there is None:
            raise unknown
        if actor.id in {there.owner_id, there.node_owner_id}:
            return
        standing = await self._standing(connection, actor, there)
        if standing is None or held(actor, standing).strongest is None:
            raise unknown
        if isinstance(decide(held(actor, standing), Permission.MANAGE), Denied):
            raise NotAllowed(
                f"What others may do in {there.owner}/{there.name} is told to those who manage it.",
                todo=f"About yourself: wio why {actor.username} {shown(path)[1:-1]}",
            )

    async def _standing(self, connection: AsyncConnection, actor: Actor, there: WorkspaceFacts) -> Standing | None:
        named = await standings.named(connection, actor.id, [(there.owner, there.name)], self._clock.now())
        return named.get((there.owner, there.name))

    async def _read(self, connection: AsyncConnection, person: UserRow, there: WorkspaceFacts, reading: Reading) -> _Seen:
        given = await facts.given(connection, there.id)
        memberships = await facts.memberships(connection, person.id)
        mine = await facts.set_of(connection, there.node_id, SubjectKind.PERSON, person.id)
        everyones = await facts.set_of(connection, there.node_id, SubjectKind.EVERYONE, 0)
        subjects = [_subject(person), EVERYONE, *(Subject(SubjectKind.GROUP, *one) for one in memberships.items())]
        bodies = [await grant_sets.body(connection, there.node_id, one) for one in subjects]
        place = locate(there.layout, there.bucket, there.root_prefix, there.prefix)
        opened = any(
            grant.bucket == place.bucket and (grant.prefix.startswith(place.key) or place.key.startswith(grant.prefix))
            for body in bodies
            if body
            for grant in msgspec.msgpack.decode(body, type=GrantSet).grants
        )
        over = await quotas.some(connection, await quotas.over(connection, there.id))
        return _Seen(
            reading=reading,
            person=person,
            there=there,
            standing=await self._standing(connection, _actor(person), there),
            given=given,
            groups=memberships,
            mine=mine,
            everyones=everyones,
            opened=opened,
            over=[f"{one.of} holds {size(one.used)} of {size(one.row.hard or 0)}" for one in over],
            ended=await _ended(connection, person, there, given),
        )

    # -------------------------------------------------------------------------------------------------- the server

    async def _ask(self, seen: _Seen, verdict: _Verdict) -> tuple[str, bool | None, WhyStep | None]:
        """Have the agent try the path with a key of this person; return what it said, whether it agrees, and the link."""
        there = seen.there
        node = NodeId(there.node_id)
        if seen.mine is None or seen.mine.epoch == 0:
            told = f"{seen.person.username} never had a key on {there.node}, so nothing is open there yet"
            return "", None, WhyStep("policy", holds=verdict.permission is None, detail=told)
        if there.evicted_at is not None or there.retired_at is not None or not self._agents.online(node):
            return "", None, None
        subject = _subject(seen.person)
        rest = seen.reading.rest
        key = there.prefix + (rest if rest and not rest.endswith("/") else rest + _NOBODYS_KEY)
        try:
            await self._up_to_date(seen, subject)
            answer = await self._agents.ask(
                node,
                lambda request, deadline: Explain(request, deadline, subject, there.root_id, key),
                deadline_s=DEADLINE_S,
            )
        except WioError as error:
            return "", None, WhyStep("policy", holds=False, detail=f"{there.node} was asked and said: {error.message}")
        if not isinstance(answer, Explained):
            return "", None, WhyStep("policy", holds=False, detail=f"{there.node} gave an answer that does not fit")
        reads = verdict.permission is not None and verdict.permission.reads
        proof = answer.proof
        if proof is None:
            return "", None, WhyStep("policy", holds=reads, detail=f"on {there.node}: {answer.policy}")
        opened = 0 < proof.status < _FIRST_BAD or proof.status == _NOT_FOUND
        closed = proof.status == _FORBIDDEN
        agrees = (opened if reads else closed) if opened or closed else None
        said = f"{there.node} was asked with a key of {seen.person.username} just now: {proof.what} got {proof.status}."
        return said, agrees, WhyStep("policy", holds=opened, detail=f"on {there.node}: {answer.policy}")

    async def _up_to_date(self, seen: _Seen, subject: Subject) -> None:
        """Bring what the node has up to date where that had waited for the next key, so that the answer is of now."""
        if seen.standing is None or seen.standing.unconfirmed_since is not None:
            return  # the node has what both sides agree on; asking must not take that away
        at = At(NodeId(seen.there.node_id), seen.there.node)
        for one, state in ((subject, seen.mine), (EVERYONE, seen.everyones)):
            if state is not None and state.epoch and (state.stale or state.applied_epoch < state.epoch):
                await self._sets.ready(at, one)


# ------------------------------------------------------------------------------------------------------ deciding


def _verdict(seen: _Seen) -> _Verdict:
    """Put the links together: what is held, and what takes it away."""
    who, called, there = seen.person.username, seen.called, seen.there
    ask = f"Ask {there.owner}: wio request {called}"
    gone = _gone(seen)
    if gone or seen.standing is None:
        return _Verdict(None, gone, "")
    holds = held(_actor(seen.person), seen.standing)
    over = seen.standing.strain == Strain.OVER
    permission = holds.strongest
    if permission is None:
        archived = f"{called} is archived, and who may only drop has nothing to do there"
        return _Verdict(None, f"{archived if holds.sources else f'{who} has no grant on {called}'}.", ask)
    permission = limit(permission) if over else permission
    refused = [state.refused for state in (seen.mine, seen.everyones) if state is not None and state.refused]
    if permission is None:
        return _Verdict(None, f"{called} is over its quota: nothing can be dropped into it now.", f"Ask {there.owner}.")
    if seen.paused:
        return _Verdict(None, f"The owner of {there.node} has paused it: nobody reaches anything there now.", "Ask them.")
    if refused and not seen.opened:
        return _Verdict(None, f"The owner of {there.node} does not allow it: {refused[0]}", "Ask them: wio-agent ceiling.")
    todo = "Over its quota: nothing can be added until something is deleted." if over else ""
    return _Verdict(permission, f"{who} {_reason(holds.sources[0][1])}.", todo)


def _gone(seen: _Seen) -> str:
    """Say what is no more of the person or the place; empty where all is there."""
    there = seen.there
    if seen.person.disabled_at is not None:
        return f"The account of {seen.person.username} was ended."
    if there.evicted_at is not None:
        return f"{there.node}, where {seen.called} lies, was removed from this hub."
    if there.retired_at is not None or seen.standing is None:
        return f"{there.node}/{there.root}, in which {seen.called} lies, was retired."
    return ""


def _reason(source: str) -> str:
    """Make a half-sentence about the person of what may be one about the workspace."""
    return f"may, because {source}" if source.startswith("it ") else source


def _knows(seen: _Seen) -> bool:
    """Say whether this person knows of the workspace: by what they hold, or once held."""
    if seen.standing is not None and held(_actor(seen.person), seen.standing).sources:
        return True
    return any(one.subject_kind == SubjectKind.PERSON and one.subject_id == seen.person.id for one in seen.given)


def _unknown(person: UserRow, path: str) -> Why:
    told = f"there is no workspace {shown(path)}, or none that {person.username} may know of"
    steps = (_person(person), WhyStep("workspace", holds=False, detail=told))
    return Why(person.username, path, False, None, f"T{told[1:]}.", steps, "", None, "wio w ls shows yours.")


# ------------------------------------------------------------------------------------------------------ the chain


def _chain(seen: _Seen, now: int, *, online: bool) -> list[WhyStep]:
    there, standing = seen.there, seen.standing
    place = locate(there.layout, there.bucket, there.root_prefix, there.prefix)
    steps = [
        _person(seen.person),
        WhyStep("workspace", True, f"{seen.called} lies in {there.node}/{there.root} at {place.bucket}/{place.key}"),
    ]
    if there.retired_at is not None:
        steps.append(WhyStep("root", False, f"{there.node}/{there.root} was retired {_when(there.retired_at)}"))
    if there.evicted_at is not None:
        steps.append(WhyStep("node", False, f"{there.node} was removed {_when(there.evicted_at)}"))
    owns = there.owner_id == seen.person.id
    steps.append(WhyStep("owner", owns, f"{there.owner} owns it"))
    steps += _sources(seen, now)
    if there.archived_at is not None:
        steps.append(WhyStep("archived", False, f"archived {_when(there.archived_at)}: everybody can only read it"))
    over = standing is not None and standing.strain == Strain.OVER
    told = f"over quota: {'; '.join(seen.over)}; nothing can be added" if over else "no quota is exceeded"
    steps.append(WhyStep("quota", not over, told))
    steps += _on_the_node(seen, now, online=online)
    return steps


def _person(person: UserRow) -> WhyStep:
    if person.disabled_at is not None:
        return WhyStep("person", False, f"the account of {person.username} was ended {_when(person.disabled_at)}")
    return WhyStep("person", True, f"{person.username} has an account")


def _sources(seen: _Seen, now: int) -> list[WhyStep]:
    """Tell of everything that could give access: a grant, groups, everyone, a public root."""
    who, there = seen.person.username, seen.there
    steps = [_direct(seen, now)]
    granted = {one.subject_id: one for one in seen.given if one.subject_kind == SubjectKind.GROUP and one.held_at(now)}
    for group, name in sorted(seen.groups.items(), key=lambda one: one[1]):
        one = granted.get(group)
        if one is not None:
            steps.append(WhyStep("group", True, f"{who} is in @{name}, which has {one.permission}{_until(one)}"))
    without = [f"@{name}" for group, name in sorted(seen.groups.items(), key=lambda one: one[1]) if group not in granted]
    if without:
        verb = "has" if len(without) == 1 else "have"
        steps.append(WhyStep("group", False, f"{who} is in {', '.join(without[:20])}, which {verb} no grant here"))
    elif not seen.groups:
        steps.append(WhyStep("group", False, f"{who} is in no group"))
    shared = next((one for one in seen.given if one.subject_kind == SubjectKind.EVERYONE and one.held_at(now)), None)
    told = "not shared with everyone" if shared is None else f"shared with everyone for {shared.permission}{_until(shared)}"
    steps.append(WhyStep("everyone", shared is not None, told))
    told = f"{there.node}/{there.root} is public: everyone may read" if there.kind.public else "no public root"
    steps.append(WhyStep("public-root", there.kind.public, told))
    return steps


def _direct(seen: _Seen, now: int) -> WhyStep:
    mine = [one for one in seen.given if one.subject_kind == SubjectKind.PERSON and one.subject_id == seen.person.id]
    living = next((one for one in mine if one.held_at(now)), None)
    if living is not None and living.permission != facts.OWNER:
        return WhyStep("grant", True, f"shared with {seen.person.username} for {living.permission}{_until(living)}")
    past = max((one for one in mine if one.until is not None), key=lambda one: one.until or 0, default=None)
    if past is None or past.until is None:
        return WhyStep("grant", False, f"no grant to {seen.person.username}")
    if past.permission == facts.OWNER:
        return WhyStep("grant", False, f"{seen.person.username} owned it until {_moment(past.until)}")
    expired = past.expires_at is not None or past.ended_at is None
    ended = "it ran out" if expired else seen.ended
    return WhyStep("grant", False, f"shared until {_moment(past.until)}{f' ({ended})' if ended else ''}")


def _on_the_node(seen: _Seen, now: int, *, online: bool) -> list[WhyStep]:
    there, mine = seen.there, seen.mine
    steps = []
    refused = [state.refused for state in (mine, seen.everyones) if state is not None and state.refused]
    told = f"{there.node}'s owner: {refused[0]}" if refused else f"{there.node}'s owner allows it"
    steps.append(WhyStep("ceiling", not refused, told))
    if seen.paused:
        steps.append(WhyStep("paused", False, f"{there.node}'s owner has paused it: everybody is cut off"))
    if seen.standing is not None and seen.standing.unconfirmed_since is not None:
        told = f"{there.node} waits for its owner to confirm the grants of this hub: wio node confirm {there.node}"
        steps.append(WhyStep("confirmed", False, told))
    if mine is not None and mine.epoch:
        newest = mine.applied_epoch == mine.epoch and not mine.stale
        told = f"{there.node} enforces epoch {mine.applied_epoch} of {mine.epoch}"
        waits = ", and changes wait for the next key" if mine.stale else ""
        steps.append(WhyStep("enforced", newest, told + waits))
        out = mine.keys_until > now
        told = f"keys are out until {_moment(mine.keys_until)} at the latest" if out else "holds no key there now"
        steps.append(WhyStep("keys", out, told))
    told = f"{there.node} is connected" if online else f"{there.node} is offline: no new keys; those that are out go on working"
    steps.append(WhyStep("online", online, told))
    return steps


# ------------------------------------------------------------------------------------------------------ words


async def _ended(connection: AsyncConnection, person: UserRow, there: WorkspaceFacts, given: list[GrantFacts]) -> str:
    """Say who took back what this person was given, and by which receipt."""
    if not any(one.subject_id == person.id and one.ended_at is not None for one in given):
        return ""
    about = msgspec.json.encode({"who": person.username}).decode()[:-1]
    line = await audit_rows.last(connection, ["unshare"], workspace=there.id, detail=about)
    if line is None:
        return ""
    receipt = await facts.last_receipt(connection, there.id, SubjectKind.PERSON, person.id)
    return f"{line.actor or 'the hub'} revoked it{f', receipt {receipt}' if receipt else ''}"


def _until(one: GrantFacts) -> str:
    return "" if one.until is None else f" until {_moment(one.until)}"


def _when(at: int) -> str:
    return f"on {_moment(at)}"


def _moment(at: int) -> str:
    return f"{datetime.fromtimestamp(at // _MICROSECOND, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _subject(person: UserRow) -> Subject:
    return Subject(SubjectKind.PERSON, person.id, person.username)


def _actor(person: UserRow) -> Actor:
    return Actor(UserId(person.id), person.username, admin=False)
