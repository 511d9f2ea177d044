"""The hub is away, on a real MinIO: what was granted goes on for as long as it was granted, and not a second longer.

The agent's clock is moved, never the machine's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, CredentialRetrievalError

from protocol.errors import BadLifetime, NotAllowed
from protocol.grants import Narrowing, Permission
from protocol.identity import Assertion, assertion_text, sign_assertion
from protocol.messages import GrantsApplied
from spoke_agent.agent import clock
from spoke_agent.endpoint.endpoint import Endpoint
from spoke_agent.storage.node import Credential
from tests.integration.access.conftest import Real
from tests.spoke_agent.access.bench import ALICE, BOB, EVERYONE, HUB, NODE, STAFF

pytestmark = pytest.mark.real

DAY = 86_400


def until(second: int) -> int:
    """Return how far the agent's clock has to be ahead for it to be this Unix second."""
    return second - clock() // 1_000_000


async def opened(real: Real, key: Credential, *places: str) -> list[bool]:
    return [await real.opens(key, place) for place in places]


async def test_grants_of_a_person_a_group_and_everyone_end_to_the_second_without_the_hub(real: Real) -> None:
    start = clock() // 1_000_000
    ends = {BOB: start + 4000, STAFF: start + 5000, EVERYONE: start + 6000}
    await real.set(STAFF, 1, real.grant("staff/", expires=ends[STAFF]))
    await real.set(EVERYONE, 1, real.grant("public/", expires=ends[EVERYONE]))
    await real.set(BOB, 1, real.grant("bob/", expires=ends[BOB]), real.grant("kept/"), groups=(STAFF.id,))
    key = await real.key(BOB, 1)
    places = ("bob/", "staff/", "public/", "kept/")
    assert await opened(real, key, *places) == [True] * 4
    for number, end in enumerate(sorted(ends.values())):
        real.ahead_s = until(end) - 2  # the machine's own clock goes on meanwhile
        wait = await real.access.expire_once()
        assert 0 < wait <= 2
        assert await opened(real, key, *places) == [False] * number + [True] * (4 - number)
        real.ahead_s = until(end)
        await real.access.expire_once()
        assert await opened(real, key, *places) == [False] * (number + 1) + [True] * (3 - number)


async def test_without_the_agent_a_key_ends_with_the_first_grant_that_does(real: Real) -> None:
    now = clock() // 1_000_000
    await real.set(BOB, 1, real.grant("a/", expires=now + 2000), real.grant("b/"))
    assert now + 1990 <= (await real.key(BOB, 1)).expires <= now + 2010
    await real.set(BOB, 2, real.grant("a/", expires=now + 30), real.grant("b/"))
    assert now + 890 <= (await real.key(BOB, 2)).expires <= now + 920, "the server makes none that is shorter"
    await real.set(BOB, 3, real.grant("b/"), lease_s=1500)
    assert now + 1490 <= (await real.key(BOB, 3)).expires <= now + 1510


async def test_at_the_end_of_its_lease_everything_is_shut_and_a_new_lease_opens_it_again(real: Real) -> None:
    await real.set(EVERYONE, 1, real.grant("public/"), lease_s=5000)
    await real.set(BOB, 1, real.grant("bob/", Permission.MANAGE), lease_s=4000)
    key = await real.key(BOB, 1)
    end = clock() // 1_000_000 + 4000
    real.ahead_s = until(end) - 3
    await real.access.expire_once()
    assert await opened(real, key, "bob/", "public/") == [True, True]
    with pytest.raises(BadLifetime, match="lease of bob"):
        await real.key(BOB, 1)
    real.ahead_s = until(end)
    await real.access.expire_once()
    assert await opened(real, key, "bob/", "public/") == [False, True]
    real.ahead_s += 1001
    await real.access.expire_once()
    assert await opened(real, key, "bob/", "public/") == [False, False]
    assert real.access.reaches() == []
    answer = await real.set(BOB, 2, real.grant("bob/"), lease_s=DAY)
    assert isinstance(answer, GrantsApplied)
    assert await opened(real, key, "bob/", "public/") == [True, False]


async def test_an_agent_restarted_while_the_hub_is_away_goes_on_and_ends_what_ended_meanwhile(real: Real) -> None:
    now = clock() // 1_000_000
    await real.set(EVERYONE, 1, real.grant("public/"))
    await real.set(BOB, 1, real.grant("bob/", expires=now + 3000), real.grant("kept/"))
    key = await real.key(BOB, 1)
    await real.stop()
    real.ahead_s = 2000
    await real.start()
    assert await opened(real, key, "bob/", "kept/", "public/") == [True, True, True]
    assert await real.opens(await real.key(BOB, 1), "bob/"), "and makes new keys"
    await real.stop()
    real.ahead_s = 3001
    assert await real.opens(key, "bob/"), "nobody was there to end it"
    await real.start()
    assert await opened(real, key, "bob/", "kept/", "public/") == [False, True, True]
    await real.stop()
    real.ahead_s = 2 * DAY
    await real.start()
    assert await opened(real, key, "bob/", "kept/", "public/") == [False, False, False]


