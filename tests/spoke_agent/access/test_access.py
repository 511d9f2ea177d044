"""What the hub's word does on a server: sets, receipts, keys, expiry, pause, eviction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from protocol.errors import (
    BadLifetime,
    BadName,
    BadSignature,
    NoGrant,
    NotAllowed,
    OverCeiling,
    Pending,
    RootMissing,
    StorageUnreachable,
    UnknownRoot,
)
from protocol.grants import Grant, Narrowing, Permission, SignedGrantSet
from protocol.identity import new_key, sign_eviction
from protocol.messages import (
    CheckRoot,
    Explain,
    GrantsApplied,
    GrantsRefused,
    IndexLevel,
    PlaceWorkspace,
    RootConfig,
    SetGrants,
)
from protocol.names import Layout
from spoke_agent.access.principals import Principal
from spoke_agent.storage.node import Holder, HolderKind
from tests.spoke_agent.access.bench import ALICE, BOB, DAY, EVERYONE, HUB, NODE, START, Bench, grant


async def test_a_first_key_opens_what_was_granted_and_nothing_else(bench: Bench) -> None:
    applied = await bench.set(BOB, 1, grant("scans/"))
    assert isinstance(applied, GrantsApplied)
    assert (applied.keys_out, applied.proofs) == (0, ())
    assert bench.storage.access == {}, "nobody who never had a key costs anything on the server"
    key = await bench.key(BOB, 1)
    assert bench.opens(key, "lab/scans/a")
    assert not bench.opens(key, "lab/other/a")
    assert not bench.opens(key, "lab/scans/a", Permission.WRITE)
    assert (key.endpoint, key.expires) == ("http://127.0.0.1:9000", START + 3600)


async def test_a_revoke_is_proven_by_a_key_that_was_out(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/"), grant("plans/"))
    key = await bench.key(BOB, 1)
    applied = await bench.set(BOB, 2, grant("plans/"))
    assert isinstance(applied, GrantsApplied)
    assert not bench.opens(key, "lab/scans/a")
    assert bench.opens(key, "lab/plans/a")
    assert applied.keys_out == 1
    assert [(proof.status, proof.expected) for proof in applied.proofs] == [(403, True)]
    assert "lab/scans/" in applied.proofs[0].what
    order = [call for call in bench.storage.calls if call in {"mint", "set_access", "attempt"}][-3:]
    assert order == ["mint", "set_access", "attempt"], "the probe key was out before the change"


async def test_a_share_with_somebody_who_has_keys_is_proven_open(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/"))
    key = await bench.key(BOB, 1)
    applied = await bench.set(BOB, 2, grant("scans/", Permission.WRITE), grant("plans/"))
    assert isinstance(applied, GrantsApplied)
    assert bench.opens(key, "lab/scans/a", Permission.WRITE)
    assert [(proof.status, proof.expected) for proof in applied.proofs] == [(200, True), (200, True)]


async def test_at_most_four_places_are_tried(bench: Bench) -> None:
    await bench.set(BOB, 1, *(grant(f"w{number}/") for number in range(9)))
    await bench.key(BOB, 1)
    applied = await bench.set(BOB, 2)
    assert isinstance(applied, GrantsApplied)
    assert len(applied.proofs) == 4


async def test_a_server_that_does_not_take_a_place_away_is_told_on(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/"))
    await bench.key(BOB, 1)
    bench.storage.after = lambda what: (
        bench.storage.access.update({name: (grant("scans/"),) for name in bench.storage.access})
        if what == "set_access"
        else None
    )
    applied = await bench.set(BOB, 2)
    assert isinstance(applied, GrantsApplied)
    assert [(proof.status, proof.expected) for proof in applied.proofs] == [(200, False)]


async def test_a_place_that_everyone_may_still_read_is_no_proof_against_the_revoke(bench: Bench) -> None:
    await bench.set(EVERYONE, 1, grant("scans/"))
    await bench.set(BOB, 1, grant("scans/", Permission.WRITE))
    key = await bench.key(BOB, 1)
    applied = await bench.set(BOB, 2)
    assert isinstance(applied, GrantsApplied)
    assert [(proof.what.split()[0], proof.status) for proof in applied.proofs] == [("drop", 403)]
    assert bench.opens(key, "lab/scans/a")


class Slow:
    """Holds up the disk after bob's set was carried out, and the server while it takes a shared set."""

    def __init__(self, bench: Bench) -> None:
        self.noting, self.noted, self.writing, self.written = (asyncio.Event() for _ in range(4))
        principals = bench.access._principals
        self._note, self._write = principals.note_applied, bench.storage.set_access
        principals.note_applied = self.note_applied  # type: ignore[method-assign]  # a disk that takes its time
        bench.storage.set_access = self.set_access  # type: ignore[method-assign]  # a server that takes its time

    async def note_applied(self, principal: Principal) -> None:
        if principal.subject == BOB:
            self.noting.set()
            await self.noted.wait()
        await self._note(principal)

    async def set_access(self, holder: Holder, grants: Sequence[Grant]) -> None:
        if holder.kind is HolderKind.SHARED:
            self.writing.set()
            await self.written.wait()
        await self._write(holder, grants)


