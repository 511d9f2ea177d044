"""SIGKILL at every point, outages, servers and hubs restored from backups: keys never open more than the newest set."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from protocol.errors import BadSetting, DiskFull, Internal, Pending, StorageUnreachable, Unreachable, WioError
from protocol.grants import Grant, Permission, Subject
from protocol.messages import GrantsApplied
from protocol.sealing import ClearCredential
from tests.spoke_agent.access.bench import ALICE, BOB, EVERYONE, START, Bench, Killed, grant

PLACES = ("lab/scans/a", "lab/plans/a", "lab/plans/deep/a", "open/a")
PERMISSIONS = (Permission.READ, Permission.WRITE)


def opened(bench: Bench, key: ClearCredential) -> set[tuple[str, Permission]]:
    return {(where, permission) for where in PLACES for permission in PERMISSIONS if bench.opens(key, where, permission)}


def means(*grants: Grant) -> set[tuple[str, Permission]]:
    """What grants open of the places above, worked out in the plainest way."""
    return {
        (where, permission)
        for where in PLACES
        for permission in PERMISSIONS
        for one in grants
        if where.startswith(f"{one.bucket}/{one.prefix}") and (permission is Permission.READ or one.permission.writes)
    }


# ------------------------------------------------------------------------------------------------ SIGKILL


class Killer:
    """Ends the process at the n-th point: before or after any call to the server or any write to disk."""

    def __init__(self, bench: Bench, at: int) -> None:
        self.left = at
        self.dead = False
        bench.storage.fault = bench.storage.after = self.point
        run = bench.access._records.run

        async def write(work: Callable[..., object], *, durable: bool = True) -> object:
            self.point("before a write")
            result = await run(work, durable=durable)
            self.point("after a write")
            return result

        bench.access._records.run = write  # type: ignore[method-assign,assignment]  # every write passes here

    def point(self, what: str) -> None:
        self.left -= 1
        if self.dead or self.left < 0:
            self.dead = True
            raise Killed(what)


async def _revoke(bench: Bench) -> None:
    await bench.set(BOB, 2, grant("plans/"))


async def _share(bench: Bench) -> None:
    await bench.set(BOB, 2, grant("scans/", Permission.WRITE), grant("plans/"), grant("", bucket="open"))


async def _close_everyone(bench: Bench) -> None:
    await bench.set(EVERYONE, 2)


async def _first_key(bench: Bench) -> None:
    await bench.key(ALICE, 1)


async def _pause(bench: Bench) -> None:
    await bench.access.pause()


STEPS = {"revoke": _revoke, "share": _share, "close everyone": _close_everyone, "first key": _first_key, "pause": _pause}


@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_at_any_point_leaves_no_key_that_opens_more_than_the_newest_set_kept(step: str, tmp_path: Path) -> None:
    points = 0
    while True:
        done = await _kill_once(tmp_path / str(points), STEPS[step], points)
        if done:
            break
        points += 1
    assert points > 3


async def _kill_once(path: Path, step: Callable[[Bench], Awaitable[None]], at: int) -> bool:
    bench = Bench(path)
    await bench.start()
    await bench.set(EVERYONE, 1, grant("plans/deep/"))
    await bench.set(ALICE, 1, grant("plans/"))
    await bench.set(BOB, 1, grant("scans/", Permission.WRITE), grant("plans/"))
    key = await bench.key(BOB, 1)
    killer = Killer(bench, at)
    try:
        await step(bench)
    except Killed:
        done = False
    else:
        done = True
    killer.dead = True  # whatever of it is still under way reaches nothing any more
    await bench.stop()
    bench.storage.fault = bench.storage.after = lambda _: None
    await bench.start()
    kept = {one.subject.name: one for one in bench.access._principals}
    wanted = set() if bench.access.paused else means(*kept["bob"].grant_set.grants, *kept["everyone"].grant_set.grants)
    assert opened(bench, key) == wanted
    # The hub sends what differs, as after every connection.
    await bench.access.resume()
    for subject, epoch, grants in (
        (EVERYONE, 5, [grant("plans/deep/")]),
        (BOB, 5, [grant("plans/")]),
        (ALICE, 5, [grant("scans/")]),
    ):
        assert isinstance(await bench.set(subject, epoch, *grants), GrantsApplied)
    assert opened(bench, key) == means(grant("plans/"))
    assert opened(bench, await bench.key(ALICE, 5)) == means(grant("scans/"), grant("plans/deep/"))
    active = {holder.name for holder in bench.access._principals.active_holders()}
    assert set(bench.storage.access) == active, "nothing is left behind"
    await bench.stop()
    return done


# ------------------------------------------------------------------------------------------------ outages


def unreachable(what: str) -> None:
    raise StorageUnreachable(f"No answer to {what}.")


async def test_a_revoke_while_the_server_is_away_is_pending_and_enforced_when_it_is_back(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/"))
    key = await bench.key(BOB, 1)
    bench.storage.fault = unreachable
    with pytest.raises(Pending, match="kept, but not enforced yet"):
        await bench.set(BOB, 2)
    (told,) = await bench.access.epochs()
    assert (told.states[0].epoch, told.states[0].content) == (2, bytes(32)), "the hub is not told that it is enforced"
    assert await bench.access.expire_once() == 2
    assert any("Not enforced yet" in warning for warning in bench.access.warnings)
    bench.storage.fault = lambda _: None
    await bench.access.expire_once()
    assert not bench.opens(key, "lab/scans/a")
    assert bench.access.caught_up.is_set()
    (told,) = await bench.access.epochs()
    assert told.states[0].content != bytes(32)
    assert isinstance(await bench.set(BOB, 2), GrantsApplied)


async def test_a_pause_while_the_server_is_away_says_so_and_is_carried_out_later(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/"))
    key = await bench.key(BOB, 1)
    bench.storage.fault = unreachable
    assert (await bench.access.pause()).problems[0].code == "storage-unreachable"
    bench.storage.fault = lambda _: None
    await bench.access.expire_once()
    assert not bench.opens(key, "lab/scans/a")


@pytest.mark.parametrize("minutes", [0, 20], ids=["at once", "when the hub has not been heard of for a while"])
@pytest.mark.parametrize(
    "problem", [DiskFull("No space left."), Unreachable("Locked."), Internal("Something."), BadSetting("Damaged.")]
)
async def test_a_revoke_that_cannot_be_written_down_is_an_error_and_takes_away_all_the_same(
    bench: Bench, problem: WioError, minutes: int
) -> None:
    await bench.set(BOB, 1, grant("scans/"), grant("plans/"))
    key = await bench.key(BOB, 1)

    async def full(*_: object, **__: object) -> None:
        raise problem

    bench.time += minutes * 60
    bench.access._records.run = full  # type: ignore[method-assign,assignment]  # every write passes here
    with pytest.raises(type(problem)):
        await bench.set(BOB, 2, grant("plans/"), grant("", bucket="open"))
    await bench.access.expire_once()
    assert not bench.opens(key, "lab/scans/a")
    assert bench.opens(key, "lab/plans/a")
    assert not bench.opens(key, "open/a"), "nothing opens that is not written down"


# ------------------------------------------------------------------------------------------------ backups


async def test_a_server_restored_from_its_backup_revives_nothing(bench: Bench) -> None:
    await bench.set(EVERYONE, 1, grant("plans/deep/"))
    await bench.set(BOB, 1, grant("scans/"))
    key = await bench.key(BOB, 1)
    backup = bench.storage.copied()
    await bench.set(BOB, 2, grant("plans/"))
    await bench.set(EVERYONE, 2)
    bench.storage.restore(backup)
    assert bench.opens(key, "lab/scans/a"), "this is what a restore does"
    swept = await bench.access.verify_once()
    assert swept.differed == 2
    assert opened(bench, key) == means(grant("plans/"))


async def test_a_server_restored_to_before_a_holder_gets_another_name_for_it(bench: Bench) -> None:
    backup = bench.storage.copied()
    await bench.set(EVERYONE, 1, grant("plans/deep/"))
    await bench.set(BOB, 1, grant("scans/"))
    old = await bench.key(BOB, 1)
    bench.storage.restore(backup)
    await bench.restart()
    new = await bench.key(BOB, 1)
    assert not opened(bench, old)
    assert opened(bench, new) == means(grant("scans/"), grant("plans/deep/"))
    assert bench.access.who(bench.storage.keys[old.access_key][0]) == BOB.id, "it is still known who it was"


async def test_a_lost_state_directory_leaves_no_holder_that_works(bench: Bench) -> None:
    await bench.set(BOB, 1, grant("scans/"))
    key = await bench.key(BOB, 1)
    await bench.stop()
    (bench.state.path / "grants.sqlite").unlink()
    await bench.start()
    assert not opened(bench, key)
    assert bench.storage.access == {}


# ------------------------------------------------------------------------------------------------ a long history


class History:
    """A random history of one node, that a seed repeats."""

    def __init__(self, path: Path, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - a history that can be repeated
        self.bench = Bench(path)
        self.epochs = dict.fromkeys((ALICE, BOB, EVERYONE), 0)
        self.keys: list[tuple[Subject, ClearCredential]] = []
        self.backups = [self.bench.storage.copied()]
        self.candidates = [grant(p, m) for p in ("scans/", "plans/", "plans/deep/") for m in PERMISSIONS]
        self.candidates.append(grant("", bucket="open"))
        self.worked = 0

    async def set(self) -> None:
        subject = self.chance.choice(list(self.epochs))
        self.epochs[subject] += 1
        ends = self.chance.choice([None, self.bench.time + self.chance.randrange(1, 4000)])
        chosen = self.chance.sample(self.candidates, self.chance.randrange(4))
        grants = [grant(one.prefix, one.permission, bucket=one.bucket, expires=ends) for one in chosen]
        await self.bench.set(subject, self.epochs[subject], *grants, lease=self.bench.time + 40_000)

    async def mint(self) -> None:
        subject = self.chance.choice([ALICE, BOB])
        self.keys.append((subject, await self.bench.key(subject, 0)))

    async def time(self) -> None:
        self.bench.time += self.chance.randrange(2000)

    async def pause(self) -> None:
        await self.bench.access.pause()

    async def resume(self) -> None:
        await self.bench.access.resume()

    async def outage(self) -> None:
        self.bench.storage.fault = _sometimes(self.chance)
        await self.set()

    async def crash(self) -> None:
        killer = Killer(self.bench, self.chance.randrange(8))
        try:
            await self.chance.choice([self.set, self.mint])()
        finally:
            killer.dead = True

    async def restart(self) -> None:
        await self.bench.restart()

    async def restore(self) -> None:
        self.backups.append(self.bench.storage.copied())
        self.bench.storage.restore(self.chance.choice(self.backups))
        await self.bench.access.verify_once()

    async def step(self) -> None:
        often = [self.set, self.set, self.set, self.mint, self.mint, self.resume, self.time]
        action = self.chance.choice([*often, self.pause, self.outage, self.restart, self.restore, self.crash])
        with contextlib.suppress(WioError, Killed):
            await action()
        self.bench.storage.fault = self.bench.storage.after = lambda _: None
        if action == self.crash:
            await self.bench.restart()
        await self.bench.access.expire_once()
        _check(self.bench, self.keys)
        self.worked += any(opened(self.bench, key) for _, key in self.keys)


@pytest.mark.parametrize("seed", range(6))
async def test_after_every_step_of_a_random_history_every_key_opens_exactly_what_the_sets_say(
    seed: int, tmp_path: Path
) -> None:
    history = History(tmp_path / "state", seed)
    await history.bench.start()
    for _ in range(200):
        await history.step()
    assert history.worked > 20, "keys did open something for most of the time"
    await history.bench.stop()


def _sometimes(chance: random.Random) -> Callable[[str], None]:
    def fault(what: str) -> None:
        if chance.random() < 0.5:
            unreachable(what)

    return fault


def _check(bench: Bench, keys: list[tuple[Subject, ClearCredential]]) -> None:
    """Compare with the newest sets kept, worked out without any of the code under test but the record of them."""
    sets = {one.subject.name: one.grant_set for one in bench.access._principals}
    for subject, key in keys:
        holder = bench.storage.keys[key.access_key][0]
        counts: list[Grant] = []
        if not bench.access.paused and holder in bench.storage.access and key.expires > bench.time:
            for one in (sets.get(subject.name), sets.get(EVERYONE.name)):
                if one is not None and one.lease_end > bench.time:
                    counts += [g for g in one.grants if g.expires is None or g.expires > bench.time]
        assert opened(bench, key) == means(*counts), (subject.name, bench.time - START)
