"""A person with a key that the real agent minted, on a real MinIO, and everything around them that is not theirs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.running import Minio
from protocol.grants import Grant, Permission
from spoke_agent.storage.admin import Admin
from spoke_agent.storage.node import Credential
from spoke_agent.storage.sigv4 import Key
from tests.integration.access.conftest import Real
from tests.spoke_agent.access.bench import ALICE, BOB, EVERYONE

SECRET = b"what nobody but alice may see"


class Prisoner:
    """Bob, who may write in one workspace of each layout and read one, and who tries to get out.

    ``mine``, ``read`` and ``theirs`` are addresses on the server (``/bucket/folder``) that he may write, read, not touch:
    the first of each with the prefix layout, the second with the bucket layout.
    """

    def __init__(self, real: Real) -> None:
        self.real = real
        self.other = f"other-{os.urandom(4).hex()}"
        bucket = real.bucket
        self.shared = bucket
        self.own_bucket, self.alices_bucket = f"{bucket}--bob--ws", f"{bucket}--alice--ws"
        self.mine = (f"/{bucket}/bob/ws", f"/{self.own_bucket}")
        self.read = (f"/{bucket}/alice/shown",)
        self.theirs = (f"/{bucket}/alice/ws", f"/{self.alices_bucket}", f"/{self.other}")

    async def lock_up(self) -> None:
        real = self.real
        for bucket in (self.own_bucket, self.alices_bucket, self.other):
            await real.admin.make_bucket(bucket)
        for place in (*self.mine, *self.read, *self.theirs):
            bucket, _, prefix = place[1:].partition("/")
            await real.admin.put(bucket, f"{prefix}/a.txt".lstrip("/"), b"bob's" if place in self.mine else SECRET)
        await real.set(EVERYONE, 1, real.grant("public/"))
        alices = Grant(3, self.alices_bucket, "", Permission.MANAGE)
        await real.set(ALICE, 1, real.grant("alice/", Permission.MANAGE), alices)
        bobs = Grant(4, self.own_bucket, "", Permission.MANAGE)
        await real.set(BOB, 1, real.grant("bob/ws/", Permission.MANAGE), bobs, real.grant("alice/shown/"))
        self.credential = await real.key(BOB, 1)
        self.alice = await real.key(ALICE, 1)
        self.admin = Admin(real.outside._connection, key_of(self.credential))
        self.before = await self.seen()

    async def seen(self) -> dict[str, bytes]:
        """Return every object that is not bob's, with what is in it."""
        found = {}
        for bucket in (self.shared, self.alices_bucket, self.other):
            async for page in self.real.admin.pages(bucket):
                for entry in page:
                    if not f"/{bucket}/{entry.key}".startswith(f"{self.mine[0]}/"):
                        found[f"{bucket}/{entry.key}"] = await self.real.admin.get(bucket, entry.key)
        return found

    async def unharmed(self) -> None:
        """Assert that nothing outside was changed, and nothing new is there."""
        assert await self.seen() == self.before


def key_of(credential: Credential) -> Key:
    return Key(credential.access_key, credential.secret_key, credential.session_token)


@pytest.fixture
async def bob(tmp_path: Path, minio: Minio) -> AsyncIterator[Prisoner]:
    real = Real(tmp_path / "state", minio)
    await real.join()
    await real.start()
    await real.admin.make_bucket(real.bucket)
    made = Prisoner(real)
    await made.lock_up()
    yield made
    await real.leave()
