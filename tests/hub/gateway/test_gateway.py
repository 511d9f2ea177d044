"""Agents' connections over real sockets: who gets in, what ends a session, who waits for whom."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from protocol.errors import Conflict, Evicted, StorageRefused
from protocol.grants import SignedGrantSet, Subject, SubjectKind
from protocol.identity import new_key, public_bytes, public_key, verify_eviction
from protocol.messages import (
    BATCHES_OUT,
    MAX_FRAME,
    Ack,
    Change,
    Cursor,
    Done,
    Epochs,
    Events,
    Evict,
    Failed,
    Finding,
    GrantsRefused,
    Health,
    KeysOut,
    Mint,
    Minted,
    OutUntil,
    Progress,
    Report,
    Row,
    Scan,
    ScanState,
    SealedCredential,
    SetGrants,
)
from protocol.session import Opened, RefusedByHub
from protocol.wire import CLOSE_CODE, encode

Coded = Callable[[Awaitable[Any]], Awaitable[str]]
BOB = Subject(SubjectKind.PERSON, 5, "bob")
CREDENTIAL = SealedCredential(b"sealed", bytes(64), 1)


def mint(request: int, deadline_ms: int) -> Mint:
    return Mint(request, deadline_ms, BOB, 1, bytes(32), 900)


def scan(request: int, deadline_ms: int) -> Scan:
    return Scan(request, deadline_ms, 5)


def batch(number: int) -> Events:
    return Events(3, number, (Row(Change.PUT, 1, f"k{number}"),), bytes(32))


def done(root: int, state: ScanState = ScanState.DONE, objects: int = 0) -> Progress:
    return Progress(root, state, objects, 0, 1, 2)


REPORT = Report("1", "minio", "MinIO", ("http://127.0.0.1:9000",), "", Finding.YES, ())
IDLE = Health(1, 0, 0, False)


# ---------------------------------------------------------------------------------------------------- getting in


async def test_a_known_node_is_welcomed_with_the_cursor_and_is_online_until_it_leaves(hub: Any) -> None:
    key, node = hub.known()
    async with hub.dialled(key) as peer:
        opened = await peer.event()
        assert isinstance(opened, Opened)
        assert (opened.welcome.node, opened.welcome.name, opened.welcome.cursor) == (node, "lab3", Cursor(3, 7, bytes(32)))
        await peer.send(IDLE)
        await hub.services.until("health")
        assert hub.connections.online(node)
    assert await hub.services.until("seen") == node
    assert not hub.connections.online(node)


async def test_an_unknown_node_is_refused_with_the_reason(hub: Any) -> None:
    assert await hub.refused(new_key(secrets.token_bytes(32))) == "unknown-peer"


async def test_where_an_agent_comes_from_is_told_to_whoever_admits_it(hub: Any) -> None:
    key, _ = hub.known()
    async with hub.agent(key):
        assert await hub.services.until("admit") == "127.0.0.1"


async def test_versions_without_one_in_common_are_refused(hub: Any) -> None:
    key, _ = hub.known()
    async with hub.dialled(key, versions=(99,)) as peer:
        event = await peer.event()
        assert isinstance(event, RefusedByHub)
        assert event.problem.code == "version-mismatch"


async def test_a_fault_while_a_node_is_admitted_is_said_without_its_details(hub: Any) -> None:
    key, _ = hub.known()

    def fault(what: str) -> None:
        if what == "admit":
            raise RuntimeError("the password is 12345")

    hub.services.fault = fault
    async with hub.dialled(key) as peer:
        event = await peer.event()
        assert isinstance(event, RefusedByHub)
        assert event.problem.code == "internal"
        assert "12345" not in event.problem.message


async def test_a_handshake_that_takes_too_long_ends_and_leaves_nothing(new_hub: Any) -> None:
    async with new_hub(handshake_s=0.2) as hub:
        code, reason = await hub.ended()
        assert code == CLOSE_CODE
        assert reason.startswith("deadline-passed: ")
        assert len(hub.connections) == 0
        assert hub.gateway._unproved == 0


@pytest.mark.parametrize(
    "first", [b"", b"\x00", b"\xc1" * 50, secrets.token_bytes(1000), encode(Ack(Cursor(0, 0, bytes(32)))), "text"]
)
async def test_what_is_no_hello_ends_the_connection_with_a_code(hub: Any, first: bytes | str) -> None:
    code, reason = await hub.ended(first)
    assert (code, reason.partition(":")[0]) == (CLOSE_CODE, "bad-message")


async def test_a_proof_by_another_key_is_refused(hub: Any) -> None:
    key, _ = hub.known()
    async with hub.dialled(key) as peer:
        peer.session._key = new_key(secrets.token_bytes(32))
        event = await peer.event()
        assert isinstance(event, RefusedByHub)
        assert event.problem.code == "bad-signature"


async def test_a_second_session_of_a_node_replaces_the_first_and_says_so(hub: Any, caplog: pytest.LogCaptureFixture) -> None:
    key, node = hub.known()
    async with hub.agent(key) as first, hub.agent(key) as second:
        code, reason = await first.closed()
        assert (code, reason.partition(":")[0]) == (CLOSE_CODE, Conflict.code)
        assert hub.connections.online(node)
        asked = asyncio.create_task(hub.connections.ask(node, scan, deadline_s=5))
        await second.send(Done((await second.message()).request))
        assert await asked == Done(1)
    assert hub.connections.replaced == 1
    assert "replaces the first" in caplog.text


async def test_a_node_that_was_evicted_while_away_is_told_so_signed(hub: Any) -> None:
    key, node = hub.known()
    hub.services.evicted[public_bytes(key)] = hub.services.known.pop(public_bytes(key))
    async with hub.dialled(key) as peer:
        assert isinstance(await peer.event(), Opened)
        evict = await peer.message()
        assert isinstance(evict, Evict)
        verify_eviction(public_key(public_bytes(hub.gateway.hub_key)), evict, node)
        assert not hub.connections.online(node)


# ---------------------------------------------------------------------------------------------------- what ends a session


async def test_frames_outside_the_protocol_end_the_session_with_a_code(hub: Any) -> None:
    key, node = hub.known()

    async def ends(spoil: Callable[[bytes], bytes | str]) -> str:
        async with hub.agent(key) as peer:
            waiting = asyncio.create_task(hub.connections.ask(node, scan, deadline_s=30))
            await peer.message()
            await peer.socket.send(spoil(peer.session.send(IDLE)))
            code, reason = await peer.closed()
            assert code == CLOSE_CODE
            with pytest.raises(Exception, match="not connected any more"):
                await waiting
            return str(reason.partition(":")[0])

    assert await ends(lambda frame: frame[:-1] + bytes([frame[-1] ^ 1])) == "bad-signature"
    assert await ends(lambda frame: bytes([frame[0] ^ 1]) + frame[1:]) == "bad-signature"
    assert await ends(lambda _: "text") == "bad-message"
    assert await ends(lambda _: b"short") == "bad-message"
    assert await ends(lambda frame: frame + bytes(MAX_FRAME)) == "bad-message"


async def test_a_frame_sent_twice_ends_the_session(hub: Any) -> None:
    key, _ = hub.known()
    async with hub.agent(key) as peer:
        frame = peer.session.send(IDLE)
        await peer.socket.send(frame)
        await peer.socket.send(frame)
        assert (await peer.closed())[1].startswith("bad-sequence")


async def test_an_agent_that_is_silent_is_taken_to_be_gone(new_hub: Any, coded: Coded) -> None:
    async with new_hub(silence_s=0.3) as hub:
        key, node = hub.known()
        async with hub.agent(key) as peer:
            assert await coded(hub.connections.ask(node, scan, deadline_s=30)) == "node-offline"
            assert (await peer.closed())[1].startswith("link-broken")


async def test_one_that_says_how_it_is_now_and_then_is_not(new_hub: Any) -> None:
    async with new_hub(silence_s=1.0) as hub:
        key, node = hub.known()
        async with hub.agent(key) as peer:
            start = asyncio.get_running_loop().time()
            while asyncio.get_running_loop().time() < start + 1.5:
                await peer.send(IDLE)
                await hub.services.until("health")
            assert hub.connections.online(node)


async def test_the_hub_can_end_a_connection_and_whoever_waits_learns_it(hub: Any, coded: Coded) -> None:
    key, node = hub.known()
    async with hub.agent(key) as peer:
        waiting = asyncio.create_task(hub.connections.ask(node, scan, deadline_s=30))
        await peer.message()
        await hub.connections.end(node, StorageRefused("the disk is on fire").problem)
        assert await coded(waiting) == "node-offline"
        assert await peer.closed() == (CLOSE_CODE, "storage-refused: the disk is on fire")
    await hub.connections.end(node, StorageRefused("again").problem)


async def test_an_eviction_reaches_the_agent_signed_before_the_end(hub: Any) -> None:
    key, node = hub.known()
    async with hub.agent(key) as peer:
        await hub.connections.end(node, Evicted("lab3 was removed").problem)
        assert not hub.connections.online(node)
        evict = await peer.message()
        verify_eviction(public_key(public_bytes(hub.gateway.hub_key)), evict, node)


# ---------------------------------------------------------------------------------------------------- asking


async def test_a_request_gets_its_own_answer_whatever_the_order(hub: Any) -> None:
    key, node = hub.known()
    async with hub.agent(key) as peer:
        asked = [asyncio.create_task(hub.connections.ask(node, mint, deadline_s=5)) for _ in range(5)]
        requests = [await peer.message() for _ in asked]
        for request in reversed(requests):
            credential = msgspec.structs.replace(CREDENTIAL, expires=request.request)
            await peer.send(Minted(request.request, credential))
        answers = await asyncio.gather(*asked)
        assert [answer.credential.expires for answer in answers] == [request.request for request in requests]
        assert [request.deadline_ms for request in requests] == [5000] * 5


async def test_nobody_waits_for_a_node_that_is_not_connected(hub: Any, coded: Coded) -> None:
    _, node = hub.known()
    assert await coded(hub.connections.ask(node, scan, deadline_s=30)) == "node-offline"


async def test_a_lost_connection_fails_everybody_who_waits_at_once(hub: Any, coded: Coded) -> None:
    key, node = hub.known()
    async with hub.agent(key) as peer:
        asked = [asyncio.create_task(hub.connections.ask(node, scan, deadline_s=60)) for _ in range(3)]
        await peer.message()
        peer.socket.transport.abort()
        assert [await coded(one) for one in asked] == ["node-offline"] * 3


async def test_an_answer_after_the_deadline_is_dropped_and_counted(hub: Any, coded: Coded) -> None:
    key, node = hub.known()
    async with hub.agent(key) as peer:
        assert await coded(hub.connections.ask(node, scan, deadline_s=0.05)) == "deadline-passed"
        await peer.send(Done((await peer.message()).request), Done(9999), IDLE)
        await hub.services.until("health")
        assert hub.connections.late == 2
    await hub.services.until("seen")
    assert hub.connections.late == 2


async def test_what_an_agent_could_not_do_is_raised_as_the_error_it_is(hub: Any) -> None:
    key, node = hub.known()
    async with hub.agent(key) as peer:
        asked = asyncio.create_task(hub.connections.ask(node, scan, deadline_s=5))
        await peer.send(Failed((await peer.message()).request, StorageRefused("MinIO said no.").problem))
        with pytest.raises(StorageRefused, match="MinIO said no"):
            await asked


async def test_refused_grants_are_an_answer_not_an_error(hub: Any) -> None:
    key, node = hub.known()

    def grants(request: int, deadline_ms: int) -> SetGrants:
        return SetGrants(request, deadline_ms, SignedGrantSet(b"", bytes(64)))

    async with hub.agent(key) as peer:
        asked = asyncio.create_task(hub.connections.ask(node, grants, deadline_s=5))
        refused = GrantsRefused((await peer.message()).request, BOB, 1, StorageRefused("no").problem)
        await peer.send(refused)
        assert await asked == refused


async def test_an_answer_of_the_wrong_kind_ends_the_session(hub: Any, coded: Coded) -> None:
    key, node = hub.known()
    async with hub.agent(key) as peer:
        asked = asyncio.create_task(hub.connections.ask(node, mint, deadline_s=30))
        await peer.send(Done((await peer.message()).request))
        assert await coded(asked) == "node-offline"
        assert (await peer.closed())[1].startswith("bad-message")


async def test_what_one_stops_waiting_for_leaves_nothing_behind(hub: Any) -> None:
    key, node = hub.known()
    async with hub.agent(key) as peer:
        asked = asyncio.create_task(hub.connections.ask(node, scan, deadline_s=30))
        await peer.message()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert hub.connections._live[node]._asked == {}


# ---------------------------------------------------------------------------------------------------- the journal


async def test_batches_are_taken_in_one_after_the_other_and_acknowledged(hub: Any) -> None:
    key, _ = hub.known()
    async with hub.agent(key) as peer:
        for number in range(BATCHES_OUT):
            await peer.send(batch(number))
        assert [(await peer.message()).cursor.sequence for _ in range(BATCHES_OUT)] == list(range(1, BATCHES_OUT + 1))
        assert [one.first for one in hub.services.applied] == list(range(BATCHES_OUT))


async def test_answers_wait_behind_no_batch(hub: Any) -> None:
    key, node = hub.known()
    hub.services.gate.clear()
    async with hub.agent(key) as peer:
        for number in range(BATCHES_OUT):
            await peer.send(batch(number))
        asked = asyncio.create_task(hub.connections.ask(node, mint, deadline_s=5))
        await peer.send(Minted((await peer.message()).request, CREDENTIAL))
        assert isinstance(await asked, Minted)
        assert hub.services.applied == []
        hub.services.gate.set()
        assert isinstance(await peer.message(), Ack)


async def test_an_agent_that_does_not_wait_for_acknowledgements_is_cut_off(hub: Any) -> None:
    key, _ = hub.known()
    hub.services.gate.clear()
    async with hub.agent(key) as peer:
        for number in range(BATCHES_OUT + 1):
            await peer.send(batch(number))
        code, reason = await peer.closed()
        assert (code, reason.partition(":")[0]) == (CLOSE_CODE, "bad-message")


async def test_the_end_of_a_scan_stays_in_its_place_among_the_rows(hub: Any) -> None:
    key, _ = hub.known()
    hub.services.gate.clear()
    async with hub.agent(key) as peer:
        await peer.send(done(1, ScanState.RUNNING, 0))
        await asyncio.wait_for(hub.services.held.wait(), 10)
        for objects in range(1, 200):
            await peer.send(done(1, ScanState.RUNNING, objects))
        await peer.send(batch(0), done(1), batch(1), done(2, ScanState.RUNNING, 5), done(2, ScanState.RUNNING, 6), IDLE)
        await hub.services.until("health")
        hub.services.gate.set()
        assert (await hub.services.until("progress"))[1].objects == 0
        came = [await hub.services.came.get() for _ in range(4)]
        assert [what for what, _ in came] == ["events", "progress", "events", "progress"]
        assert came[1][1][1] == done(1)
        assert came[3][1][1] == done(2, ScanState.RUNNING, 6)


async def test_rows_the_database_cannot_take_now_are_tried_again_not_lost(hub: Any, caplog: pytest.LogCaptureFixture) -> None:
    key, _ = hub.known()
    failures = iter([True, True])

    def fault(what: str) -> None:
        if what == "events" and next(failures, False):
            raise RuntimeError("disk full")

    hub.services.fault = fault
    async with hub.agent(key) as peer:
        await peer.send(batch(0))
        assert (await peer.message()).cursor.sequence == 1
    assert len(hub.services.applied) == 1
    assert "cannot be taken in now" in caplog.text


# ---------------------------------------------------------------------------------------------------- what is wanted


async def test_once_an_agent_has_said_what_it_enforces_it_is_configured_and_settled(hub: Any) -> None:
    key, node = hub.known()
    async with hub.agent(key) as peer:
        await peer.send(Epochs((), last=False), REPORT, IDLE, Epochs(()))
        seen = [await hub.services.came.get() for _ in range(6)]
        kinds = [what for what, _ in seen]
        assert sorted(kinds) == ["admit", "configure", "health", "report", "settle", "settle"]
        parts = [value[1].last for what, value in seen if what == "settle"]
        assert parts == [False, True]
        assert hub.connections.health(node) == IDLE
        assert hub.connections.fresh_at(node) is not None


async def test_whose_keys_are_out_is_noted_again_until_it_is(hub: Any) -> None:
    key, node = hub.known()
    tries = 0

    def fault(what: str) -> None:
        nonlocal tries
        tries += what == "keys"
        if what == "keys" and tries < 3:
            raise RuntimeError("database is locked")

    hub.services.fault = fault
    told = KeysOut((OutUntil(Subject(SubjectKind.PERSON, 2, "bob"), 1_800_000_000),))
    async with hub.agent(key) as peer:
        await peer.send(told, Epochs(()))
        assert [await hub.services.until("keys") for _ in range(3)] == [(node, told)] * 3
        await peer.send(KeysOut(()))
        assert await hub.services.until("keys") == (node, KeysOut(()))


async def test_a_node_with_rows_left_to_send_is_not_fresh(hub: Any) -> None:
    key, node = hub.known()
    async with hub.agent(key) as peer:
        await peer.send(msgspec.structs.replace(IDLE, pending_rows=3))
        await hub.services.until("health")
        assert hub.connections.fresh_at(node) is None


async def test_roots_that_could_not_be_told_are_told_again(hub: Any) -> None:
    key, _ = hub.known()
    failures = iter([True, True])

    def fault(what: str) -> None:
        if what == "configure" and next(failures, False):
            raise StorageRefused("not now")

    hub.services.fault = fault
    async with hub.agent(key) as peer:
        await peer.send(Epochs(()))
        for _ in range(3):
            await hub.services.until("configure")


async def test_after_a_report_of_another_ceiling_the_node_is_asked_again_about_what_it_has(hub: Any) -> None:
    key, node = hub.known()
    async with hub.agent(key) as peer:
        await peer.send(REPORT, msgspec.structs.replace(REPORT, ceiling=("another ceiling",)))
        assert await hub.services.until("recheck") == node


async def test_news_that_cannot_be_kept_do_not_end_the_session(hub: Any) -> None:
    key, node = hub.known()

    def fault(what: str) -> None:
        if what in {"health", "report", "seen"}:
            raise RuntimeError("database is locked")

    hub.services.fault = fault
    async with hub.agent(key) as peer:
        await peer.send(REPORT, IDLE, batch(0))
        assert isinstance(await peer.message(), Ack)
        assert hub.connections.online(node)