async def test_a_shared_set_on_its_way_to_the_server_proves_nothing_about_a_persons(bench: Bench) -> None:
    await bench.set(EVERYONE, 1, grant("", bucket="open"))
    await bench.set(BOB, 1, grant("scans/"))
    await bench.key(BOB, 1)
    slow = Slow(bench)
    bobs = asyncio.create_task(bench.set(BOB, 2, grant("scans/", Permission.WRITE)))
    await slow.noting.wait()
    everyones = asyncio.create_task(bench.set(EVERYONE, 2, grant("", bucket="open"), grant("", bucket="more")))
    await slow.writing.wait()
    slow.noted.set()
    applied = await bobs
    slow.written.set()
    await everyones
    assert isinstance(applied, GrantsApplied)
    assert [(proof.what, proof.expected) for proof in applied.proofs] == [("drop lab/scans/", True)]


async def test_a_shared_holder_that_is_not_attached_yet_is_no_proof_that_its_places_are_open(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/"))
    await bench.key(BOB, 1)
    slow = Slow(bench)
    bobs = asyncio.create_task(bench.set(BOB, 2, grant("scans/", Permission.WRITE)))
    await slow.noting.wait()
    everyones = asyncio.create_task(bench.set(EVERYONE, 1, grant("", bucket="open")))
    async with asyncio.timeout(10):
        while not any(one.subject == EVERYONE and one.made for one in bench.access._principals):  # noqa: ASYNC110 - none is set
            await asyncio.sleep(0)
    slow.noted.set()
    applied = await bobs
    await everyones
    assert isinstance(applied, GrantsApplied)
    assert [(proof.what, proof.expected) for proof in applied.proofs] == [("drop lab/scans/", True)]


async def test_everyone_is_one_write_that_counts_for_all_keys_that_are_out(bench: Bench) -> None:
    for subject in (ALICE, BOB):
        await bench.set(subject, 1, grant(f"{subject.name}/"))
    keys = [await bench.key(ALICE, 1), await bench.key(BOB, 1)]
    applied = await bench.set(EVERYONE, 1, grant("", bucket="open"))
    assert isinstance(applied, GrantsApplied)
    assert [bench.opens(key, "open/a/b") for key in keys] == [True, True]
    assert [proof.expected for proof in applied.proofs] == [True]
    writes = bench.storage.calls.count("set_access")
    closed = await bench.set(EVERYONE, 2)
    assert isinstance(closed, GrantsApplied)
    assert bench.storage.calls.count("set_access") == writes + 1
    assert [bench.opens(key, "open/a/b") for key in keys] == [False, False]
    assert (closed.keys_out, [proof.status for proof in closed.proofs]) == (2, [403])


async def test_a_newcomer_has_what_everyone_has(bench: Bench) -> None:
    await bench.set(EVERYONE, 1, grant("", bucket="open"))
    await bench.set(BOB, 1)
    assert bench.opens(await bench.key(BOB, 1), "open/a")


# ------------------------------------------------------------------------------------------------ what is refused


async def test_a_lower_epoch_is_refused_and_changes_nothing(bench: Bench) -> None:
    await bench.set(BOB, 5, grant("plans/"))
    key = await bench.key(BOB, 5)
    refused = await bench.set(BOB, 4, grant("scans/"))
    assert isinstance(refused, GrantsRefused)
    assert refused.problem.code == "conflict"
    assert not bench.opens(key, "lab/scans/a")
    assert bench.opens(key, "lab/plans/a")


async def test_a_repeated_set_is_answered_without_a_write(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("plans/"))
    await bench.key(BOB, 1)
    before = len(bench.storage.calls)
    assert isinstance(await bench.set(BOB, 1, grant("plans/")), GrantsApplied)
    assert bench.storage.calls[before:] == []


async def test_two_sets_of_one_epoch_open_only_what_both_open_until_a_higher_one_comes(bench: Bench) -> None:
    await bench.set(BOB, 3, grant("plans/"), grant("scans/", Permission.WRITE))
    key = await bench.key(BOB, 3)
    refused = await bench.set(BOB, 3, grant("scans/"), grant("secret/"))
    assert isinstance(refused, GrantsRefused)
    assert bench.opens(key, "lab/scans/a")
    for closed in ("lab/plans/a", "lab/secret/a"):
        assert not bench.opens(key, closed)
    assert not bench.opens(key, "lab/scans/a", Permission.WRITE)
    await bench.restart()
    assert not bench.opens(key, "lab/plans/a"), "also after a restart"
    assert isinstance(await bench.set(BOB, 4, grant("plans/")), GrantsApplied)
    assert bench.opens(key, "lab/plans/a")


async def test_a_set_nobody_signed_or_of_another_node_is_refused(bench: Bench) -> None:
    signed = bench.signed(BOB, 1, grant("scans/"))
    forged = SignedGrantSet(signed.body, new_key(bytes(32)).sign(signed.body))
    with pytest.raises(BadSignature):
        await bench.access.set_grants(SetGrants(1, 5000, forged))
    with pytest.raises(NotAllowed, match="another node"):
        await bench.set(BOB, 1, grant("scans/"), node=NODE + 1)
    with pytest.raises(BadName):
        await bench.set(BOB, 1, grant("*/"))
    with pytest.raises(Pending):
        await bench.key(BOB, 1)


async def test_a_grant_above_the_ceiling_is_named_and_a_revoke_in_the_same_set_counts(bench: Bench) -> None:
    (bench.state.path / "ceiling.toml").write_text('highest_permission = "read"\nplaces = ["lab"]\n')
    await bench.restart()
    await bench.set(BOB, 1, grant("scans/"))
    key = await bench.key(BOB, 1)
    above, outside = grant("plans/", Permission.WRITE), grant("", bucket="vault")
    refused = await bench.set(BOB, 2, above, outside)
    assert isinstance(refused, GrantsRefused)
    assert refused.problem.code == "over-ceiling"
    assert {refusal.workspace for refusal in refused.refusals} == {above.workspace, outside.workspace}
    assert not bench.opens(key, "lab/scans/a"), "taken away"
    assert not bench.opens(key, "vault/a")
    assert not bench.opens(key, "lab/plans/a", Permission.WRITE)
    assert bench.opens(key, "lab/plans/a"), "narrowed to what the owner allows"
    assert bench.access.warnings


async def test_an_edited_ceiling_narrows_keys_that_are_out_and_half_an_edit_opens_nothing(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/", Permission.WRITE))
    key = await bench.key(BOB, 1)
    bench.state.write("ceiling.toml", b"read_only = true\n")
    await bench.access.expire_once()
    assert not bench.opens(key, "lab/scans/a", Permission.WRITE)
    bench.state.write("ceiling.toml", b"read_only = fal")
    await bench.access.expire_once()
    assert not bench.opens(key, "lab/scans/a", Permission.WRITE)
    assert any("ceiling file" in warning for warning in bench.access.warnings)
    bench.state.write("ceiling.toml", b"read_only = false\n")
    await bench.access.expire_once()
    assert bench.opens(key, "lab/scans/a", Permission.WRITE)


# ------------------------------------------------------------------------------------------------ keys


async def test_a_key_is_not_minted_on_an_older_epoch_than_the_hub_knows(bench: Bench) -> None:
    with pytest.raises(Pending, match="has not arrived"):
        await bench.key(BOB, 1)
    await bench.set(BOB, 1, grant("scans/"))
    with pytest.raises(Pending, match="epoch 1, and the hub has 2"):
        await bench.key(BOB, 2)
    assert await bench.key(BOB, 1)


async def test_the_life_of_a_key_is_bounded_by_server_owner_and_lease(bench: Bench) -> None:
    bench.state.write("ceiling.toml", b"longest_key_s = 7200\n")
    await bench.restart()
    await bench.set(BOB, 1, grant("scans/"), lease=START + 5000)
    with pytest.raises(BadLifetime, match="under 900 s"):
        await bench.key(BOB, 1, life_s=899)
    assert (await bench.key(BOB, 1, life_s=86_400)).expires == START + 5000
    bench.time = START + 4500
    with pytest.raises(BadLifetime, match="lease of bob"):
        await bench.key(BOB, 1)
    await bench.set(BOB, 2, grant("scans/"))
    assert (await bench.key(BOB, 2, life_s=86_400)).expires == bench.time + 7200


async def test_a_key_can_be_narrowed_but_not_to_where_there_is_no_grant(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/", Permission.WRITE), grant("plans/"))
    key = await bench.key(BOB, 1, narrowing=Narrowing((("lab", "scans/sub/"),), read_only=True))
    assert bench.opens(key, "lab/scans/sub/a")
    assert not bench.opens(key, "lab/scans/a")
    assert not bench.opens(key, "lab/scans/sub/a", Permission.WRITE)
    with pytest.raises(NoGrant):
        await bench.key(BOB, 1, narrowing=Narrowing((("lab", "other/"),)))


async def test_who_has_nothing_gets_no_key_and_no_holder(bench: Bench) -> None:
    await bench.set(BOB, 1)
    with pytest.raises(NoGrant):
        await bench.key(BOB, 1)
    assert bench.storage.access == {}


async def test_keys_are_for_persons(bench: Bench) -> None:
    await bench.set(EVERYONE, 1, grant("scans/"))
    with pytest.raises(NotAllowed, match="for persons"):
        await bench.key(EVERYONE, 1)


async def test_ten_first_keys_at_once_make_one_holder(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/"))
    keys = await asyncio.gather(*(bench.key(BOB, 1) for _ in range(10)))
    assert all(bench.opens(key, "lab/scans/a") for key in keys)
    assert bench.storage.calls.count("create") == 1
    assert len(await bench.access.keys()) == 10
    await bench.restart()
    assert len(await bench.access.keys()) == 10
    assert bench.access.who(next(iter(bench.storage.access))) == BOB.id


async def test_a_holder_that_could_not_be_made_is_never_tried_again_under_its_name(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/"))

    def cut(what: str) -> None:
        if what == "create":
            raise StorageUnreachable("The answer is lost.")

    bench.storage.after = cut
    with pytest.raises(StorageUnreachable):
        await bench.key(BOB, 1)
    bench.storage.after = lambda _: None
    assert bench.opens(await bench.key(BOB, 1), "lab/scans/a")
    assert len(bench.storage.access) == 1


async def test_no_secret_is_written_down(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/"))
    key = await bench.key(BOB, 1)
    await bench.stop()
    on_disk = b"".join(file.read_bytes() for file in bench.state.path.iterdir() if file.is_file())
    assert key.access_key.encode() in on_disk
    assert key.secret_key.encode() not in on_disk
    await bench.start()


# ------------------------------------------------------------------------------------------------ time


async def test_a_grant_ends_at_its_second_and_the_next_one_is_foreseen(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/", expires=START + 4), grant("plans/", expires=START + 7))
    key = await bench.key(BOB, 1)
    assert await bench.access.expire_once() == 4
    bench.time = START + 3
    assert await bench.access.expire_once() == 1
    assert bench.opens(key, "lab/scans/a")
    bench.time = START + 4
    assert await bench.access.expire_once() == 3
    assert not bench.opens(key, "lab/scans/a")
    assert bench.opens(key, "lab/plans/a")


async def test_nothing_to_do_asks_for_no_other_look_and_a_first_key_asks_for_one(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/", expires=START + 4))
    await bench.access.expire_once()
    assert not bench.access.changed.is_set()
    await bench.key(BOB, 1)
    assert bench.access.changed.is_set(), "what the key opens ends sooner than anything before"
    assert await bench.access.expire_once() == 4
    assert not bench.access.changed.is_set()
    bench.time += 4
    await bench.access.expire_once()
    await bench.access.expire_once()
    assert not bench.access.changed.is_set()


async def test_a_grant_that_ended_while_the_agent_was_down_is_gone_before_anything_is_minted(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/", expires=START + 20), grant("plans/"))
    await bench.key(BOB, 1)
    bench.time = START + 30
    await bench.restart(verify=False)
    key = await bench.key(BOB, 1)
    assert not bench.opens(key, "lab/scans/a")
    assert bench.opens(key, "lab/plans/a")


async def test_the_end_of_the_lease_closes_everything_and_a_new_set_opens_it(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/"), lease=START + 1000)
    key = await bench.key(BOB, 1)
    bench.time = START + 999
    await bench.access.expire_once()
    assert bench.opens(key, "lab/scans/a") is (key.expires > bench.time)
    bench.time = START + 1000
    await bench.access.expire_once()
    assert next(iter(bench.storage.access.values())) == ()
    await bench.set(BOB, 2, grant("scans/"))
    assert bench.opens(await bench.key(BOB, 2), "lab/scans/a")


async def test_the_owners_lease_counts_from_the_last_word_of_the_hub(bench: Bench) -> None:
    bench.state.write("ceiling.toml", b"longest_lease_s = 3600\n")
    await bench.restart()
    await bench.set(BOB, 1, grant("scans/"))
    key = await bench.key(BOB, 1, life_s=3600)
    bench.time += 3000
    await bench.access.heard()
    bench.time += 590
    await bench.access.expire_once()
    assert bench.opens(key, "lab/scans/a")
    bench.time += 3010
    await bench.access.expire_once()
    assert next(iter(bench.storage.access.values())) == ()


# ------------------------------------------------------------------------------------------------ the owner


async def test_pause_cuts_everybody_off_through_a_restart_and_resume_brings_back_the_newest_grants(bench: Bench) -> None:
    await bench.set(EVERYONE, 1, grant("", bucket="open"))
    await bench.set(BOB, 1, grant("scans/"), grant("plans/"))
    key = await bench.key(BOB, 1)
    assert (await bench.access.pause()).problems == ()
    assert not any(bench.opens(key, where) for where in ("lab/scans/a", "lab/plans/a", "open/a"))
    await bench.restart()
    assert bench.access.paused
    with pytest.raises(OverCeiling, match="paused"):
        await bench.key(BOB, 1)
    await bench.set(BOB, 2, grant("plans/"))
    assert not bench.opens(key, "lab/plans/a")
    await bench.access.resume()
    assert [bench.opens(key, where) for where in ("lab/scans/a", "lab/plans/a", "open/a")] == [False, True, True]


async def test_what_the_owner_wrote_into_the_ceiling_during_a_pause_holds_from_its_first_moment_on(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/", Permission.WRITE))
    key = await bench.key(BOB, 1)
    await bench.access.pause()
    bench.state.write("ceiling.toml", b"read_only = true\n")
    await bench.access.resume()
    assert [bench.opens(key, "lab/scans/a", one) for one in (Permission.READ, Permission.WRITE)] == [True, False]


async def test_an_eviction_closes_everything_for_good(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/"))
    key = await bench.key(BOB, 1)
    with pytest.raises(BadSignature):
        await bench.access.evict(sign_eviction(new_key(bytes(32)), NODE, START))
    assert bench.opens(key, "lab/scans/a")
    await bench.access.evict(sign_eviction(HUB, NODE, START))
    await bench.access.evict(sign_eviction(HUB, NODE, START))
    assert not bench.opens(key, "lab/scans/a")
    await bench.restart()
    with pytest.raises(NotAllowed, match="removed from its hub"):
        await bench.key(BOB, 1)
    assert not bench.opens(key, "lab/scans/a")


async def test_roots_and_workspaces_stay_under_the_ceiling(bench: Bench) -> None:
    bench.state.write("ceiling.toml", b'places = ["lab", "archive/released/"]\nhighest_index_level = "names"\n')
    await bench.restart()
    inside = RootConfig(1, "r", "lab", "x/", Layout.PREFIX, IndexLevel.NAMES)
    await bench.access.check_root(CheckRoot(1, 1000, inside))
    released = RootConfig(1, "r", "archive", "released/", Layout.PREFIX, IndexLevel.NONE)
    with pytest.raises(RootMissing):
        await bench.access.check_root(CheckRoot(1, 1000, released))
    for outside in (
        RootConfig(1, "r", "archive", "", Layout.PREFIX, IndexLevel.NAMES),
        RootConfig(1, "r", "vault", "", Layout.PREFIX, IndexLevel.NAMES),
        RootConfig(1, "r", "lab", "", Layout.PREFIX, IndexLevel.CONTENT),
    ):
        with pytest.raises(OverCeiling):
            await bench.access.check_root(CheckRoot(1, 1000, outside))
    assert bench.access.admit(inside) == inside
    told = RootConfig(1, "r", "lab", "", Layout.PREFIX, IndexLevel.CONTENT)
    lowered = bench.access.admit(told)
    assert lowered is not None
    assert lowered.level is IndexLevel.NAMES
    assert bench.access.admit(RootConfig(1, "r", "vault", "", Layout.PREFIX, IndexLevel.NAMES)) is None


async def test_a_workspace_of_the_bucket_layout_gets_its_bucket(bench: Bench) -> None:
    bench.roots[6] = RootConfig(6, "own", "lab", "", Layout.BUCKET, IndexLevel.NAMES)
    await bench.access.place_workspace(PlaceWorkspace(1, 1000, 6, "alice--scans/"))
    assert "lab--alice--scans" in bench.storage.buckets
    await bench.access.place_workspace(PlaceWorkspace(1, 1000, 5, "alice/scans/"))
    with pytest.raises(BadName):
        await bench.access.place_workspace(PlaceWorkspace(1, 1000, 6, "alice--scans/deeper/"))
    with pytest.raises(BadName):
        await bench.access.place_workspace(PlaceWorkspace(1, 1000, 5, ""))
    with pytest.raises(UnknownRoot):
        await bench.access.place_workspace(PlaceWorkspace(1, 1000, 99, "alice/scans/"))


async def test_explain_asks_the_server_itself(bench: Bench) -> None:
    nobody = await bench.access.explain(Explain(1, 1000, BOB, 5, "scans/a.txt"))
    assert nobody.proof is None
    await bench.set(BOB, 1, grant("scans/"))
    await bench.key(BOB, 1)
    allowed = await bench.access.explain(Explain(1, 1000, BOB, 5, "scans/a.txt"))
    refused = await bench.access.explain(Explain(2, 1000, BOB, 5, "plans/a.txt"))
    assert allowed.proof is not None
    assert refused.proof is not None
    assert (allowed.proof.status, allowed.proof.expected, allowed.keys_out) == (200, True, 1)
    assert "read on lab/scans/" in allowed.policy
    assert (refused.proof.status, refused.proof.expected) == (403, True)
    assert "no grant reaches" in refused.policy


async def test_the_owner_sees_who_reaches_what(bench: Bench) -> None:
    await bench.set(EVERYONE, 1, grant("", bucket="open"))
    await bench.set(BOB, 4, grant("scans/", Permission.WRITE, expires=START + 2 * DAY))
    await bench.key(BOB, 4)
    lines = [(line.subject, line.place, line.permission, line.expires, line.keys_out) for line in bench.access.reaches()]
    assert lines == [
        ("everyone", "open/", Permission.READ, None, 1),
        ("bob", "lab/scans/", Permission.WRITE, START + 2 * DAY, 1),
    ]
