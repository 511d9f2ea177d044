"""What every kind of storage node does, on a real server."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Sequence

import pytest

from protocol.errors import BadLifetime, BadName, RootMissing, StorageRefused, StorageUnreachable
from protocol.grants import Grant, Narrowing, Permission
from protocol.messages import Finding, RootConfig
from protocol.names import Layout, Place
from spoke_agent.storage.node import Call, Credential, Entry, Hint, Holder, HolderKind
from spoke_agent.storage.posix.posix import PosixNode

from .conftest import Bench, grant, root

pytestmark = pytest.mark.real

READ, DROP, WRITE, MANAGE = Permission.READ, Permission.DROP, Permission.WRITE, Permission.MANAGE


async def everything(bench: Bench, where: RootConfig, **options: str) -> list[Entry]:
    return [entry async for page in bench.node.scan(where, **options) for entry in page]


async def keys(bench: Bench, where: RootConfig, **options: str) -> list[str]:
    return [entry.key for entry in await everything(bench, where, **options)]


async def in_time(ready: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not ready():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------------------------ access


async def test_a_key_opens_what_its_person_was_granted_and_nothing_else(bench: Bench) -> None:
    bucket = await bench.bucket()
    for key in ("read/a", "write/a", "drop/a", "shut/a", "readx/a"):
        await bench.put(bucket, key)
    _, credential = await bench.person(grant(bucket, "read/"), grant(bucket, "write/", WRITE), grant(bucket, "drop/", DROP))

    async def answers(method: str, key: str, query: Sequence[tuple[str, str]] = ()) -> int:
        return await bench.status(credential, method, f"/{bucket}/{key}", query, b"x" if method == "PUT" else b"")

    where = ("read", "write", "drop", "shut", "readx")
    assert [await answers("GET", f"{one}/a") for one in where] == [200, 200, 403, 403, 403]
    assert [await answers("PUT", f"{one}/b") for one in where] == [403, 200, 200, 403, 403]
    assert [await answers("DELETE", f"{one}/b") for one in where[:3]] == [403, 204, 403]

    async def lists(prefix: str) -> int:
        return await bench.status(credential, "GET", f"/{bucket}", [("list-type", "2"), ("prefix", prefix)])

    assert [await lists(prefix) for prefix in ("read/", "read/a", "write/", "drop/", "shut/", "read", "")] == [
        *(200, 200, 200),
        *(403, 403, 403, 403),
    ]


async def test_a_workspace_with_a_bucket_of_its_own_is_open_in_all_of_it(bench: Bench) -> None:
    mine, other = await bench.bucket(), await bench.bucket()
    await bench.put(mine, "a")
    await bench.put(other, "a")
    _, credential = await bench.person(grant(mine, "", MANAGE))
    assert await bench.status(credential, "GET", f"/{mine}", [("list-type", "2")]) == 200
    assert await bench.status(credential, "HEAD", f"/{mine}") == 200
    assert await bench.status(credential, "PUT", f"/{mine}/b", (), b"x") == 200
    assert await bench.status(credential, "GET", f"/{other}/a") == 403
    assert await bench.status(credential, "GET", f"/{other}", [("list-type", "2")]) == 403


async def test_after_a_change_returned_no_key_that_is_out_opens_what_was_taken_away(bench: Bench) -> None:
    bucket = await bench.bucket()
    await bench.put(bucket, "ws/a")
    holder, credential = await bench.person(grant(bucket, "ws/"))
    wrong: list[str] = []
    for _ in range(30):
        await bench.node.set_access(holder, [])
        if await bench.status(credential, "GET", f"/{bucket}/ws/a") != 403:
            wrong.append("passed after it was taken away")
        await bench.node.set_access(holder, [grant(bucket, "ws/")])
        if await bench.status(credential, "GET", f"/{bucket}/ws/a") != 200:
            wrong.append("refused after it was given")
    assert wrong == []


async def test_what_stays_granted_is_never_refused_while_other_things_change(bench: Bench) -> None:
    bucket = await bench.bucket()
    await bench.put(bucket, "kept/a")
    kept = grant(bucket, "kept/")
    holder, credential = await bench.person(kept)
    over = asyncio.Event()
    answers: list[int] = []

    async def hammer() -> None:
        while not over.is_set():
            answers.append(await bench.status(credential, "GET", f"/{bucket}/kept/a"))

    hammering = [asyncio.create_task(hammer()) for _ in range(3)]
    async with asyncio.timeout(30):
        for number in itertools.count():
            # from one policy to three and back
            more = [grant(bucket, f"w{n:03}/", WRITE) for n in range(400 if number % 2 else 3)]
            await bench.node.set_access(holder, [kept, *more])
            if number >= 20 and len(answers) > 50:
                break
    over.set()
    await asyncio.gather(*hammering)
    assert set(answers) == {200}


async def test_many_grants_of_one_person_all_hold_and_all_go(bench: Bench) -> None:
    bucket = await bench.bucket()
    places = [f"p{n:03}/" for n in range(330)]
    for place in (places[0], places[170], places[329]):
        await bench.put(bucket, f"{place}a")
    holder, credential = await bench.person(*(grant(bucket, place) for place in places))

    async def opens() -> list[int]:
        return [await bench.status(credential, "GET", f"/{bucket}/{place}a") for place in (places[0], places[170], places[329])]

    assert await opens() == [200, 200, 200]
    assert await bench.node.get_access(holder) == bench.node.fingerprint([grant(bucket, place) for place in places])
    fewer = [grant(bucket, place) for place in places if place != places[170]]
    await bench.node.set_access(holder, fewer)
    assert await opens() == [200, 403, 200]
    assert await bench.node.get_access(holder) == bench.node.fingerprint(fewer)
    await bench.node.set_access(holder, [grant(bucket, places[329])])
    assert await opens() == [403, 403, 200]
    await bench.node.set_access(holder, [])
    assert await opens() == [403, 403, 403]
    assert await bench.node.get_access(holder) == bench.node.fingerprint([])


async def test_what_everyone_has_counts_for_each_person_and_changes_for_all_at_once(bench: Bench) -> None:
    bucket = await bench.bucket()
    await bench.put(bucket, "public/a")
    await bench.put(bucket, "later/a")
    everyone = await bench.everyone(grant(bucket, "public/"))
    _, with_nothing_else = await bench.person(shared=(everyone,))
    other, without = await bench.person()
    assert await bench.status(with_nothing_else, "GET", f"/{bucket}/public/a") == 200
    assert await bench.status(without, "GET", f"/{bucket}/public/a") == 403
    await bench.node.set_shared(other, [everyone])
    assert await bench.status(without, "GET", f"/{bucket}/public/a") == 200
    await bench.node.set_access(everyone, [grant(bucket, "later/")])
    for credential in (with_nothing_else, without):
        assert await bench.status(credential, "GET", f"/{bucket}/public/a") == 403
        assert await bench.status(credential, "GET", f"/{bucket}/later/a") == 200
    await bench.node.set_shared(other, [])
    assert await bench.status(without, "GET", f"/{bucket}/later/a") == 403
    await bench.node.remove(everyone)
    assert await bench.status(with_nothing_else, "GET", f"/{bucket}/later/a") == 403
    assert await bench.node.get_access(everyone) is None


async def test_shared_access_may_grow_past_one_policy_while_persons_hold_it(bench: Bench) -> None:
    bucket = await bench.bucket()
    await bench.put(bucket, "p000/a")
    await bench.put(bucket, "p299/a")
    everyone = await bench.everyone(grant(bucket, "p000/"))
    holder, credential = await bench.person(grant(bucket, "own/"), shared=(everyone,))
    await bench.node.set_access(everyone, [grant(bucket, f"p{n:03}/") for n in range(300)])
    assert await bench.status(credential, "GET", f"/{bucket}/p000/a") == 200
    assert await bench.status(credential, "GET", f"/{bucket}/p299/a") == 200
    await bench.node.set_access(holder, [grant(bucket, f"q{n:03}/") for n in range(200)])
    assert await bench.status(credential, "GET", f"/{bucket}/p299/a") == 200
    await bench.node.set_access(everyone, [grant(bucket, "p000/")])
    assert await bench.status(credential, "GET", f"/{bucket}/p000/a") == 200
    assert await bench.status(credential, "GET", f"/{bucket}/p299/a") == 403


async def test_a_removed_person_s_keys_are_dead_and_removing_again_is_fine(bench: Bench) -> None:
    bucket = await bench.bucket()
    await bench.put(bucket, "a")
    holder, credential = await bench.person(grant(bucket))
    assert await bench.status(credential, "GET", f"/{bucket}/a") == 200
    await bench.node.remove(holder)
    assert await bench.status(credential, "GET", f"/{bucket}/a") == 403
    assert await bench.node.get_access(holder) is None
    await bench.node.remove(holder)
    with pytest.raises(StorageRefused):
        await bench.node.mint(holder, life_s=900, narrowing=None)
    with pytest.raises(StorageRefused, match="does not know holder"):
        await bench.node.set_access(holder, [])


async def test_the_fingerprint_tells_what_the_server_has(bench: Bench) -> None:
    bucket = await bench.bucket()
    one, two = [grant(bucket, "a/")], [grant(bucket, "a/"), grant(bucket, "b/", WRITE)]
    holder, _ = await bench.person(*one)
    assert await bench.node.get_access(holder) == bench.node.fingerprint(one)
    assert bench.node.fingerprint(one) != bench.node.fingerprint(two)
    await bench.node.set_access(holder, two)
    assert await bench.node.get_access(holder) == bench.node.fingerprint(two[::-1])
    everyone = await bench.everyone(*two)
    assert await bench.node.get_access(everyone) == bench.node.fingerprint(two)
    assert await bench.node.get_access(Holder(HolderKind.PERSON, os.urandom(16).hex())) is None


async def test_a_narrowed_key_does_less_than_its_person(bench: Bench) -> None:
    bucket = await bench.bucket()
    for key in ("a/x", "b/x"):
        await bench.put(bucket, key)
    holder, _ = await bench.person(grant(bucket, "a/", WRITE), grant(bucket, "b/"))

    async def narrowed(narrowing: Narrowing) -> list[int]:
        key = await bench.node.mint(holder, life_s=900, narrowing=narrowing)
        asked = [("GET", "a/x", b""), ("PUT", "a/y", b"x"), ("GET", "b/x", b""), ("PUT", "b/y", b"x")]
        return [await bench.status(key, method, f"/{bucket}/{path}", (), body) for method, path, body in asked]

    assert await narrowed(Narrowing()) == [200, 200, 200, 403]
    assert await narrowed(Narrowing(read_only=True)) == [200, 403, 200, 403]
    assert await narrowed(Narrowing(((bucket, "a/"),))) == [200, 200, 403, 403]
    assert await narrowed(Narrowing(((bucket, "b/"),), read_only=True)) == [403, 403, 200, 403]
    assert await narrowed(Narrowing((("never-granted", ""),))) == [403, 403, 403, 403]


async def test_a_narrowed_key_obeys_a_later_change_as_well(bench: Bench) -> None:
    bucket = await bench.bucket()
    await bench.put(bucket, "a/x")
    holder, _ = await bench.person(grant(bucket, "a/"))
    key = await bench.node.mint(holder, life_s=900, narrowing=Narrowing(((bucket, "a/"),)))
    assert await bench.status(key, "GET", f"/{bucket}/a/x") == 200
    await bench.node.set_access(holder, [])
    assert await bench.status(key, "GET", f"/{bucket}/a/x") == 403


async def test_a_key_lives_as_long_as_it_was_asked_to(bench: Bench) -> None:
    holder, _ = await bench.person()
    before = bench.connection.clock() // 1_000_000
    key = await bench.node.mint(holder, life_s=3600, narrowing=None)
    assert before + 3590 <= key.expires <= before + 3620
    assert key.secret_key not in repr(key)
    with pytest.raises(BadLifetime, match="899 seconds"):
        await bench.node.mint(holder, life_s=899, narrowing=None)


async def test_a_place_that_may_not_stand_in_a_policy_changes_nothing(bench: Bench) -> None:
    bucket = await bench.bucket()
    holder, _ = await bench.person(grant(bucket, "a/"))
    for prefix in ("*", "a", "a/*/", "../"):
        with pytest.raises(BadName):
            await bench.node.set_access(holder, [Grant(1, bucket, prefix, READ)])
    assert await bench.node.get_access(holder) == bench.node.fingerprint([grant(bucket, "a/")])


@pytest.mark.parametrize("permission", list(Permission))
async def test_an_attempt_tells_allowed_from_refused_and_changes_nothing(bench: Bench, permission: Permission) -> None:
    bucket = await bench.bucket()
    await bench.put(bucket, "ws/a")
    await bench.put(bucket, "empty/", b"")
    before = await everything(bench, root(bucket))
    holder, credential = await bench.person(grant(bucket, "ws/", permission))

    async def tried(permission: Permission, sample: str | None) -> int:
        answered = await bench.node.attempt(credential, permission, Place(bucket, "ws/"), sample)
        assert answered.what
        assert abs(answered.at - bench.connection.clock()) < 5_000_000
        return answered.status

    for sample in (None, "ws/a"):
        assert await tried(permission, sample) in {200, 204, 404}
        assert (await tried(READ, sample) == 403) == (not permission.reads)
        assert (await tried(WRITE, sample) == 403) == (permission in {READ, Permission.TIDY})
        assert (await tried(Permission.TIDY, sample) == 403) == (permission is READ)
    await bench.node.set_access(holder, [])
    for sample in (None, "ws/a"):
        assert await tried(permission, sample) == 403
    assert await everything(bench, root(bucket)) == before


# ------------------------------------------------------------------------------------------------------ places


async def test_a_root_is_itself_until_its_bucket_is_made_anew(bench: Bench) -> None:
    bucket = await bench.bucket()
    identity = await bench.node.check_root(root(bucket))
    await bench.put(bucket, "a/b")
    assert await bench.node.check_root(root(bucket)) == identity
    part = await bench.node.check_root(root(bucket, "a/"))
    await bench.put(bucket, "a/c")
    assert await bench.node.check_root(root(bucket, "a/")) == part
    for key in ("a/b", "a/c"):
        await bench.s3.delete(bucket, key)
    await bench.drop_bucket(bucket)
    with pytest.raises(RootMissing, match=bucket):
        await bench.node.check_root(root(bucket))
    await bench.bucket(bucket)
    assert await bench.node.check_root(root(bucket)) != identity


async def test_a_root_of_many_buckets_stays_itself_while_they_come_and_go(bench: Bench) -> None:
    bucket = await bench.bucket()
    where = root(bucket, layout=Layout.BUCKET)
    if not bench.can.buckets:
        await _buckets_are_refused(bench, where)
        return
    identity = await bench.node.check_root(where)
    await bench.node.make_bucket(f"{bucket}--alice--a")
    await bench.node.make_bucket(f"{bucket}--alice--a")
    assert await bench.node.check_root(where) == identity


async def _buckets_are_refused(bench: Bench, where: RootConfig) -> None:
    with pytest.raises(StorageRefused, match="makes no buckets") as refused:
        await bench.node.make_bucket(f"{where.bucket}--alice--a")
    assert "prefix layout" in refused.value.todo
    with pytest.raises(StorageRefused, match="layout"):
        await bench.node.check_root(where)


async def test_a_bucket_whose_name_is_none_is_not_made(bench: Bench) -> None:
    with pytest.raises(BadName):
        await bench.node.make_bucket("../etc")


# ------------------------------------------------------------------------------------------------------ index

ODD = [
    "a",
    "a-b",
    "a.b/c",
    "a0/b",
    "ab/c",
    "b/c/d",
    "b/c-d",
    "b/c.d",
    "name with spaces",
    "plus+sign",
    "percent%41",
    "percent%2F",
    "amp&<tag>\"quote'",
    "ünïcödé/日本",
    "emoji😀",
    "nfc\u00e9",
    "nfde\u0301",
    "tab\there",
    "tilde~",
    "UPPER/lower",
    "x=cmd()",
    "trailing ",
    "folder/",
    "q?query=1#frag",
    "k" * 200 + "/" + "l" * 200,
]


async def test_a_scan_returns_every_key_as_it_is_in_order_with_its_size(bench: Bench) -> None:
    bucket = await bench.bucket()
    odd = [key for key in ODD if bench.can.folders_are_keys or not key.endswith("/")]
    for number, key in enumerate(odd):
        await bench.put(bucket, key, b"x" * number)
    found = await everything(bench, root(bucket))
    assert [entry.key for entry in found] == sorted(odd, key=str.encode)
    assert {entry.key: entry.size for entry in found} == {key: number for number, key in enumerate(odd)}
    now = bench.connection.clock() * 1000
    assert all(abs(entry.mtime - now) < 60_000_000_000 for entry in found)


async def test_a_look_finds_what_a_scan_finds_to_the_last_digit(bench: Bench) -> None:
    bucket = await bench.bucket()
    odd = [key for key in ODD if bench.can.folders_are_keys or not key.endswith("/")]
    for key in odd:
        await bench.put(bucket, f"in/{key}", key.encode())
    where = root(bucket, "in/")
    found = await everything(bench, where)
    assert len(found) == len(odd)
    for entry in found:
        assert await bench.node.look(where, entry.key) == entry


async def test_a_look_at_what_is_not_there_finds_nothing_and_no_neighbour(bench: Bench) -> None:
    bucket = await bench.bucket()
    await bench.put(bucket, "a/bc")
    where = root(bucket)
    for _ in range(2):  # the second time the node expects it to be gone
        for key in ("a", "a/", "a/b", "a/bcd", "z"):
            assert await bench.node.look(where, key) is None
    assert await bench.node.look(where, "a/bc") is not None
    await bench.s3.delete(bucket, "a/bc")
    assert await bench.node.look(where, "a/bc") is None
    assert await bench.node.look(where, "a/bc") is None
    with pytest.raises(RootMissing):
        await bench.node.look(root("no-such-bucket-here"), "a")
    with pytest.raises(RootMissing):
        await bench.node.look(root("no-such-bucket-here"), "a")


async def test_a_scan_goes_on_over_pages_and_from_anywhere(bench: Bench) -> None:
    bucket = await bench.bucket()
    names = [f"p{n % 3}/f{n:05}" for n in range(2300)]
    slots = asyncio.Semaphore(16)

    async def put(name: str) -> None:
        async with slots:
            await bench.put(bucket, f"base/{name}", b"")

    await asyncio.gather(*map(put, names))
    await bench.put(bucket, "base/", b"")
    await bench.put(bucket, "base-", b"")
    where, ordered = root(bucket, "base/"), sorted(names)
    pages = [page async for page in bench.node.scan(where)]
    assert len(pages) >= 2
    assert [entry.key for page in pages for entry in page] == ordered
    for start in ("p0/f00300", "p1", "p1/", "p1/f9", "zzz", ordered[-1]):
        assert await keys(bench, where, start_after=start) == [key for key in ordered if key > start]
        for prefix in ("p1/", "p1/f000", "none/"):
            expected = [key for key in ordered if key > start and key.startswith(prefix)]
            assert await keys(bench, where, start_after=start, prefix=prefix) == expected


async def test_several_buckets_scan_as_one_root_in_order(bench: Bench) -> None:
    base = await bench.bucket()
    if not bench.can.buckets:
        await _buckets_are_refused(bench, root(base, layout=Layout.BUCKET))
        return
    for part, key in (("alice--a", "x"), ("alice--a-b", "x"), ("alice--a.b", "y/z"), ("bob--a", "x"), ("bob--empty", "")):
        await bench.node.make_bucket(f"{base}--{part}")
        if key:
            await bench.put(f"{base}--{part}", key)
    await bench.bucket(f"{base}x--alice--other")
    where = root(base, layout=Layout.BUCKET)
    expected = ["alice--a-b/x", "alice--a.b/y/z", "alice--a/x", "bob--a/x"]
    assert await keys(bench, where) == expected == sorted(expected)
    assert await keys(bench, where, prefix="alice--a/") == ["alice--a/x"]
    assert await keys(bench, where, start_after="alice--a.b/y/z") == expected[2:]
    assert (await bench.node.look(where, "alice--a/x")) == (await everything(bench, where))[2]
    assert await bench.node.look(where, "alice--a/none") is None
    assert await bench.node.look(where, "carol--none/x") is None
    assert await bench.node.ranges(where) == ["alice--a-b/", "alice--a.b/", "alice--a/", "bob--a/", "bob--empty/"]


async def test_ranges_split_a_root_at_its_folders_in_order(bench: Bench) -> None:
    bucket = await bench.bucket()
    for key in ("top/one/a/1", "top/one/b-/2", "top/one/b/3", "top/one/file"):
        await bench.put(bucket, key)
    assert await bench.node.ranges(root(bucket, "top/")) == ["one/a/", "one/b-/", "one/b/"]
    assert await bench.node.ranges(root(bucket, "top/one/a/")) == [""]
    assert await bench.node.ranges(root(await bench.bucket())) == [""]


async def test_a_scan_of_what_is_not_there_says_so(bench: Bench) -> None:
    with pytest.raises(RootMissing, match="no-such-bucket-here"):
        await keys(bench, root("no-such-bucket-here"))


# ------------------------------------------------------------------------------------------------------ changes


class Heard:
    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self.calls: list[Call] = []

    def hinted(self) -> list[str]:
        return [hint.key for hint in self.hints]

    def operations(self, key: str) -> set[str]:
        return {call.operation for call in self.calls if call.key == key}


async def test_every_way_to_change_an_object_is_heard_of_with_its_person(bench: Bench) -> None:
    bucket = await bench.bucket()
    where = root(bucket, "in/")
    holder, credential = await bench.person(grant(bucket, "in/", WRITE))
    heard = Heard()
    watching = asyncio.create_task(bench.node.watch(lambda: [where], heard.hints.append, heard.calls.append))
    try:
        await _heard_of_a_first_change(bench, bucket, heard)
        steps: list[tuple[str, Callable[[Credential], Awaitable[object]]]] = [
            ("put ü+%.txt", lambda key: bench.ask(key, "PUT", f"/{bucket}/in/put ü+%.txt", (), b"x")),
            ("copy of.txt", lambda key: bench.ask(
                key, "PUT", f"/{bucket}/in/copy of.txt", x_amz_copy_source=f"/{bucket}/in/put%20%C3%BC%2B%25.txt"
            )),
            ("big.bin", lambda key: _multipart(bench, key, bucket, "in/big.bin")),
            ("copy of.txt", lambda key: bench.ask(key, "DELETE", f"/{bucket}/in/copy of.txt")),
        ]  # fmt: skip
        for key, act in steps:
            heard.hints.clear()
            await act(credential)
            await in_time(lambda key=key: Hint(7, key, actor=holder.name) in heard.hints)
            if bench.can.reads_reported:
                assert all(hint == Hint(7, hint.key, actor=holder.name) for hint in heard.hints), heard.hints
        heard.hints.clear()
        gone = ["put ü+%.txt", "big.bin"]
        await _delete_many(bench, credential, bucket, [f"in/{key}" for key in gone])
        await in_time(lambda: {Hint(7, key, actor=holder.name) for key in gone} <= set(heard.hints))
        await bench.ask(credential, "GET", f"/{bucket}/in/nothing")
        if bench.can.reads_reported:
            await in_time(lambda: bool(heard.operations("nothing")))
            assert [call.status for call in heard.calls if call.key == "nothing"] == [404]
        else:  # only what surely happened is a call: of a delete the gateway does not say whether it was refused
            assert {call.operation for call in heard.calls} == {"PutObject", "CopyObject", "CompleteMultipartUpload"}
            assert {call.status for call in heard.calls} == {200}
        assert {call.holder for call in heard.calls} == {holder.name}
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _heard_of_a_first_change(bench: Bench, bucket: str, heard: Heard) -> None:
    """Write until it is heard of: from then on the node listens."""
    async with asyncio.timeout(10):
        while not heard.hints:
            await bench.put(bucket, "in/first")
            await asyncio.sleep(0.02)


async def _multipart(bench: Bench, key: Credential, bucket: str, name: str) -> None:
    begun = await bench.ask(key, "POST", f"/{bucket}/{name}", [("uploads", "")])
    upload = begun.body.decode().partition("<UploadId>")[2].partition("<")[0]
    part = await bench.ask(key, "PUT", f"/{bucket}/{name}", [("partNumber", "1"), ("uploadId", upload)], b"part")
    inside = f"<Part><PartNumber>1</PartNumber><ETag>{part.headers['ETag']}</ETag></Part>"
    whole = f"<CompleteMultipartUpload>{inside}</CompleteMultipartUpload>"
    done = await bench.ask(key, "POST", f"/{bucket}/{name}", [("uploadId", upload)], whole.encode())
    assert done.ok


async def _delete_many(bench: Bench, key: Credential, bucket: str, names: Sequence[str]) -> None:
    import base64  # noqa: PLC0415 - of this one request
    import hashlib  # noqa: PLC0415

    inside = "".join(f"<Object><Key>{name}</Key></Object>" for name in names)
    body = f"<Delete>{inside}</Delete>".encode()
    digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    assert (await bench.ask(key, "POST", f"/{bucket}", [("delete", "")], body, content_md5=digest)).ok


# ------------------------------------------------------------------------------------------------------ probing


async def test_a_probe_finds_what_wio_needs_and_leaves_nothing_behind(bench: Bench) -> None:
    before = await bench.s3.buckets()
    facts = await bench.node.probe()
    found = {line.capability: line.found for line in facts.probes}
    of_both = ("live-policies", "narrowed-keys")
    of_tokens = ("assume-role", "denies-service-accounts", "audit-webhook")
    of_accounts = ("throwaway-accounts", "denies-admin-calls", "denies-own-files", "write-events", "isolates-names")
    for needed in (*of_both, *(of_tokens if bench.can.tokens else of_accounts)):
        assert found[needed] is Finding.YES, needed
    assert facts.isolates_names in ({Finding.YES} if bench.can.names_apart else {Finding.YES, Finding.NO})
    if not bench.can.tokens:
        assert found["session-tokens"] is found["read-events"] is Finding.NO
    assert all(line.detail for line in facts.probes)
    assert await bench.s3.buckets() == before


async def test_a_server_that_is_gone_is_unreachable_in_every_call(bench: Bench) -> None:
    node = bench.node
    holder, credential = await bench.person()
    if isinstance(node, PosixNode):
        await _a_gateway_that_is_gone(node, holder, credential)
        return
    await node.close()
    try:
        node._connection.url, url = "http://127.0.0.1:1", node._connection.url
        await node.open()
        where = root("bucket")
        calls: list[Awaitable[object]] = [
            node.check_root(where),
            node.make_bucket("bucket"),
            node.create(holder, [], ()),
            node.set_access(holder, []),
            node.set_shared(holder, ()),
            node.get_access(holder),
            node.remove(holder),
            node.mint(holder, life_s=900, narrowing=None),
            node.attempt(credential, READ, Place("bucket", ""), None),
            keys(bench, where),
            node.ranges(where),
            node.look(where, "a"),
            node.watch(lambda: [where], lambda _: None, lambda _: None),
            node.probe(),
            node.leave(),
        ]
        for call in calls:
            with pytest.raises(StorageUnreachable, match="cannot be reached"):
                await call
    finally:
        node._connection.url = url


async def _a_gateway_that_is_gone(node: PosixNode, holder: Holder, credential: Credential) -> None:
    """What needs the gateway is unreachable. The tree is looked at without it, and what is taken away is taken away."""
    await node.gateway.stop()
    try:
        calls: list[Awaitable[object]] = [
            node.started(),
            node.create(Holder(HolderKind.PERSON, os.urandom(16).hex()), [], ()),
            node.mint(holder, life_s=900, narrowing=None),
            node.attempt(credential, READ, Place("bucket", ""), None),
            node.end_uploads([Place("bucket", "")], begun_before=1),
            node.remove_orphans([holder]),
            node.probe(),
        ]
        for call in calls:
            with pytest.raises(StorageUnreachable, match="cannot be reached"):
                await call
        await node.set_access(holder, [])
        assert await node.get_access(holder) == node.fingerprint([])
        await node.remove(holder)
    finally:
        await node.gateway.start()
