"""The people's side of a hub on a real database, and agents that keep to the protocol without a storage server."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sqlalchemy import select

from hub.db.database import Database
from hub.db.migrate import upgrade
from hub.db.tables import receipts
from hub.services.accounts import Accounts
from hub.services.assertions import Assertions
from hub.services.audit import Audit
from hub.services.credentials import Issuing
from hub.services.enrolment import Enrolment
from hub.services.grantsets import EVERYONE, At, GrantSets
from hub.services.groups import Groups
from hub.services.links import Links
from hub.services.ports import Actor
from hub.services.reach import People
from hub.services.requests import Requests
from hub.services.root_changes import RootChanges
from hub.services.roots import Roots
from hub.services.settling import Settling
from hub.services.sharing import Sharing
from hub.services.workspace_changes import WorkspaceChanges
from hub.services.workspaces import Workspaces
from protocol.api import NewAccount, NewCredentials, NewInvitation, NewRoot, NewWorkspace, RootKind
from protocol.errors import Conflict, DeadlinePassed, NodeOffline, NoGrant, OverCeiling, Pending, Problem, error_of
from protocol.grants import GrantSet, Permission, Receipt, Subject, SubjectKind, content_hash, open_set
from protocol.identity import JoinString, new_key, public_bytes, public_key, to_text
from protocol.messages import (
    Answer,
    Asking,
    Configure,
    Done,
    Epochs,
    EpochState,
    Explain,
    Explained,
    Failed,
    Finding,
    GrantsApplied,
    GrantsRefused,
    LinkSigned,
    Mint,
    Minted,
    Refusal,
    Report,
    SetGrants,
    SignLink,
    WireProof,
    Wishes,
)
from protocol.messages import (
    Enrolment as Enrolling,
)
from protocol.names import NodeId, RootId, locate
from protocol.sealing import ClearCredential, ClearLink, Context, client_key, seal, seal_link
from protocol.session import Proved
from protocol.wire import Skipped, decode_agent, decode_hub, encode

START: Final = 1_800_000_000_000_000
PASSWORD: Final = "correct horse battery"


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> int:
        self.time += 1
        return self.time

    def pass_s(self, seconds: float) -> None:
        self.time += int(seconds * 1_000_000)


class Chance:
    """Randomness that repeats itself."""

    def __init__(self, seed: int = 7) -> None:
        self.random = random.Random(seed)  # noqa: S311 - tests repeat themselves

    def new_id(self) -> int:
        return self.random.randint(1, 2**53 - 1)

    def secret(self, size: int) -> bytes:
        return self.random.randbytes(size)


class SmallAgent:
    """What an agent answers. ``ceiling``: what it refuses; ``before`` runs before each answer and may wait or raise."""

    def __init__(self, name: str, hub_key: bytes, clock: Clock) -> None:
        self.key = new_key(hashlib.sha256(name.encode()).digest())
        self.hub_key = public_key(hub_key)
        self.clock = clock
        self.id = NodeId(0)
        self.sets: dict[tuple[SubjectKind, int], GrantSet] = {}
        self.twofold: dict[tuple[SubjectKind, int], GrantSet] = {}
        """Other sets of the same epoch: only what both open is open."""
        self.asked: list[Asking] = []
        self.ceiling: set[tuple[int, Permission]] = set()
        self.proof_status = 403
        self.before: Callable[[Asking], Any] | None = None
        self.refuse: Problem | None = None
        self.explains = 0
        """What the storage server is to answer to Explain, whatever the grants say."""

    async def answer(self, asked: Asking) -> Answer:
        self.asked.append(asked)
        if self.before is not None and (waiting := self.before(asked)) is not None:
            await waiting
        if isinstance(asked, SetGrants):
            return self._set(asked)
        if isinstance(asked, Mint):
            return self._mint(asked)
        if isinstance(asked, SignLink):
            return self._sign(asked)
        if isinstance(asked, Explain):
            return self._explain(asked)
        if self.refuse is not None:
            return Failed(asked.request, self.refuse)
        return Done(asked.request)

    def _sign(self, asked: SignLink) -> Answer:
        here = self.sets.get((asked.subject.kind, asked.subject.id))
        if here is None or here.epoch < asked.epoch:
            return Failed(asked.request, Pending("That set is not here.").problem)
        if (SubjectKind.PERSON, here.under) not in self.sets or (SubjectKind.EVERYONE, 0) not in self.sets:
            return Failed(asked.request, NoGrant("Whoever made it has nothing here.").problem)
        expires = self.clock.time // 1_000_000 + asked.life_s
        clear = ClearLink("PUT" if asked.put else "GET", f"http://127.0.0.1:9000/{asked.bucket}/{asked.key}", expires)
        context = Context(self.id, asked.subject.id, asked.request, asked.client_key)
        return LinkSigned(asked.request, seal_link(self.key, context, clear))

    def _set(self, asked: SetGrants) -> Answer:
        new = open_set(self.hub_key, asked.grant_set)
        key = (new.subject.kind, new.subject.id)
        over = OverCeiling("The owner of this node does not allow that.").problem
        refusals = tuple(Refusal(one.workspace, over) for one in new.grants if (one.workspace, one.permission) in self.ceiling)
        here = self.sets.get(key)
        if here is not None and new.epoch == here.epoch and content_hash(new) != content_hash(here):
            self.twofold[key] = new
            return GrantsRefused(asked.request, new.subject, new.epoch, Conflict("There are two sets.").problem)
        if refusals or (here is not None and new.epoch < here.epoch):
            return GrantsRefused(asked.request, new.subject, new.epoch, over, refusals)
        self.sets[key] = new
        self.twofold.pop(key, None)
        proof = WireProof("GET lab/x", self.proof_status, self.clock.now(), self.proof_status == 403)
        return GrantsApplied(asked.request, new.subject, new.epoch, self.clock.now(), 1, (proof,))

    def _mint(self, asked: Mint) -> Answer:
        here = self.sets.get((asked.subject.kind, asked.subject.id))
        if here is None or here.epoch < asked.epoch:
            return Failed(asked.request, Pending("This node has an older set.").problem)
        expires = self.clock.now() // 1_000_000 + asked.life_s
        clear = ClearCredential("AK", "sk", "token", expires, "http://127.0.0.1:9000", "us-east-1")
        context = Context(0, asked.subject.id, asked.request, asked.client_key)
        return Minted(asked.request, seal(self.key, context, clear))

    def _explain(self, asked: Explain) -> Answer:
        root = next(one for one in self.asked_for(Configure)[-1].roots if one.root == asked.root)
        place = locate(root.layout, root.bucket, root.prefix, asked.key)
        subjects = ((asked.subject.kind, asked.subject.id), (SubjectKind.EVERYONE, 0))
        given = [grant for subject in subjects if subject in self.sets for grant in self.sets[subject].grants]
        reads = any(one.permission.reads and one.bucket == place.bucket and place.key.startswith(one.prefix) for one in given)
        status = self.explains or (404 if reads else 403)
        proof = WireProof(f"GET {place.bucket}/{place.key}", status, self.clock.now(), expected=True)
        mine = self.sets[asked.subject.kind, asked.subject.id]
        return Explained(asked.request, mine.epoch, "a policy", 1, proof)

    def grants(self, subject: int = 0) -> dict[int, Permission]:
        """What a person (0: everyone) is allowed here, by workspace; not what groups give."""
        return self._open((SubjectKind.PERSON if subject else SubjectKind.EVERYONE, subject))

    def group(self, group: int) -> dict[int, Permission]:
        """What a group's shared set allows."""
        return self._open((SubjectKind.GROUP, group))

    def whole(self, person: int) -> dict[int, Permission]:
        """What a person is allowed here by their own set and the groups it names."""
        here = self.sets.get((SubjectKind.PERSON, person))
        found: dict[int, Permission] = {}
        for one in here.groups if here else ():
            found |= self.group(one)
        return found | self.grants(person)

    def _open(self, key: tuple[SubjectKind, int]) -> dict[int, Permission]:
        here, other = self.sets.get(key), self.twofold.get(key)
        allowed = {one.workspace: one.permission for one in here.grants} if here else {}
        if other is None:
            return allowed
        both = set(allowed) & {one.workspace for one in other.grants}
        return {workspace: allowed[workspace] for workspace in both}

    def epochs(self) -> Epochs:
        return Epochs(tuple(EpochState(one.subject, one.epoch, content_hash(one)) for one in self.sets.values()))

    def asked_for(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.asked if isinstance(one, kind)]


