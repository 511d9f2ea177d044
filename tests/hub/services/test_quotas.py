"""Quotas: who may set them, when they are exceeded, and what becomes of grants and keys meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import msgspec
import pytest
from sqlalchemy import update

from hub.db.tables import group_members, groups, root_roles, roots, workspaces
from hub.services.ingest import Ingest
from hub.services.ports import Actor
from hub.services.quotas import Quotas, QuotaStep
from hub.services.workspace_changes import WorkspaceChanges
from protocol.api import Handover, NewCredentials, NewQuota, NewShare, Quota, QuotaKind, RootKind
from protocol.digest import run_on
from protocol.errors import BadInput, NotAllowed, NotFound, OverQuota, UnknownRoot, UnknownUser, UnknownWorkspace, WioError
from protocol.grants import Permission
from protocol.messages import Change, Events, Finding, IndexLevel, Mint, ProbeLine, Report, Row, SetGrants

ON_BOTH = {
    "test_writing_goes_when_the_limit_is_reached_and_comes_back_when_a_margin_is_free",
    "test_every_kind_counts_what_it_says",
    "test_a_persons_quota_counts_what_they_own_whoever_writes_it",
}
MIB: Final = 1 << 20


class Filled:
    """A bench with quotas, and with a catalogue that can be filled as an agent fills it."""

    root: Any
    scans: Any

    def __init__(self, bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
        self.bench, self.alice, self.bob, self.lab3 = bench, alice, bob, lab3
        made = {"database": bench.database, "clock": bench.clock, "audit": bench.audit}
        self.step = QuotaStep(**made, sets=bench.sets)
        self.quotas = Quotas(**made, chance=bench.chance, step=self.step)
        self.ingest = Ingest(database=bench.database, clock=bench.clock, moved=self.step.moved)

    async def put(self, agent: Any, root: Any, key: str, size: int | None) -> None:
        """Have an agent report a file of this size; None: that it is gone."""
        cursor = await self.ingest.cursor(agent.id)
        change = Change.DELETE if size is None else Change.PUT
        row = Row(change, root.id, key, size or 0, mtime=cursor.sequence + 1, etag="e")
        events = Events(max(cursor.generation, 1), cursor.sequence, (row,), run_on(cursor.running, [row]))
        await self.ingest.apply(agent.id, events)

    async def set(self, actor: Actor, kind: QuotaKind, of: str, **limits: int | None) -> Quota:
        return await self.quotas.put(actor, NewQuota(kind, of, **limits))

    async def actions(self, like: str = "quota.") -> list[str]:
        admin = Actor(1, "x", admin=True)  # type: ignore[arg-type]  # an id is an id
        lines = await self.bench.audit.entries(admin, limit=50)
        return [one.action for one in reversed(lines) if one.action.startswith(like)]


@pytest.fixture
async def filled(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> Filled:
    """alice's node lab3 with a root and her workspace scans in it; bob has an account."""
    made = Filled(bench, alice, bob, lab3)
    made.root = await bench.root(alice, accept_visible_names=True, layout="prefix")
    made.scans = await bench.workspace(alice)
    return made


async def test_writing_goes_when_the_limit_is_reached_and_comes_back_when_a_margin_is_free(bench: Any, filled: Filled) -> None:
    alice, bob, lab3, root, scans = filled.alice, filled.bob, filled.lab3, filled.root, filled.scans
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.WRITE))
    await bench.key(bob, "alice/scans")
    await bench.key(alice, "scans")
    quota = await filled.set(alice, QuotaKind.WORKSPACE, "alice/scans", hard=10 * MIB)
    assert await filled.step.step() == 0
    await filled.put(lab3, root, "alice/scans/a", 9 * MIB)
    await filled.put(lab3, root, "alice/scans/b", 2 * MIB)
    assert await filled.step.step() == 1
    assert lab3.grants(bob.id) == {scans.id: Permission.TIDY}
    assert lab3.grants(alice.id) == {scans.id: Permission.TIDY}
    [now] = await filled.quotas.list(alice)
    assert (now.id, now.used, now.over_since is not None) == (quota.id, 11 * MIB, True)
    assert "Nothing can be added" in now.warnings[0]
    await filled.put(lab3, root, "alice/scans/b", MIB)  # exactly the limit, and a margin is asked for
    assert await filled.step.step() == 0
    await filled.put(lab3, root, "alice/scans/b", None)
    assert await filled.step.step() == 0, "one MiB has to be free, and a little more"
    await filled.put(lab3, root, "alice/scans/a", 9 * MIB - 1)
    assert await filled.step.step() == 1
    assert lab3.grants(bob.id) == {scans.id: Permission.WRITE}
    assert lab3.grants(alice.id) == {scans.id: Permission.MANAGE}
    assert await filled.actions() == ["quota.set", "quota.over", "quota.enforced", "quota.under", "quota.lifted"]
    enforced = next(one for one in await bench.audit.entries(alice, limit=50) if one.action == "quota.enforced")
    told = msgspec.json.decode(enforced.detail)
    assert told["sets"] == 2
    assert "ms" in told