async def test_the_owner_s_own_lease_counts_from_the_last_word_of_the_hub_through_a_restart(real: Real) -> None:
    (real.state.path / "ceiling.toml").write_text("longest_lease_s = 1800\n")
    await real.access.expire_once()
    await real.set(BOB, 1, real.grant("bob/"))
    key = await real.key(BOB, 1)
    real.ahead_s = 1700
    await real.access.expire_once()
    assert await real.opens(key, "bob/")
    await real.access.heard()
    real.ahead_s = 3400
    await real.stop()
    await real.start()
    assert await real.opens(key, "bob/")
    real.ahead_s = 3600
    await real.access.expire_once()
    assert not await real.opens(key, "bob/")
    await real.access.heard()
    await real.access.expire_once()
    assert await real.opens(key, "bob/"), "the hub is back"


# ------------------------------------------------------------------------------------------------ the loopback endpoint


@pytest.fixture
async def endpoint(real: Real) -> AsyncIterator[Endpoint]:
    made = Endpoint(real.access, HUB.public_key(), NODE, real.now)
    async with made.listening("127.0.0.1", 0):
        yield made


class Tool:
    """A person's own tool: boto3 with nothing but the two variables that SDKs know, and no other key in reach."""

    def __init__(self, real: Real, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.real = real
        token = folder / "token"
        signed = sign_assertion(HUB, Assertion(NODE, BOB.id, "bob", clock() // 1_000_000, clock() // 1_000_000 + 3 * DAY))
        token.write_text(assertion_text(signed))
        token.chmod(0o600)
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", endpoint.address)
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "none"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "none"))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
            monkeypatch.delenv(name, raising=False)

    async def client(self) -> Any:
        def make() -> Any:
            config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})
            return boto3.Session().client("s3", endpoint_url=self.real.server.url, region_name="us-east-1", config=config)

        return await asyncio.to_thread(make)

    async def reads(self, name: str) -> bool:
        """Start the tool anew and read with it."""

        def read() -> bool:
            try:
                client.get_object(Bucket=self.real.bucket, Key=name)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                    raise
                return False
            return True

        client = await self.client()
        with contextlib.closing(client):
            return await asyncio.to_thread(read)


@pytest.fixture
def tool(real: Real, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tool:
    return Tool(real, endpoint, monkeypatch, tmp_path)


async def test_a_person_s_tools_get_keys_on_this_machine_while_the_hub_is_away(real: Real, tool: Tool) -> None:
    for name in ("bob/a.txt", "alice/a.txt"):
        await real.admin.put(real.bucket, name, b"body")
    await real.set(BOB, 1, real.grant("bob/"))
    assert await tool.reads("bob/a.txt")
    assert not await tool.reads("alice/a.txt")
    [told] = real.access.keys_minted_here()
    [key] = told.keys
    assert key.subject == BOB
    assert key.until > clock() // 1_000_000 + 3500
    assert real.access.minted_here.is_set(), "the hub is told as soon as it is there"
    assert [key.person for key in await real.access.keys()] == ["bob", "bob"]
    await real.set(BOB, 2)
    with pytest.raises((ClientError, CredentialRetrievalError)):
        await tool.reads("bob/a.txt")


async def test_such_a_key_obeys_a_revocation_like_any_other(real: Real, tool: Tool) -> None:
    await real.admin.put(real.bucket, "bob/a.txt", b"body")
    await real.set(BOB, 1, real.grant("bob/"), real.grant("more/"))
    client = await tool.client()
    with contextlib.closing(client):
        await asyncio.to_thread(client.get_object, Bucket=real.bucket, Key="bob/a.txt")
        await real.set(BOB, 2, real.grant("more/"))
        with pytest.raises(ClientError, match="AccessDenied"):
            await asyncio.to_thread(client.get_object, Bucket=real.bucket, Key="bob/a.txt")
        await real.access.pause()
        with pytest.raises((ClientError, CredentialRetrievalError)):
            await tool.reads("more/a.txt")


async def test_who_is_not_known_here_gets_nothing_and_who_is_never_beyond_the_lease(real: Real) -> None:
    with pytest.raises(NotAllowed, match="does not know you"):
        await real.access.mint_here(ALICE.id, 3600, Narrowing())
    (real.state.path / "ceiling.toml").write_text("longest_key_s = 1200\n")
    await real.access.expire_once()
    await real.set(BOB, 1, real.grant("bob/", Permission.WRITE), lease_s=4000)
    key = await real.access.mint_here(BOB.id, 3600, Narrowing(read_only=True))
    assert key.expires <= clock() // 1_000_000 + 1201
    assert await real.opens(key, "bob/")
    assert not await real.opens(key, "bob/", Permission.WRITE)
    real.ahead_s = 2950
    key = await real.access.mint_here(BOB.id, 3600, Narrowing())
    assert key.expires <= clock() // 1_000_000 + 1055, "as long as what is left of the lease"
    real.ahead_s = 3200
    with pytest.raises(BadLifetime, match="lease"):
        await real.access.mint_here(BOB.id, 3600, Narrowing())


async def test_whose_keys_are_out_is_known_after_a_restart(real: Real) -> None:
    await real.set(BOB, 1, real.grant("bob/"))
    await real.access.mint_here(BOB.id, 3600, Narrowing())
    before = real.access.keys_minted_here()
    await real.stop()
    await real.start()
    assert real.access.keys_minted_here() == before != []
    real.ahead_s = 3601
    assert real.access.keys_minted_here() == []