class Agents:
    """Serves ``ports.Agents``: every message goes through its bytes and every limit, as over a connection."""

    def __init__(self) -> None:
        self.nodes: dict[int, SmallAgent] = {}
        self.ended: list[tuple[int, Problem]] = []
        self._requests = itertools.count(1)
        self.silent = False

    def online(self, node: NodeId) -> bool:
        return node in self.nodes

    async def ask(self, node: NodeId, make: Callable[[int, int], Asking], *, deadline_s: float) -> Answer:
        if node not in self.nodes:
            raise NodeOffline("The node is not connected.")
        if self.silent:
            raise DeadlinePassed("The node did not answer in time.")
        request = next(self._requests)
        asked = decode_hub(encode(make(request, int(deadline_s * 1000))))
        assert not isinstance(asked, Skipped)
        answer = decode_agent(encode(await self.nodes[node].answer(asked)))  # type: ignore[arg-type]  # it is an Asking
        assert answer.request == request  # type: ignore[union-attr]  # all answers have one
        if isinstance(answer, Failed):
            raise error_of(answer.problem)
        return answer  # type: ignore[return-value]  # nothing else is left

    async def end(self, node: NodeId, problem: Problem) -> None:
        self.nodes.pop(node, None)
        self.ended.append((node, problem))