async def test_a_key_that_is_asked_for_meanwhile_says_what_it_is_worth(bench: Any, filled: Filled) -> None:
    alice, bob, lab3, root, scans = filled.alice, filled.bob, filled.lab3, filled.root, filled.scans
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.WRITE))
    await filled.put(lab3, root, "alice/scans/a", MIB)
    await filled.set(alice, QuotaKind.WORKSPACE, "alice/scans", hard=MIB // 2)
    await filled.step.step()
    issued = await bench.issuing.issue(bob, _asking(bench, "alice/scans"))
    assert issued.keys[0].opens[0].permission is Permission.TIDY
    assert issued.warnings == ("alice/scans is over its quota: nothing can be added to it; reading and deleting go on.",)
    assert lab3.grants(bob.id) == {scans.id: Permission.TIDY}
    shown = await bench.workspaces.show(bob, "alice", "scans")
    assert shown.warnings == issued.warnings
    change = await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.READ))
    assert change.after is Permission.READ, "sharing goes on"


def _asking(bench: Any, path: str) -> NewCredentials:
    return NewCredentials(bench.client_text, (path,))


async def test_who_may_only_drop_gets_nothing_while_it_is_full_and_hears_why(bench: Any, filled: Filled) -> None:
    alice, bob, lab3, root, scans = filled.alice, filled.bob, filled.lab3, filled.root, filled.scans
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.DROP))
    await bench.key(bob, "alice/scans")
    await filled.put(lab3, root, "alice/scans/bob/a", MIB)
    await filled.set(alice, QuotaKind.WORKSPACE, "alice/scans", hard=MIB)
    await filled.step.step()
    assert lab3.grants(bob.id) == {}
    with pytest.raises(OverQuota, match="alice/scans is over its quota"):
        await bench.key(bob, "alice/scans")
    await filled.put(lab3, root, "alice/scans/bob/a", None)
    await filled.step.step()
    assert lab3.grants(bob.id) == {scans.id: Permission.DROP}


async def test_who_has_no_key_costs_nothing_and_gets_the_right_one_later(bench: Any, filled: Filled) -> None:
    alice, bob, lab3, root, scans = filled.alice, filled.bob, filled.lab3, filled.root, filled.scans
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.WRITE))
    await bench.key(bob, "alice/scans")
    bench.clock.pass_s(2 * 3600)
    await filled.put(lab3, root, "alice/scans/a", MIB)
    await filled.set(alice, QuotaKind.WORKSPACE, "alice/scans", hard=MIB)
    before = len(lab3.asked_for(SetGrants))
    assert await filled.step.step() == 1
    assert len(lab3.asked_for(SetGrants)) == before
    await bench.key(bob, "alice/scans")
    assert lab3.grants(bob.id) == {scans.id: Permission.TIDY}


async def test_a_key_that_is_minted_while_the_quota_turns_never_keeps_writing(bench: Any, filled: Filled) -> None:
    alice, bob, lab3, root, scans = filled.alice, filled.bob, filled.lab3, filled.root, filled.scans
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.WRITE))
    await bench.key(bob, "alice/scans")
    bench.clock.pass_s(2 * 3600)
    await bench.key(alice, "scans")
    await filled.put(lab3, root, "alice/scans/a", MIB)
    await filled.set(alice, QuotaKind.WORKSPACE, "alice/scans", hard=2 * MIB)
    turned = False

    async def turn() -> None:
        await filled.put(lab3, root, "alice/scans/b", MIB)
        await filled.step.step()

    def before(asked: Any) -> Any:
        nonlocal turned
        if isinstance(asked, Mint) and asked.subject.id == bob.id and not turned:
            turned = True
            return turn()
        return None

    lab3.before = before
    await bench.key(bob, "alice/scans")
    assert turned
    assert lab3.grants(bob.id) == {scans.id: Permission.TIDY}


