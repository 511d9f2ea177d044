"""The owner's limits on a real MinIO: a hub that signs grants beyond them achieves nothing, whatever it tries."""

from __future__ import annotations

import os

import pytest

from protocol.errors import NoGrant, NotAllowed, OverCeiling
from protocol.grants import Grant, GrantSet, Narrowing, Permission, sign_set
from protocol.messages import CheckRoot, GrantsApplied, GrantsRefused, IndexLevel, PlaceWorkspace, RootConfig, SetGrants
from protocol.names import Layout
from spoke_agent.agent import clock
from spoke_agent.storage.node import Credential
from tests.integration.access.conftest import Real
from tests.spoke_agent.access.bench import ALICE, BOB, EVERYONE, HUB, NODE, STAFF

pytestmark = pytest.mark.real

READ, WRITE, MANAGE = Permission.READ, Permission.WRITE, Permission.MANAGE


async def limit(real: Real, text: str) -> None:
    (real.state.path / "ceiling.toml").write_text(text)
    await real.access.expire_once()


async def reached(real: Real, key: Credential, places: dict[str, str]) -> dict[str, str]:
    """Return what a key can do at each place: r for reading, w for adding, d for taking away, l for listing."""
    found = {}
    for name, place in places.items():
        bucket, _, prefix = place.partition("/")
        at = f"/{bucket}/{prefix}x"
        can = {
            "r": await real.status(key, "GET", at) != 403,
            "w": await real.status(key, "PUT", at, [("partNumber", "1"), ("uploadId", "bm9uZQ")]) != 403,
            "d": await real.status(key, "DELETE", f"{at}-not-there") != 403,
            "l": await real.status(key, "GET", f"/{bucket}", [("list-type", "2"), ("prefix", prefix)]) == 200,
        }
        found[name] = "".join(letter for letter, allowed in can.items() if allowed)
    return found


async def test_whatever_a_hostile_hub_signs_nothing_beyond_the_ceiling_opens(real: Real) -> None:
    other = f"other-{os.urandom(4).hex()}"
    own = f"{real.bucket}--bob--ws"
    for bucket in (other, own):
        await real.admin.make_bucket(bucket)
    places = {
        "inside": f"{real.bucket}/in/",
        "deeper": f"{real.bucket}/in/deep/",
        "beside": f"{real.bucket}/in2/",
        "above": f"{real.bucket}/",
        "a bucket of a workspace": f"{own}/",
        "another bucket": f"{other}/",
    }
    for place in places.values():
        bucket, _, prefix = place.partition("/")
        await real.admin.put(bucket, f"{prefix}x", b"body")
    await limit(real, f'places = ["{real.bucket}/in/"]\nread_only = true\npeople = ["bob", "public"]\n')
    wanted = [Grant(n, *place.split("/", 1), MANAGE) for n, place in enumerate(places.values(), 1)]
    for subject, groups in ((EVERYONE, ()), (STAFF, ()), (ALICE, (STAFF.id,)), (BOB, (STAFF.id,))):
        answer = await real.set(subject, 1, *wanted, groups=groups)
        assert isinstance(answer, GrantsRefused)
        assert len(answer.refusals) == 6
        assert all(refusal.problem.code == "over-ceiling" and refusal.problem.message for refusal in answer.refusals)
    nothing = dict.fromkeys(places, "")
    expected = nothing | {"inside": "rl", "deeper": "rl"}
    for subject in (BOB, ALICE):  # alice is not let in by name: she has what everyone has
        assert await reached(real, await real.key(subject, 1), places) == expected
    key = await real.key(BOB, 1)
    with pytest.raises(NoGrant):
        await real.key(BOB, 1, Narrowing(((other, ""),)))

    # More of it: a higher epoch, the far future, all of the server, one bucket a thousand times.
    for epoch, grants in enumerate(([Grant(1, other, "", WRITE)] * 1000, wanted[::-1], [Grant(0, real.bucket, "", MANAGE)]), 2):
        await real.set(BOB, epoch, *grants, lease_s=10**9)
        assert (await reached(real, key, places))["another bucket"] == ""
        assert "w" not in "".join((await reached(real, key, places)).values())
    signed = sign_set(HUB, GrantSet(NODE + 1, BOB, 99, (Grant(1, other, "", MANAGE),), clock() // 1_000_000 + 900))
    with pytest.raises(NotAllowed):
        await real.access.set_grants(SetGrants(1, 5000, signed))
    assert await reached(real, key, places) == expected

    # The files of the rules: a root or a workspace outside, and a level above.
    for root in (
        RootConfig(5, "data", other, "", Layout.PREFIX, IndexLevel.NAMES),
        RootConfig(5, "data", real.bucket, "", Layout.PREFIX, IndexLevel.NAMES),
        RootConfig(5, "data", other, "", Layout.BUCKET, IndexLevel.NAMES),
    ):
        with pytest.raises(OverCeiling):
            await real.access.check_root(CheckRoot(1, 5000, root))
    with pytest.raises(OverCeiling):
        await real.access.place_workspace(PlaceWorkspace(1, 5000, 5, "elsewhere/ws/"))


async def test_what_the_owner_edits_narrows_keys_that_are_out_and_widens_them_again(real: Real) -> None:
    places = {"a": f"{real.bucket}/a/", "b": f"{real.bucket}/b/"}
    await real.set(BOB, 1, real.grant("a/", WRITE), real.grant("b/", Permission.TIDY))
    key = await real.key(BOB, 1)
    for text, expected in (
        ("", {"a": "rwdl", "b": "rdl"}),
        ('highest_permission = "read"', {"a": "rl", "b": "rl"}),
        (f'places = ["{real.bucket}/b/"]', {"a": "", "b": "rdl"}),
        ('people = ["alice"]', {"a": "", "b": ""}),
        ("read_only = true", {"a": "rl", "b": "rl"}),
        ("places = [", {"a": "rl", "b": "rl"}),  # half an edit: the limits of before hold
        ("", {"a": "rwdl", "b": "rdl"}),
    ):
        await limit(real, text)
        assert await reached(real, key, places) == expected, text
    assert real.access.cuts() == []


async def test_what_is_cut_is_said_with_the_reason(real: Real) -> None:
    await real.set(BOB, 1, real.grant("in/", WRITE), real.grant("out/"))
    (real.state.path / "ceiling.toml").write_text(f'places = ["{real.bucket}/in/"]\nread_only = true\n')
    cuts = real.access.cuts()
    assert [(cut.subject, cut.workspace) for cut in cuts] == [("bob", 4), ("bob", 5)]
    assert "counts as read there" in cuts[0].why
    assert "does not let wio into" in cuts[1].why
    await real.access.expire_once()
    assert any("ceiling cuts grants of 1 subjects" in warning for warning in real.access.warnings)
    answer = await real.set(BOB, 2, real.grant("in/"))
    assert isinstance(answer, GrantsApplied)
    assert not any("ceiling cuts" in warning for warning in real.access.warnings)