class Bench:
    """One hub's people side."""

    def __init__(self, url: str) -> None:
        self.clock = Clock()
        self.chance = Chance()
        self.agents = Agents()
        self.hub_key = new_key(bytes(range(32)))
        self.client = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
        self.database = Database(url)
        database, clock, chance, agents = self.database, self.clock, self.chance, self.agents
        self.audit = Audit(database=database, clock=clock)
        audit = self.audit
        self.sets = GrantSets(database=database, agents=agents, clock=clock, chance=chance, hub_key=self.hub_key)
        self.settling = Settling(database=database, agents=agents, clock=clock, audit=audit, sets=self.sets)
        self.accounts = Accounts(
            database=database,
            clock=clock,
            chance=chance,
            audit=audit,
            settling=self.settling,
            hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1),
        )
        self.enrolment = Enrolment(
            database=database,
            agents=agents,
            clock=clock,
            chance=chance,
            audit=audit,
            hub_key=self.hub_key,
            hub_url="http://127.0.0.1:8000",
        )
        self.roots = Roots(
            database=database,
            agents=agents,
            clock=clock,
            chance=chance,
            audit=audit,
            sets=self.sets,
            searchable=self._searchable,
        )
        self.workspaces = Workspaces(database=database, agents=agents, clock=clock, chance=chance, audit=audit, sets=self.sets)
        self.sharing = Sharing(
            database=database, clock=clock, chance=chance, audit=audit, sets=self.sets, settling=self.settling
        )
        self.root_changes = RootChanges(
            database=database, agents=agents, clock=clock, chance=chance, audit=audit, sets=self.sets, roots=self.roots
        )
        self.workspace_changes = WorkspaceChanges(database=database, clock=clock, chance=chance, audit=audit, sets=self.sets)
        self.groups = Groups(database=database, clock=clock, chance=chance, audit=audit, sets=self.sets)
        self.requests = Requests(database=database, clock=clock, chance=chance, audit=audit, sharing=self.sharing)
        self.issuing = Issuing(database=database, agents=agents, clock=clock, audit=audit, sets=self.sets)
        self.links = Links(database=database, agents=agents, clock=clock, chance=chance, audit=audit, sets=self.sets)
        self.people = People(database=database, clock=clock)
        self.assertions = Assertions(database=database, clock=clock, audit=audit, sets=self.sets, hub_key=self.hub_key)

    @staticmethod
    async def _searchable(root: RootId) -> int:
        del root
        return 0

    # ---------------------------------------------------------------------------------------------- short ways

    async def person(self, username: str, *, admin: bool = False) -> Actor:
        email = f"{username}@lab.example"
        user = await self.accounts.create(NewAccount(email, username, PASSWORD), admin=admin)
        return Actor(user.id, username, admin, "192.0.2.1")  # type: ignore[arg-type]  # an id is an id

    async def invited(self, owner: Actor, name: str | None = None) -> JoinString:
        made = await self.enrolment.invite(owner, NewInvitation(name))
        return JoinString.parse(made.join_string, self.clock.time // 1_000_000)

    def proved(self, join: JoinString, name: str, node_key: bytes | None = None) -> Proved:
        key = node_key or public_bytes(new_key(hashlib.sha256(name.encode()).digest()))
        return Proved(key, Enrolling(public_bytes(join.key), bytes(64), Wishes(name, "minio")))

    async def node(
        self, owner: Actor, name: str = "lab3", *, isolates: Finding = Finding.NO, ceiling: tuple[str, ...] = ()
    ) -> SmallAgent:
        """Join a node and connect it."""
        admitted = await self.enrolment.admit(self.proved(await self.invited(owner), name), "192.0.2.9")
        agent = SmallAgent(name, public_bytes(self.hub_key), self.clock)
        self.agents.nodes[admitted.node] = agent
        agent.id = admitted.node
        await self.report(admitted.node, isolates=isolates, ceiling=ceiling)
        return agent

    async def report(
        self, node: NodeId, *, isolates: Finding = Finding.NO, ceiling: tuple[str, ...] = (), longest_s: int = 43_200
    ) -> None:
        where = ("http://127.0.0.1:9000",)
        report = Report("0.1", "minio", "MinIO", where, "us-east-1", isolates, (), ceiling, longest_s)
        await self.enrolment.report(node, report)

    async def root(self, owner: Actor, kind: RootKind = RootKind.PRIVATE, name: str = "main", **more: Any) -> Any:
        return await self.roots.create(owner, NewRoot("lab3", name, kind, more.pop("bucket", "lab"), **more))

    async def workspace(self, owner: Actor, name: str = "scans", **more: Any) -> Any:
        return await self.workspaces.create(owner, NewWorkspace(name, **more))

    async def key(self, actor: Actor, *paths: str, **more: Any) -> Any:
        """Ask for a key; return the first."""
        return (await self.issuing.issue(actor, NewCredentials(self.client_text, paths, **more))).keys[0]

    async def stored_receipt(self, receipt: str) -> Receipt:
        async with self.database.read() as connection:
            body = await connection.scalar(select(receipts.c.body).where(receipts.c.id == receipt))
        return msgspec.json.decode(body, type=Receipt)

    @staticmethod
    def at(agent: SmallAgent) -> At:
        return At(agent.id, "lab3")

    @staticmethod
    def subject(actor: Actor) -> Subject:
        return Subject(SubjectKind.PERSON, actor.id, actor.username)

    @staticmethod
    def new_root(node: str, name: str, kind: RootKind, bucket: str) -> NewRoot:
        return NewRoot(node, name, kind, bucket)

    @staticmethod
    def reconnecting(agent: SmallAgent) -> Proved:
        return Proved(public_bytes(agent.key), None)

    @property
    def client_text(self) -> str:
        return to_text(client_key(self.client))

    everyone = EVERYONE
    deadline = DeadlinePassed("The node did not answer in time.")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run on PostgreSQL too what a module names in ``ON_BOTH``."""
    if "bench" in metafunc.fixturenames:
        both = metafunc.function.__name__ in getattr(metafunc.module, "ON_BOTH", ())
        metafunc.parametrize("bench", ("sqlite", "postgresql") if both else ("sqlite",), indirect=True)


@pytest.fixture
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/hub.sqlite"
    else:
        url = request.getfixturevalue("new_postgres")(f"services_{abs(hash(str(tmp_path)))}")
    await upgrade(url)
    made = Bench(url)
    yield made
    await made.database.close()


@pytest.fixture
async def alice(bench: Bench) -> Actor:
    return await bench.person("alice")


@pytest.fixture
async def bob(bench: Bench) -> Actor:
    return await bench.person("bob")


@pytest.fixture
async def lab3(bench: Bench, alice: Actor) -> SmallAgent:
    """A connected node of alice's that does not isolate names."""
    return await bench.node(alice)