async def test_groups_members_and_everyone_lose_writing_too(bench: Any, filled: Filled) -> None:
    alice, bob, lab3, root, scans = filled.alice, filled.bob, filled.lab3, filled.root, filled.scans
    await _make_group(bench, alice, bob)
    await bench.sharing.share(alice, "alice", "scans", "public", NewShare(Permission.WRITE))
    await bench.sharing.share(alice, "alice", "scans", "@mri", NewShare(Permission.MANAGE))
    await bench.key(bob, "alice/scans")
    assert lab3.grants() == {scans.id: Permission.WRITE}
    assert lab3.grants(bob.id) == {scans.id: Permission.MANAGE}
    await filled.put(lab3, root, "alice/scans/a", MIB)
    await filled.set(alice, QuotaKind.WORKSPACE, "alice/scans", hard=MIB)
    await filled.step.step()
    assert lab3.grants() == {scans.id: Permission.TIDY}
    assert lab3.grants(bob.id) == {scans.id: Permission.TIDY}


async def _make_group(bench: Any, owner: Actor, *others: Actor) -> None:
    """Make group 5, @mri."""
    async with bench.database.write() as connection:
        group = {"id": 5, "name": "mri", "owner_id": owner.id, "created_at": 1}
        await connection.execute(groups.insert().values(group))
        for one in (owner, *others):
            await connection.execute(group_members.insert().values(group_id=5, user_id=one.id, since=1))


async def test_a_node_that_is_away_gets_it_when_it_is_back(bench: Any, filled: Filled) -> None:
    alice, bob, lab3, root, scans = filled.alice, filled.bob, filled.lab3, filled.root, filled.scans
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.WRITE))
    await bench.key(bob, "alice/scans")
    await filled.put(lab3, root, "alice/scans/a", MIB)
    agent = bench.agents.nodes.pop(lab3.id)
    await filled.set(alice, QuotaKind.WORKSPACE, "alice/scans", hard=MIB)
    await filled.step.step()
    assert agent.grants(bob.id) == {scans.id: Permission.WRITE}
    enforced = next(one for one in await bench.audit.entries(alice, limit=50) if one.action == "quota.enforced")
    assert msgspec.json.decode(enforced.detail)["waiting"] >= 1
    bench.agents.nodes[lab3.id] = agent
    await bench.settling.settle(lab3.id, agent.epochs())
    assert agent.grants(bob.id) == {scans.id: Permission.TIDY}


async def test_every_kind_counts_what_it_says(bench: Any, filled: Filled) -> None:
    alice, bob, lab3, root = filled.alice, filled.bob, filled.lab3, filled.root
    admin = await bench.person("carol", admin=True)
    other = await bench.root(alice, RootKind.PUBLIC, name="second", bucket="second")
    await bench.workspace(alice, "open", root="lab3/second")
    await bench.workspace(bob, "bobs", root="lab3/second")
    await filled.put(lab3, root, "alice/scans/a", 1)
    await filled.put(lab3, root, "stray", 10)
    await filled.put(lab3, other, "alice/open/a", 100)
    await filled.put(lab3, other, "bob/bobs/a", 1000)
    used = {
        (QuotaKind.USER, "alice"): 101,
        (QuotaKind.USER_ROOT, "alice@lab3/second"): 100,
        (QuotaKind.ROOT, "lab3/main"): 11,
        (QuotaKind.ROOT, "lab3/second"): 1100,
        (QuotaKind.WORKSPACE, "alice/scans"): 1,
        (QuotaKind.USER, "bob"): 1000,
    }
    for kind, of in used:
        await filled.set(admin, kind, of, hard=1 << 40)
    assert {(one.kind, one.of): one.used for one in await filled.quotas.list(admin)} == used
    assert {one.of for one in await filled.quotas.list(bob)} == {"bob", "lab3/second"}


