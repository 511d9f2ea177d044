"""What MinIO's audit entries say, as recorded from a server; and what comes that is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import aiohttp
import pytest

from protocol.errors import StorageUnreachable
from protocol.messages import IndexLevel, RootConfig
from protocol.names import Layout
from spoke_agent.storage import receiver as receiver_module
from spoke_agent.storage.node import Call, Hint
from spoke_agent.storage.placing import Naming
from spoke_agent.storage.receiver import Entry, Reader, Receiver

NOW = 1_795_000_000_000_000
PERSON = "wio--lab3--0123456789abcdef"
LAB = RootConfig(1, "lab", "lab", "", Layout.PREFIX, IndexLevel.METADATA)
DEEP = RootConfig(2, "deep", "lab", "deep/er/", Layout.PREFIX, IndexLevel.METADATA)
PRIVATE = RootConfig(3, "private", "priv", "", Layout.BUCKET, IndexLevel.METADATA)


class Heard:
    def __init__(self, roots: Sequence[RootConfig] = (LAB, DEEP, PRIVATE)) -> None:
        self.hints: list[Hint] = []
        self.calls: list[Call] = []
        self.reader = Reader(lambda: roots, self.hints.append, self.calls.append, Naming("lab3").holder, lambda: NOW)


def entry(name: str, bucket: str = "lab", key: str = "a.txt", status: int = 200, **more: object) -> bytes:
    api = {
        "name": name,
        "bucket": bucket,
        "object": key,
        "status": "OK",
        "statusCode": status,
        "rx": 2,
        "timeToResponse": "1ns",
    }
    api |= {"objects": more.pop("objects")} if "objects" in more else {}
    whole = {
        "version": "1",
        "time": "2026-11-24T22:14:29.670145695Z",
        "trigger": "incoming",
        "api": api,
        "requestPath": f"/{bucket}/{key}",
        "requestHeader": {"Authorization": "AWS4-HMAC-SHA256 Credential=X, Signature=canary-signature"},
        "accessKey": "CX0FPHS3W4F45LSD53O1",
        "parentUser": PERSON,
    }
    return json.dumps(whole | more).encode()


@pytest.mark.parametrize(
    "name",
    [
        "PutObject",
        "CompleteMultipartUpload",
        "DeleteObject",
        "PutObjectTagging",
        "PutObjectRetention",
        "ILMExpiry",
        "SomethingNew",
    ],
)
def test_a_call_that_changed_an_object_is_a_hint_with_its_person_and_a_call(name: str) -> None:
    heard = Heard()
    heard.reader.read(entry(name))
    assert heard.hints == [Hint(1, "a.txt", actor="0123456789abcdef")]
    assert heard.calls == [Call(1, "a.txt", "0123456789abcdef", name, 200, 1_795_558_469_670_145, "CX0FPHS3W4F45LSD53O1")]


@pytest.mark.parametrize(
    "name", ["GetObject", "HeadObject", "GetObjectTagging", "NewMultipartUpload", "PutObjectPart", "AbortMultipartUpload"]
)
def test_a_call_that_changed_nothing_is_a_call_and_no_hint(name: str) -> None:
    heard = Heard()
    heard.reader.read(entry(name))
    assert heard.hints == []
    assert [call.operation for call in heard.calls] == [name]


def test_a_refused_write_is_a_call_with_its_status_and_no_hint() -> None:
    heard = Heard()
    heard.reader.read(entry("PutObject", status=403))
    assert heard.hints == []
    assert heard.calls[0].status == 403


def test_a_copy_changed_its_target_not_its_source() -> None:
    heard = Heard()
    heard.reader.read(entry("CopyObject", key="source.txt", requestPath="/lab/copy of.txt"))
    assert [hint.key for hint in heard.hints] == ["copy of.txt"]


def test_a_delete_of_many_names_them_all() -> None:
    heard = Heard()
    objects = [{"objectName": "a"}, {"objectName": "deep/er/b", "versionId": "v"}]
    heard.reader.read(entry("DeleteMultipleObjects", key="", objects=objects))
    assert [(hint.root, hint.key) for hint in heard.hints] == [(1, "a"), (1, "deep/er/b"), (2, "b")]


def test_every_root_that_holds_the_key_hears_of_it_in_its_own_words() -> None:
    heard = Heard()
    heard.reader.read(entry("PutObject", "priv--alice--scans", "x/y"))
    heard.reader.read(entry("PutObject", "other", "x"))
    heard.reader.read(entry("PutObject", "lab", "deep/er/"))
    assert [(hint.root, hint.key) for hint in heard.hints] == [(3, "alice--scans/x/y"), (1, "deep/er/")]


def test_a_purged_folder_is_looked_at_as_a_whole() -> None:
    heard = Heard()
    heard.reader.read(entry("DeleteObject", key="scans", requestHeader={"X-Minio-Force-Delete": "true"}))
    assert Hint(1, "scans/", folder=True) in heard.hints


@pytest.mark.parametrize("name", ["DeleteBucket", "PutObjectExtract"])
def test_a_call_that_changes_more_than_it_names_marks_the_whole_bucket(name: str) -> None:
    heard = Heard()
    heard.reader.read(entry(name, "priv--alice--scans", ""))
    heard.reader.read(entry(name, "lab", ""))
    assert heard.hints == [
        Hint(3, "alice--scans/", folder=True),
        Hint(1, "", folder=True),
        Hint(2, "", folder=True),
    ]


def test_the_owner_s_own_changes_are_hints_of_nobody_and_no_calls() -> None:
    heard = Heard()
    heard.reader.read(entry("PutObject", parentUser="", accessKey="owner"))
    heard.reader.read(entry("GetObject", parentUser="", accessKey="owner"))
    heard.reader.read(entry("PutObject", parentUser="wio--lab30--0123456789abcdef"))
    assert heard.hints == [Hint(1, "a.txt"), Hint(1, "a.txt")]
    assert heard.calls == []


def test_a_batch_holds_an_entry_in_each_line() -> None:
    heard = Heard()
    assert heard.reader.read(entry("PutObject", key="a") + b"\n" + entry("PutObject", key="b") + b"\n\n") == 2
    assert [hint.key for hint in heard.hints] == ["a", "b"]


@pytest.mark.parametrize(
    "line",
    [b"nonsense", b"[]", b"{", b'{"api":5}', b'{"api":{"statusCode":"x"}}', b"\xff\xfe", b'{"api":{"object":"\\ud800"}}'],
)
def test_what_is_no_audit_entry_is_counted_and_the_rest_still_heard(line: bytes) -> None:
    heard = Heard()
    heard.reader.read(line + b"\n" + entry("PutObject"))
    assert heard.reader.unreadable == 1
    assert len(heard.hints) == 1


@pytest.mark.parametrize("time", ["", "yesterday", "2026-11-24T22:14:29", "0001-01-01T00:00:00Z"])
def test_a_time_that_cannot_be_is_replaced_by_the_agent_s_own(time: str) -> None:
    heard = Heard()
    heard.reader.read(entry("PutObject", time=time))
    assert heard.calls[0].at == NOW


def test_entries_do_not_show_the_signatures_in_them() -> None:
    assert "canary" not in repr(Entry(headers={"Authorization": "canary"}))


async def post(port: int, body: bytes, **headers: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/audit", data=body, headers=headers) as it,
    ):
        return it.status


async def test_only_who_shows_the_token_is_heard() -> None:
    heard = Heard()
    receiver = Receiver(heard.reader, "right")
    port = await receiver.start("127.0.0.1", 0)
    try:
        for wrong in ("", "wrong", "Bearer wrong", "right\u00e9"):
            assert await post(port, entry("PutObject"), Authorization=wrong) == 403
        assert await post(port, entry("PutObject", key="raw"), Authorization="right") == 200
        assert await post(port, entry("PutObject", key="bearer"), Authorization="Bearer right") == 200
        assert receiver.refused == 4
    finally:
        await receiver.stop()
    receiver.parse_some()
    assert [hint.key for hint in heard.hints] == ["raw", "bearer"]


async def test_a_delivery_that_is_too_large_is_taken_and_everything_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver_module, "MAX_BODY", 1000)
    heard = Heard()
    receiver = Receiver(heard.reader, "right")
    port = await receiver.start("127.0.0.1", 0)
    try:
        assert await post(port, b"x" * 2000, Authorization="right") == 200
    finally:
        await receiver.stop()
    assert heard.hints == [Hint(root, "", folder=True) for root in (1, 2, 3)]


async def test_a_flood_is_dropped_within_bounds_and_everything_looked_at_once_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = Heard((LAB,))
    receiver = Receiver(heard.reader, "right")
    port = await receiver.start("127.0.0.1", 0)
    try:
        monkeypatch.setattr(receiver_module, "MAX_WAITING", 10)
        assert await post(port, entry("PutObject"), Authorization="right") == 200
        async with asyncio.timeout(5):
            while len(heard.hints) < 2:  # noqa: ASYNC110 - the receiver's own task parses in its own time
                await asyncio.sleep(0)
    finally:
        await receiver.stop()
    assert heard.hints == [Hint(1, "", folder=True)] * 2
    assert receiver.lost == 0


async def test_an_address_that_is_taken_is_said_to_be() -> None:
    first, second = Receiver(Heard().reader, "a"), Receiver(Heard().reader, "b")
    port = await first.start("127.0.0.1", 0)
    try:
        with pytest.raises(StorageUnreachable, match=f"cannot listen on 127.0.0.1:{port}"):
            await second.start("127.0.0.1", port)
    finally:
        await first.stop()


@pytest.mark.parametrize(
    ("more", "hints"),
    [
        ({"tags": {"PutObject": "name=in/a, b.txt,pool=1,set=12"}}, [Hint(1, "in/a, b.txt", actor="0123456789abcdef")]),
        (
            {"responseHeader": {"Location": "http://127.0.0.1:9000/lab/in/a%20%2B.txt"}},
            [Hint(1, "in/a +.txt", actor="0123456789abcdef")],
        ),
        ({"responseHeader": {"Location": "http://elsewhere/other/a"}}, [Hint(1, "", folder=True), Hint(2, "", folder=True)]),
        ({"tags": {"PutObject": 7}}, [Hint(1, "", folder=True), Hint(2, "", folder=True)]),
        ({}, [Hint(1, "", folder=True), Hint(2, "", folder=True)]),
    ],
)
def test_an_upload_with_a_form_names_no_object_and_is_found_all_the_same(more: dict[str, object], hints: list[Hint]) -> None:
    heard = Heard()
    heard.reader.read(entry("PostPolicyBucket", key="", status=204, **more))
    assert heard.hints == hints


def test_where_a_form_sends_its_uploader_afterwards_names_no_object() -> None:
    heard = Heard()
    answer = {"responseHeader": {"Location": "http://127.0.0.1:9000/lab/not-this-one?key=a"}}
    heard.reader.read(entry("PostPolicyBucket", key="", status=303, **answer))
    assert heard.hints == [Hint(1, "", folder=True), Hint(2, "", folder=True)]
