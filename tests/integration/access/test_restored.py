"""A storage server that comes back from its own backup: what was revoked since then does not live again for long."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from deploy.running import Minio
from protocol.grants import Permission
from spoke_agent.access.applying import Swept
from spoke_agent.agent import clock
from tests.integration.access.conftest import Real
from tests.spoke_agent.access.bench import ALICE, BOB, EVERYONE

pytestmark = pytest.mark.real


@pytest.fixture
async def own(tmp_path: Path, new_minio: Callable[[str], Minio]) -> AsyncIterator[Real]:
    made = Real(tmp_path / "state", new_minio("server"))
    await made.join()
    await made.start()
    await made.admin.make_bucket(made.bucket)
    yield made
    await made.leave()


class Backup:
    """What an owner may copy of a MinIO and put back: its users and policies, and its settings."""

    def __init__(self, server: Minio, folder: Path) -> None:
        self._server = server
        self._there = server.data / ".minio.sys" / "config"
        self._kept = folder / "backup"

    def make(self) -> None:
        self._server.stop()
        shutil.copytree(self._there, self._kept)
        self._server.start()

    def put_back(self) -> None:
        self._server.stop()
        shutil.rmtree(self._there)
        shutil.copytree(self._kept, self._there)
        self._server.start()


async def settled(real: Real) -> None:
    """Look until there is nothing to see, at a server that has run for some seconds: it counts its age in whole ones."""
    end = time.monotonic() + 15
    while (started := await real.node.started()) is None or clock() - started < 3_000_000:
        await real.access.look_once()
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
    assert await real.access.look_once() is None


async def look(real: Real) -> Swept:
    """Look as the agent does every two seconds, until something was seen to be different and put right."""
    end = time.monotonic() + 10
    while True:
        swept = await real.access.look_once()
        if swept is not None and not swept.problems:
            return swept
        assert time.monotonic() < end, "nothing was noticed"
        await asyncio.sleep(0.02)


async def test_what_was_revoked_since_the_backup_is_shut_at_the_first_look(own: Real, tmp_path: Path) -> None:
    backup = Backup(own.server, tmp_path)
    await own.set(EVERYONE, 1, own.grant("public/"))
    await own.set(BOB, 1, own.grant("revoked/", Permission.WRITE), own.grant("kept/"))
    await own.set(ALICE, 1, own.grant("alice/"))
    bob, alice = await own.key(BOB, 1), await own.key(ALICE, 1)
    await settled(own)
    backup.make()
    await look(own)

    await own.set(BOB, 2, own.grant("kept/"), own.grant("new/"))
    await own.set(EVERYONE, 2)
    [holder] = [one for one in own.access._principals.active_holders() if own.access.who(one.name) == ALICE.id]
    await own.node.remove(holder)  # her holder is gone, as after an eviction or a change by the owner
    await own.access.verify_once()
    await settled(own)
    after = await own.key(ALICE, 1)
    assert not await own.opens(alice, "alice/")
    assert not await own.opens(bob, "revoked/")

    backup.put_back()
    assert await own.opens(bob, "revoked/", Permission.WRITE), "the backup revives it: that is what the look is for"
    assert await own.opens(alice, "alice/")
    swept = await look(own)
    assert swept.differed >= 2
    assert any(holder.name in orphan for orphan in swept.orphans)
    for key, place, opens in (
        (bob, "revoked/", False),
        (bob, "public/", False),
        (bob, "kept/", True),
        (bob, "new/", True),
        (alice, "alice/", False),  # its parent is gone for good: a name is never used again
        (after, "alice/", False),  # made after the backup: the server does not know that parent
    ):
        assert await own.opens(key, place) is opens, place
    assert await own.opens(await own.key(ALICE, 1), "alice/")
    await settled(own)


async def test_a_pause_and_the_end_of_a_lease_hold_on_a_restored_server_too(own: Real, tmp_path: Path) -> None:
    backup = Backup(own.server, tmp_path)
    await own.set(BOB, 1, own.grant("bob/"), lease_s=4000)
    key = await own.key(BOB, 1)
    await settled(own)
    backup.make()
    await look(own)
    await own.access.pause()
    await settled(own)
    backup.put_back()
    assert await own.opens(key, "bob/")
    await look(own)
    assert not await own.opens(key, "bob/")
    await own.access.resume()
    assert await own.opens(key, "bob/")
    own.ahead_s = 4001
    await own.access.expire_once()
    await settled(own)
    backup.put_back()
    assert await own.opens(key, "bob/")
    await look(own)
    assert not await own.opens(key, "bob/")


async def test_a_server_that_is_away_for_a_moment_is_looked_at_when_it_is_back(own: Real) -> None:
    await own.set(BOB, 1, own.grant("bob/"))
    own.server.stop()
    assert await own.access.look_once() is None
    own.server.start()
    assert (await look(own)).differed == 0
    await settled(own)