async def test_a_persons_quota_counts_what_they_own_whoever_writes_it(bench: Any, filled: Filled) -> None:
    alice, bob, lab3, root, scans = filled.alice, filled.bob, filled.lab3, filled.root, filled.scans
    admin = await bench.person("carol", admin=True)
    others = await bench.workspace(bob, "bobs", root="lab3/main")
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.WRITE))
    await bench.key(bob, "alice/scans")
    await filled.set(admin, QuotaKind.USER, "alice", hard=MIB)
    await filled.put(lab3, root, "alice/scans/by-bob", MIB)
    await filled.step.step()
    assert lab3.grants(bob.id) == {scans.id: Permission.TIDY, others.id: Permission.MANAGE}
    again = await bench.workspace(alice, "more", root="lab3/main")
    await bench.key(alice, "more")
    assert lab3.grants(alice.id)[again.id] is Permission.TIDY, "a new workspace is counted from its first moment"


async def test_whoever_may_write_loses_or_gains_that_with_a_hand_over_at_once(bench: Any, filled: Filled) -> None:
    alice, bob, lab3, root, scans = filled.alice, filled.bob, filled.lab3, filled.root, filled.scans
    admin, dave = await bench.person("carol", admin=True), await bench.person("dave")
    own = await bench.workspace(alice, "own")
    for name, who in (("scans", dave), ("own", bob)):
        await bench.sharing.share(alice, "alice", name, who.username, NewShare(Permission.WRITE))
        await bench.key(who, f"alice/{name}")
    await filled.set(admin, QuotaKind.USER, "alice", hard=MIB)
    await filled.put(lab3, root, "alice/own/a", MIB)
    await filled.step.step()
    assert lab3.grants(dave.id) == {scans.id: Permission.TIDY}
    await bench.workspace_changes.hand_over(alice, "alice", "scans", Handover("bob"))
    assert lab3.grants(dave.id) == {scans.id: Permission.WRITE}, "bob has no quota"
    assert lab3.grants(bob.id) == {scans.id: Permission.MANAGE, own.id: Permission.TIDY}
    await bench.workspace_changes.hand_over(bob, "bob", "scans", Handover("alice"))
    assert lab3.grants(dave.id) == {scans.id: Permission.TIDY}, "alice is over hers, which counts it again"


async def test_a_hand_over_is_charged_at_once_and_not_with_the_next_sweep(bench: Any, filled: Filled) -> None:
    alice, bob, lab3, root, scans = filled.alice, filled.bob, filled.lab3, filled.root, filled.scans
    admin = await bench.person("carol", admin=True)
    made = {"database": bench.database, "clock": bench.clock, "audit": bench.audit, "sets": bench.sets}
    changes = WorkspaceChanges(**made, chance=bench.chance, charged=filled.step.charged)
    await bench.workspace(alice, "own")
    await bench.workspace(bob, "bobs", root="lab3/main")
    for who, path in ((alice, "own"), (bob, "bobs")):
        await bench.key(who, path)
    await filled.set(admin, QuotaKind.USER, "bob", hard=MIB)
    await filled.put(lab3, root, "alice/scans/a", MIB)
    assert await filled.step.step() == 0
    await changes.hand_over(alice, "alice", "scans", Handover("bob"))
    assert await filled.step.step() == 1
    assert lab3.grants(bob.id)[scans.id] is Permission.TIDY
    await changes.delete(bob, "bob", "scans")
    assert await filled.step.step() == 1
    assert set(lab3.grants(bob.id).values()) == {Permission.MANAGE}


