"""Links: each a principal of its own that may never do more than who made it, at any moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.errors import BadSignature, NoGrant, NotAllowed, OverCeiling, Pending, StorageUnreachable
from protocol.grants import Grant, GrantSet, Permission, SignedGrantSet, Subject, SubjectKind, sign_set
from protocol.identity import new_key, public_bytes
from protocol.messages import GrantsApplied, GrantsRefused, Mint, SetGrants, SignLink
from protocol.sealing import ClearLink, Context, client_key, open_link, open_sealed
from tests.spoke_agent.access.bench import ALICE, BOB, DAY, EVERYONE, HUB, NODE, STAFF, START, WHOLE, Bench, grant

LINK = Subject(SubjectKind.LINK, 901, "bob's link")
OTHER = Subject(SubjectKind.LINK, 902, "bob's link")
FILE = "scans/sub/a.txt"
WORKSPACE = grant("scans/").workspace


class Links(Bench):
    """The bench, with links on it."""

    def set_of(self, link: Subject, epoch: int, *grants: Grant, under: int = BOB.id, life_s: int = DAY) -> SignedGrantSet:
        return sign_set(HUB, GrantSet(NODE, link, epoch, grants, START + life_s, (), under))

    async def link(
        self, link: Subject, epoch: int, *grants: Grant, under: int = BOB.id, life_s: int = DAY
    ) -> GrantsApplied | GrantsRefused:
        signed = self.set_of(link, epoch, *grants, under=under, life_s=life_s)
        return await self.access.set_grants(SetGrants(next(self.requests), 5000, signed))

    async def sign(self, link: Subject = LINK, epoch: int = 1, key: str = FILE, **changes: Any) -> ClearLink:
        private = X25519PrivateKey.generate()
        request = SignLink(next(self.requests), 5000, link, epoch, client_key(private), 3600, "lab", key)
        request = msgspec.structs.replace(request, **changes)
        signed = await self.access.sign_link(request)
        context = Context(NODE, link.id, request.request, request.client_key)
        return open_link(private, public_bytes(new_key(bytes(32))), context, signed.credential)

    def works(self, link: ClearLink) -> bool:
        """Make the request that a link is."""
        url = urlsplit(link.url)
        [credential] = parse_qs(url.query)["X-Amz-Credential"]
        _, bucket, key = url.path.split("/", 2)
        permission = Permission.READ if link.method == "GET" else Permission.DROP
        return link.expires > self.time and self.storage.opens(credential.partition("/")[0], bucket, key, permission)

    async def made(self, permission: Permission = Permission.READ, **changes: Any) -> ClearLink:
        """Let bob have scans/ and make one link in it."""
        await self.set(BOB, 1, grant("scans/", Permission.WRITE))
        await self.link(LINK, 1, grant("scans/", permission, expires=START + DAY))
        return await self.sign(put=permission is Permission.DROP, **changes)


@pytest.fixture
async def links(tmp_path: Path) -> AsyncIterator[Links]:
    made = Links(tmp_path / "state")
    await made.start()
    yield made
    await made.stop()


async def test_a_link_opens_its_file_and_leaves_no_key_behind(links: Links) -> None:
    link = await links.made()
    assert link.method == "GET"
    assert link.url.startswith("http://127.0.0.1:9000/lab/scans/sub/a.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert link.expires == START + 3600
    assert links.works(link)
    assert await links.access.keys() == []
    secrets = [f"secret-of-{name}" for name in links.storage.keys]
    everything = b"".join(file.read_bytes() for file in links.state.path.iterdir() if file.is_file())
    assert not any(secret.encode() in everything or secret in repr(vars(links.access)) for secret in secrets)
    [(holder, _, narrowing)] = links.storage.keys.values()
    assert (narrowing.places, narrowing.read_only) == ((("lab", "scans/sub/"),), True)
    assert links.access.who(holder) == BOB.id, "what is done with it was made possible by bob"


async def test_folders_that_no_policy_can_name_narrow_to_the_next_one_above(links: Links) -> None:
    await links.set(BOB, 1, grant("scans/"))
    await links.link(LINK, 1, grant("scans/", expires=START + DAY))
    await links.sign(key="scans/sub/what?/a.txt")
    [(_, _, narrowing)] = links.storage.keys.values()
    assert narrowing.places == (("lab", "scans/sub/"),)


async def test_for_uploading_it_neither_reads_nor_lets_anything_else_be_put(links: Links) -> None:
    link = await links.made(Permission.DROP)
    assert link.method == "PUT"
    assert links.works(link)
    assert not links.works(ClearLink("GET", link.url, link.expires))
    with pytest.raises(NoGrant):
        await links.sign(put=False)
    with pytest.raises(NoGrant):
        await links.sign(key="plans/a.txt", put=True)


@pytest.mark.parametrize("key", ["plans/a.txt", "scansa.txt", "scan", "a.txt"])
async def test_a_file_outside_the_links_place_is_not_signed(links: Links, key: str) -> None:
    await links.made()
    with pytest.raises(NoGrant):
        await links.sign(key=key)


async def test_ended_it_is_dead_proven_and_removed_and_no_other_is_touched(links: Links) -> None:
    first = await links.made()
    await links.link(OTHER, 1, grant("scans/", expires=START + DAY))
    second, key = await links.sign(OTHER), await links.key(BOB, 1)
    ended = await links.link(LINK, 2)
    assert isinstance(ended, GrantsApplied)
    assert ended.keys_out == 1
    assert [(proof.status, proof.expected) for proof in ended.proofs] == [(403, True)]
    assert not links.works(first)
    assert links.works(second)
    assert links.opens(key, "lab/scans/a.txt")
    assert len(links.storage.access) == 2, "bob's holder and the other link's"
    with pytest.raises(NoGrant):
        await links.sign(LINK, 2)


@pytest.mark.parametrize("left", [(), (grant("scans/", Permission.DROP),), (grant("scans/other/"),), (grant("plans/"),)])
async def test_when_its_maker_loses_it_the_link_is_dead_before_that_is_answered(links: Links, left: tuple[Grant, ...]) -> None:
    link = await links.made()
    answer = await links.set(BOB, 2, *left)
    assert isinstance(answer, GrantsApplied)
    assert not links.works(link)


async def test_what_the_maker_keeps_keeps_the_link(links: Links) -> None:
    link = await links.made()
    for number, left in enumerate((grant("scans/"), grant("scans/sub/"), grant("", Permission.TIDY)), 2):
        await links.set(BOB, number, left)
        assert links.works(link), left


async def test_over_quota_a_link_reads_and_uploads_nothing(links: Links) -> None:
    read = await links.made()
    await links.link(OTHER, 1, grant("scans/", Permission.DROP, expires=START + DAY))
    put = await links.sign(OTHER, put=True)
    assert links.works(put)
    await links.set(BOB, 2, grant("scans/", Permission.TIDY))
    assert (links.works(read), links.works(put)) == (True, False)


async def test_it_leans_on_what_is_shared_with_its_maker_too(links: Links) -> None:
    await links.set(EVERYONE, 1, grant("scans/"))
    await links.set(STAFF, 1, grant("plans/"))
    await links.set(BOB, 1, groups=(STAFF.id,))
    await links.link(LINK, 1, grant("scans/", expires=START + DAY))
    await links.link(OTHER, 1, grant("plans/", expires=START + DAY))
    one, other = await links.sign(), await links.sign(OTHER, key="plans/a.txt")
    assert (links.works(one), links.works(other)) == (True, True)
    await links.set(EVERYONE, 2)
    assert (links.works(one), links.works(other)) == (False, True)
    await links.set(STAFF, 2)
    assert not links.works(other)
    await links.set(STAFF, 3, grant("plans/"))
    assert links.works(other)
    await links.set(BOB, 2)
    assert not links.works(other), "bob is in the group no more"


async def test_nothing_is_open_to_a_link_whose_maker_is_not_known_or_has_nothing(links: Links) -> None:
    await links.link(LINK, 1, grant("scans/", expires=START + DAY), under=4711)
    with pytest.raises(NoGrant):
        await links.sign()
    await links.link(OTHER, 1, grant("scans/", expires=START + DAY))
    with pytest.raises(NoGrant):
        await links.sign(OTHER)
    await links.set(BOB, 1, grant("scans/"))
    assert links.works(await links.sign(OTHER)), "bob never had a key, and needs none"
    assert len(links.storage.access) == 1


async def test_anothers_change_leaves_a_link_alone(links: Links) -> None:
    link = await links.made()
    before = links.storage.calls.count("set_access")
    await links.set(ALICE, 1, grant("plans/"))
    await links.set(ALICE, 2)
    assert links.storage.calls.count("set_access") == before
    assert links.works(link)


async def test_it_ends_by_itself_and_is_forgotten(links: Links) -> None:
    await links.set(BOB, 1, grant("scans/"))
    await links.link(LINK, 1, grant("scans/", expires=START + 100), life_s=100)
    link = await links.sign(life_s=3600)
    assert link.expires == START + 100
    assert await links.access.expire_once() <= 100
    links.time += 100
    await links.access.expire_once()
    assert not links.works(link)
    assert links.storage.access == {}
    assert [state.subject for part in await links.access.epochs() for state in part.states] == [BOB]
    await links.restart()
    assert [state.subject for part in await links.access.epochs() for state in part.states] == [BOB]


async def test_the_makers_grant_ends_and_the_link_with_it(links: Links) -> None:
    await links.set(BOB, 1, grant("scans/", expires=START + 50))
    await links.link(LINK, 1, grant("scans/", expires=START + DAY))
    link = await links.sign()
    assert link.expires == START + 50
    links.time += 50
    await links.access.expire_once()
    assert links.storage.access != {}
    assert all(grants == () for grants in links.storage.access.values())


async def test_pause_shuts_links_and_resuming_opens_them_again(links: Links) -> None:
    link = await links.made()
    await links.access.pause()
    assert not links.works(link)
    with pytest.raises(OverCeiling):
        await links.sign()
    await links.access.resume()
    assert links.works(link)


async def test_the_owner_says_how_long_and_whether_at_all(links: Links) -> None:
    link = await links.made()
    links.state.write("ceiling.toml", b'longest_link = "1h"\n')
    await links.access.expire_once()
    assert links.works(link)
    with pytest.raises(OverCeiling, match="1 h at most"):
        await links.sign(life_s=3601)
    assert links.works(await links.sign(life_s=3600))
    links.state.write("ceiling.toml", b"longest_link = 0\n")
    await links.access.expire_once()
    assert not links.works(link)
    with pytest.raises(OverCeiling, match="no presigned links"):
        await links.sign(life_s=60)
    refused = await links.link(OTHER, 1, grant("scans/", expires=START + DAY))
    assert isinstance(refused, GrantsRefused)


@pytest.mark.parametrize("file", ['places = ["open"]', "read_only = true", 'people = ["alice"]'])
async def test_the_rest_of_the_ceiling_holds_for_links_as_for_their_makers(links: Links, file: str) -> None:
    link = await links.made(Permission.DROP)
    links.state.write("ceiling.toml", file.encode())
    await links.access.expire_once()
    assert not links.works(link)


async def test_restarted_it_works_and_without_its_state_it_is_dead(links: Links) -> None:
    link = await links.made()
    await links.restart()
    assert links.works(link)
    assert links.storage.calls.count("create") == 1
    await links.stop()
    for file in links.state.path.glob("grants.sqlite*"):
        file.unlink()
    await links.start()
    assert not links.works(link)
    await links.set(BOB, 1, grant("scans/", Permission.WRITE))
    await links.link(LINK, 1, grant("scans/", expires=START + DAY))
    assert not links.works(link), "the hub sends its set again; nothing is made of that"
    assert links.storage.access == {}


async def test_a_server_restored_from_its_backup_revives_no_link(links: Links) -> None:
    link = await links.made()
    backup = links.storage.copied()
    await links.link(LINK, 2)
    links.storage.restore(backup)
    assert links.works(link)
    await links.access.verify_once()
    assert not links.works(link)


@pytest.mark.parametrize("fails", ["set_access", "remove"])
async def test_a_server_that_does_not_answer_gets_it_later(links: Links, fails: str) -> None:
    link = await links.made()

    def fault(what: str) -> None:
        if what == fails:
            raise StorageUnreachable("The server is away.")

    links.storage.fault = fault
    if fails == "set_access":
        with pytest.raises(Pending):
            await links.set(BOB, 2)
        assert links.works(link)
        links.storage.fault = lambda _: None
        await links.access.expire_once()
    else:
        assert isinstance(await links.link(LINK, 2), GrantsApplied)
        assert len(links.storage.access) == 1
        links.storage.fault = lambda _: None
        await links.access.expire_once()
        assert links.storage.access == {}
    assert not links.works(link)


async def test_neither_is_a_key_minted_of_a_link_nor_a_link_signed_for_a_person(links: Links) -> None:
    await links.made()
    with pytest.raises(NotAllowed):
        await links.access.mint(Mint(1, 5000, LINK, 1, bytes(32), 3600, WHOLE))
    with pytest.raises(NotAllowed):
        await links.sign(BOB)
    with pytest.raises(Pending):
        await links.sign(LINK, 2)
    with pytest.raises(Pending):
        await links.sign(OTHER)


async def test_a_sealed_link_opens_as_no_key_and_for_nobody_else(links: Links) -> None:
    await links.made()
    private, node = X25519PrivateKey.generate(), public_bytes(new_key(bytes(32)))
    request = SignLink(77, 5000, LINK, 1, client_key(private), 60, "lab", FILE)
    signed = (await links.access.sign_link(request)).credential
    context = Context(NODE, LINK.id, 77, request.client_key)
    assert "X-Amz-Signature" not in repr(open_link(private, node, context, signed))
    with pytest.raises(Exception, match="cannot be opened"):
        open_sealed(private, node, context, signed)
    with pytest.raises(BadSignature):
        open_link(private, node, msgspec.structs.replace(context, subject=OTHER.id), signed)