async def test_a_limit_that_is_raised_lowered_or_removed_counts_at_once(bench: Any, filled: Filled) -> None:
    alice, lab3, root, scans = filled.alice, filled.lab3, filled.root, filled.scans
    await bench.key(alice, "scans")
    await filled.put(lab3, root, "alice/scans/a", 4 * MIB)
    lowered = await filled.set(alice, QuotaKind.WORKSPACE, "alice/scans", hard=MIB)
    assert lowered.over_since is not None, "it is decided with the change itself"
    await filled.step.step()
    assert lab3.grants(alice.id) == {scans.id: Permission.TIDY}
    raised = await filled.set(alice, QuotaKind.WORKSPACE, "alice/scans", hard=100 * MIB)
    assert (raised.id, raised.over_since) == (lowered.id, None)
    await filled.step.step()
    assert lab3.grants(alice.id) == {scans.id: Permission.MANAGE}
    await filled.set(alice, QuotaKind.WORKSPACE, "alice/scans", hard=MIB)
    await filled.step.step()
    await filled.quotas.remove(alice, lowered.id)
    await filled.step.step()
    assert lab3.grants(alice.id) == {scans.id: Permission.MANAGE}
    assert await filled.quotas.list(alice) == []


async def test_a_soft_limit_warns_and_takes_nothing(bench: Any, filled: Filled) -> None:
    alice, lab3, root, scans = filled.alice, filled.lab3, filled.root, filled.scans
    await bench.key(alice, "scans")
    await filled.set(alice, QuotaKind.WORKSPACE, "alice/scans", soft=MIB, hard=100 * MIB)
    await filled.put(lab3, root, "alice/scans/a", 2 * MIB)
    assert await filled.step.step() == 0
    assert lab3.grants(alice.id) == {scans.id: Permission.MANAGE}
    [quota] = await filled.quotas.list(alice)
    assert quota.warnings == ("alice/scans holds 2.0 MiB, more than 1.0 MiB.",)
    shown = await bench.workspaces.show(alice, "alice", "scans")
    assert shown.warnings == ("alice/scans is near its quota.",)
    await filled.put(lab3, root, "alice/scans/a", None)
    await filled.step.step()
    assert await filled.actions() == ["quota.set", "quota.warn", "quota.calm"]


async def test_the_loop_notices_what_comes_in_and_what_moves_without_it(bench: Any, filled: Filled) -> None:
    alice, lab3, scans = filled.alice, filled.lab3, filled.scans
    step = QuotaStep(database=bench.database, clock=bench.clock, audit=bench.audit, sets=bench.sets, sweep_s=0.05)
    await bench.key(alice, "scans")
    await filled.set(alice, QuotaKind.WORKSPACE, "alice/scans", hard=MIB)
    running = asyncio.create_task(step.run())
    try:
        async with bench.database.write() as connection:  # as a hand-over or an import moves totals
            await connection.execute(update(workspaces).values(bytes=2 * MIB))
        async with asyncio.timeout(10):
            while lab3.grants(alice.id) != {scans.id: Permission.TIDY}:  # noqa: ASYNC110 - the agent has no event for it
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


# ------------------------------------------------------------------------------------------------------ who may


async def _make_manager(bench: Any, root: Any, *, person: Actor | None = None, group: int | None = None) -> None:
    kind, subject = ("person", person.id) if person is not None else ("group", group)
    async with bench.database.write() as connection:
        row = {"root_id": root.id, "role": "manage", "subject_kind": kind, "subject_id": subject}
        await connection.execute(root_roles.insert().values(row))


async def test_who_may_set_which_quota(bench: Any, filled: Filled) -> None:
    alice, bob, root = filled.alice, filled.bob, filled.root
    admin = await bench.person("carol", admin=True)
    dave = await bench.person("dave")
    emil = await bench.person("emil")
    await bench.workspace(bob, "bobs", root="lab3/main")
    await _make_manager(bench, root, person=dave)
    await _make_group(bench, emil)
    await _make_manager(bench, root, group=5)
    targets = {
        (QuotaKind.USER, "bob"): {admin},
        (QuotaKind.USER_ROOT, "bob@lab3/main"): {admin, alice, dave, emil},
        (QuotaKind.ROOT, "lab3/main"): {admin, alice, dave, emil},
        (QuotaKind.WORKSPACE, "bob/bobs"): {admin, alice, dave, emil, bob},
    }
    for (kind, of), allowed in targets.items():
        for actor in (bob, dave, emil, alice, admin):
            with contextlib.ExitStack() as stack:
                knows = actor in allowed
                if not knows:
                    stack.enter_context(pytest.raises((NotAllowed, UnknownWorkspace)))
                await filled.set(actor, kind, of, hard=1 << 30)


async def test_what_a_manager_has_set_on_a_workspace_its_owner_cannot_lift(bench: Any, filled: Filled) -> None:
    alice, bob = filled.alice, filled.bob
    await bench.workspace(bob, "bobs", root="lab3/main")
    quota = await filled.set(alice, QuotaKind.WORKSPACE, "bob/bobs", hard=MIB)
    with pytest.raises(NotAllowed, match="set by somebody who manages the root"):
        await filled.set(bob, QuotaKind.WORKSPACE, "bob/bobs", hard=1 << 40)
    with pytest.raises(NotAllowed, match="set by somebody who manages the root"):
        await filled.quotas.remove(bob, quota.id)


@pytest.mark.parametrize(
    ("new", "error"),
    [
        (NewQuota(QuotaKind.WORKSPACE, "alice/scans"), BadInput),
        (NewQuota(QuotaKind.WORKSPACE, "alice/scans", hard=-1), BadInput),
        (NewQuota(QuotaKind.WORKSPACE, "alice/scans", hard=1 << 63), BadInput),
        (NewQuota(QuotaKind.WORKSPACE, "alice/scans", soft=2, hard=1), BadInput),
        (NewQuota(QuotaKind.WORKSPACE, "alice/nothing", hard=1), UnknownWorkspace),
        (NewQuota(QuotaKind.WORKSPACE, "scans", hard=1), BadInput),
        (NewQuota(QuotaKind.WORKSPACE, "a/b/c", hard=1), BadInput),
        (NewQuota(QuotaKind.WORKSPACE, "\0/\ud800", hard=1), UnknownWorkspace),
        (NewQuota(QuotaKind.ROOT, "lab3/nothing", hard=1), UnknownRoot),
        (NewQuota(QuotaKind.ROOT, "alice@lab3/main", hard=1), BadInput),
        (NewQuota(QuotaKind.ROOT, "", hard=1), UnknownRoot),
        (NewQuota(QuotaKind.USER_ROOT, "lab3/main", hard=1), BadInput),
        (NewQuota(QuotaKind.USER_ROOT, "nobody@lab3/main", hard=1), UnknownUser),
        (NewQuota(QuotaKind.USER_ROOT, "a\0@lab3/\0", hard=1), UnknownRoot),
        (NewQuota(QuotaKind.USER, "nobody", hard=1), UnknownUser),
    ],
)
async def test_a_quota_that_cannot_be_is_refused_with_the_reason(
    bench: Any, filled: Filled, new: NewQuota, error: type[WioError]
) -> None:
    admin = await bench.person("carol", admin=True)
    with pytest.raises(error):
        await filled.quotas.put(admin, new)


async def test_nobody_learns_of_a_quota_that_does_not_concern_them(bench: Any, filled: Filled) -> None:
    alice, bob = filled.alice, filled.bob
    quota = await filled.set(alice, QuotaKind.WORKSPACE, "alice/scans", hard=MIB)
    for number in (quota.id, 12345):
        with pytest.raises(NotFound, match="There is no such quota"):
            await filled.quotas.remove(bob, number)
    with pytest.raises(UnknownWorkspace):
        await filled.set(bob, QuotaKind.WORKSPACE, "alice/scans", hard=MIB)
    assert await filled.quotas.list(bob) == []
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.WRITE))
    assert [one.id for one in await filled.quotas.list(bob)] == [quota.id]


async def test_what_the_count_does_not_see_is_said_where_it_is_set(bench: Any, filled: Filled) -> None:
    alice, lab3, root = filled.alice, filled.lab3, filled.root
    probes = (ProbeLine("versioned-buckets", Finding.YES, "some"),)
    where = ("http://127.0.0.1:9000",)
    await bench.enrolment.report(lab3.id, Report("1", "directory", "gateway", where, "us-east-1", Finding.YES, probes))
    async with bench.database.write() as connection:
        await connection.execute(update(roots).where(roots.c.id == root.id).values(level=str(IndexLevel.NONE)))
    quota = await filled.set(alice, QuotaKind.ROOT, "lab3/main", hard=MIB)
    assert [text.split(":")[0] for text in quota.caveats][1:] == ["lab3/main", "lab3/main"]
    assert "is not counted" in quota.caveats[0]
    assert "newest version" in quota.caveats[1]
    assert "cannot be held up" in quota.caveats[2]
