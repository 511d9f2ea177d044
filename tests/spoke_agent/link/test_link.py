"""The link against a hub that is really there: sessions, requests, faults of hub and network."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.digest import EMPTY_RUN
from protocol.errors import Conflict, StorageUnreachable, UnknownPeer
from protocol.identity import public_bytes, sign_eviction
from protocol.messages import (
    Accesses,
    Ack,
    CheckRoot,
    Configure,
    Cursor,
    Done,
    Epochs,
    Events,
    Failed,
    GrantsApplied,
    Health,
    HubMessage,
    IndexLevel,
    KeysOut,
    Minted,
    Nak,
    OutUntil,
    PlaceWorkspace,
    Progress,
    Report,
    Scan,
    ScanState,
)
from protocol.wire import CLOSE_CODE, close_reason
from spoke_agent.storage.node import Call, Hint
from tests.spoke_agent.index.conftest import config_of
from tests.spoke_agent.link.conftest import ALICE, BOB, NODE, Agent, Cutter, Session, SmallHub, mint_for, set_for, until


def fill(agent: Agent, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        agent.bench.node.put(1, f"folder{number % 7}/file{number:05}", "x" * (number % 50))


def hint(agent: Agent, key: str) -> None:
    agent.bench.feed.hint(Hint(1, key))


# ---------------------------------------------------------------------------------------------------- the straight path


async def test_right_after_welcome_the_agent_says_what_it_enforces_what_it_is_and_how_it_is(
    hub: SmallHub, agent: Agent
) -> None:
    agent.start()
    await agent.online()
    await until(lambda: len(hub.live.received) >= 3)
    assert [type(message) for message in hub.live.received[:3]] == [Epochs, Report, Health]
    assert agent.link.state.node == NODE
    assert agent.link.state.name == "lab3"
    assert agent.link.state.problem is None


async def test_what_is_in_storage_and_what_changes_reaches_the_hub(hub: SmallHub, agent: Agent) -> None:
    fill(agent, 5_000)
    agent.bench.schedule.request_all()
    agent.start()
    await agent.caught_up()
    agent.bench.node.put(1, "new", "body")
    agent.bench.node.delete(1, "folder0/file00000")
    hint(agent, "new")
    hint(agent, "folder0/file00000")
    await agent.caught_up()
    assert (1, "new") in hub.far.entries
    assert (1, "folder0/file00000") not in hub.far.entries


async def test_a_scan_is_done_only_where_the_digest_is_of_what_the_hub_has(hub: SmallHub, agent: Agent) -> None:
    fill(agent, 9_000)
    agent.bench.schedule.request_all()
    agent.start()
    await until(lambda: hub.digests)
    done, digest = hub.digests[0]
    assert (done.objects, done.sequence, done.digest) == (9_000, 9_000, digest)
    states = [message.state for message in hub.live.of(Progress) if isinstance(message, Progress)]
    assert states[0] is ScanState.RUNNING
    assert states[-1] is ScanState.DONE


async def test_no_more_than_four_batches_are_on_their_way(hub: SmallHub, agent: Agent) -> None:
    fill(agent, 9_000)
    hub.on_events = lambda _, events: [] if hub.apply(events) else None
    agent.bench.schedule.request_all()
    await agent.bench.quiet()
    agent.start()
    await until(lambda: hub.sessions and len(hub.live.of(Events)) == 4)
    for number in range(5):
        agent.bench.node.put(1, f"later{number}")
        hint(agent, f"later{number}")
    await until(lambda: not agent.bench.feed.backlog)
    assert await hub.ask(mint_for(ALICE)), "answers still come"
    assert len(hub.live.of(Events)) == 4
    await hub.live.send(Ack(hub.far.cursor))
    hub.on_events = lambda _, events: [hub.apply(events)]
    await agent.caught_up()


async def test_on_a_slow_line_an_answer_waits_behind_little_of_the_journal(hub: SmallHub, agent: Agent, cutter: Cutter) -> None:
    for number in range(24_000):
        agent.bench.node.put(1, f"{number:05}" + "k" * 600)
    await agent.bench.scanner.scan_root(1)
    cutter.slow = True
    agent.options = {"hub_url": f"http://127.0.0.1:{cutter.port}"}
    agent.start()
    await until(lambda: hub.far.cursor.sequence > 4_000, 30)
    behind = []
    for _ in range(3):
        before = hub.far.cursor.sequence
        assert isinstance(await hub.ask(mint_for(ALICE)), Minted)
        behind.append(600 * (hub.far.cursor.sequence - before))
    assert hub.far.cursor.sequence < 24_000, "there was more to come all the time"
    assert max(behind) < 2_000_000, "four batches of 800 kB may be on their way"


async def test_an_idle_link_asks_nothing_of_the_disk(hub: SmallHub, agent: Agent) -> None:
    fill(agent, 50)
    hub.on_events = lambda _, events: [] if hub.apply(events) else None  # no acknowledgement: rows stay pending
    agent.options = {"health_s": 0.05}
    agent.bench.schedule.request_all()
    agent.start()
    await until(lambda: len(hub.far.entries) == 50 and hub.digests)
    asked = 0
    real = agent.bench.database.run

    async def counted(work: object) -> object:
        nonlocal asked
        asked += 1
        return await real(work)  # type: ignore[arg-type]  # handed on as it came

    agent.bench.database.run = counted  # type: ignore[method-assign,assignment]  # counted, then the real one
    healths = len(hub.live.of(Health))
    await until(lambda: len(hub.live.of(Health)) > healths + 5)
    assert asked == 0


async def test_health_comes_now_and_then_and_at_once_when_it_changes(hub: SmallHub, agent: Agent) -> None:
    agent.options = {"health_s": 3600.0}
    agent.start()
    await agent.online()
    await until(lambda: hub.live.of(Health))
    agent.access.paused = True
    agent.access.warnings = ["The disk is nearly full." * 100] * 100
    agent.link.health_changed()
    await until(lambda: len(hub.live.of(Health)) == 2)
    health = hub.live.of(Health)[-1]
    assert isinstance(health, Health)
    assert health.paused
    assert len(health.warnings) == 32
    assert {len(warning) for warning in health.warnings} == {500}


async def test_the_hub_hears_of_what_was_enforced_later_than_it_asked(hub: SmallHub, agent: Agent) -> None:
    agent.start()
    await agent.online()
    agent.access.epoch = 2
    agent.access.caught_up.set()
    await until(lambda: len(hub.live.of(Epochs)) == 2)
    assert hub.live.of(Epochs)[-1].states[0].epoch == 2  # type: ignore[union-attr]  # it is an Epochs
    assert agent.access.times_heard == 1


async def test_keys_minted_without_the_hub_are_told_at_the_beginning_and_when_there_is_another(
    hub: SmallHub, agent: Agent
) -> None:
    first, second = (KeysOut((OutUntil(ALICE, second),)) for second in (1_800_000_000, 1_800_003_600))
    agent.access.keys = [first]
    agent.start()
    await agent.online()
    await until(lambda: hub.live.of(KeysOut) == [first])
    agent.access.keys = [second]
    agent.access.minted_here.set()
    await until(lambda: hub.live.of(KeysOut) == [first, second])
    hub.live.abort()
    await until(lambda: len(hub.sessions) == 2 and hub.live.of(KeysOut) == [second])


async def test_a_report_that_changed_is_sent_again(hub: SmallHub, agent: Agent) -> None:
    agent.start()
    await agent.online()
    agent.link.report_changed()
    await until(lambda: len(hub.live.of(Report)) == 2)


async def test_accesses_are_sent_in_messages_that_fit(hub: SmallHub, agent: Agent) -> None:
    agent.options = {"accesses_s": 0.01}
    for number in range(1_200):
        agent.calls.add(Call(1, f"{number:04}" + "k" * 1_020, "holder", "GetObject", 200, 60_000_000))
    agent.start()
    await agent.online()
    await until(lambda: sum(len(one.rows) for one in hub.live.of(Accesses) if isinstance(one, Accesses)) == 1_200)
    assert hub.live.broken is None


# ---------------------------------------------------------------------------------------------------- requests


async def test_every_request_is_answered_with_its_id(hub: SmallHub, agent: Agent) -> None:
    agent.start()
    await agent.online()
    assert isinstance(await hub.ask(mint_for(ALICE)), Minted)
    assert isinstance(await hub.ask(set_for(ALICE, 1, hub.key)), GrantsApplied)
    assert isinstance(await hub.ask(lambda r, d: CheckRoot(r, d, config_of(5))), Done)
    assert isinstance(await hub.ask(lambda r, d: PlaceWorkspace(r, d, 1, "alice/scans/")), Done)
    assert isinstance(await hub.ask(lambda r, d: Scan(r, d, 1)), Done)


async def test_a_refusal_keeps_its_code_and_a_fault_of_ones_own_tells_no_secret(
    hub: SmallHub, agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    agent.start()
    await agent.online()
    refused = await hub.ask(mint_for(ALICE, epoch=9))
    assert isinstance(refused, Failed)
    assert (refused.problem.code, refused.problem.retry) == ("pending", True)

    def fail(_: object) -> None:
        raise RuntimeError("secret_key=hunter2")

    agent.access.before = fail
    failed = await hub.ask(mint_for(ALICE))
    assert isinstance(failed, Failed)
    assert failed.problem.code == "internal"
    assert "hunter2" not in failed.problem.message + caplog.text
    assert "Mint failed: RuntimeError < fail" in caplog.text


async def test_a_mint_waits_neither_for_a_slow_request_nor_for_the_journal(hub: SmallHub, agent: Agent) -> None:
    fill(agent, 20_000)
    agent.bench.schedule.request_all()
    gate = asyncio.Event()
    agent.access.before = lambda request: gate.wait() if isinstance(request, CheckRoot) else None
    agent.start()
    await agent.online()
    slow = await hub.send_request(lambda r, d: CheckRoot(r, d, config_of(5)))
    assert isinstance(await hub.ask(mint_for(ALICE)), Minted)
    assert slow not in hub.answers
    gate.set()
    await until(lambda: slow in hub.answers)
    await agent.caught_up()


async def test_sets_of_one_subject_are_applied_in_order_and_those_of_others_beside_them(hub: SmallHub, agent: Agent) -> None:
    gate = asyncio.Event()
    agent.start()
    await agent.online()
    first = set_for(ALICE, 1, hub.key)
    agent.access.before = lambda request: gate.wait() if request == first(request.request, request.deadline_ms) else None  # type: ignore[attr-defined]  # a SetGrants
    one = await hub.send_request(first)
    two = await hub.send_request(set_for(ALICE, 2, hub.key))
    assert isinstance(await hub.ask(set_for(BOB, 1, hub.key)), GrantsApplied)
    mint = await hub.send_request(mint_for(ALICE))
    assert isinstance(await hub.ask(mint_for(BOB)), Minted)
    assert not {one, two, mint} & hub.answers.keys(), "a key of alice is minted behind what came before it for her"
    gate.set()
    await until(lambda: {one, two, mint} <= hub.answers.keys())
    order = [request.request for _, request in agent.access.finished]  # type: ignore[attr-defined]  # all of them are requests
    assert order.index(one) < order.index(two)
    assert order.index(one) < order.index(mint)


async def test_what_nobody_waits_for_any_more_is_dropped_but_never_a_grant_set(hub: SmallHub, agent: Agent) -> None:
    gate = asyncio.Event()
    agent.access.before = lambda _: gate.wait()
    agent.start()
    await agent.online()
    applied = await hub.send_request(set_for(ALICE, 1, hub.key), deadline_ms=1)
    second = await hub.send_request(set_for(ALICE, 2, hub.key), deadline_ms=1)
    mint = await hub.send_request(mint_for(ALICE), deadline_ms=1)
    desk = agent.link._desk
    await until(lambda: desk.dropped == 1)
    gate.set()
    await until(lambda: {applied, second} <= hub.answers.keys())
    assert isinstance(await hub.ask(mint_for(ALICE)), Minted)
    assert mint not in hub.answers


async def test_a_grant_set_is_applied_though_the_session_ends_meanwhile(hub: SmallHub, agent: Agent) -> None:
    gate = asyncio.Event()
    agent.access.before = lambda _: gate.wait()
    agent.start()
    await agent.online()
    await hub.send_request(set_for(ALICE, 1, hub.key))
    await hub.send_request(mint_for(BOB))
    await until(lambda: len(agent.access.log) == 2)
    hub.live.abort()
    await until(lambda: len(hub.sessions) == 2)
    gate.set()
    await until(lambda: agent.access.finished)
    assert [kind for kind, _ in agent.access.finished] == ["SetGrants"]


async def test_too_many_requests_at_once_are_refused_and_the_others_still_answered(
    hub: SmallHub, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spoke_agent.link.desk.MAX_WAITING", 10)
    gate = asyncio.Event()
    agent.access.before = lambda _: gate.wait()
    agent.start()
    await agent.online()
    numbers = [await hub.send_request(mint_for(ALICE)) for _ in range(15)]
    await until(lambda: len(hub.answers) == 5)
    assert {answer.problem.code for answer in hub.answers.values() if isinstance(answer, Failed)} == {"too-many"}
    gate.set()
    await until(lambda: hub.answers.keys() == set(numbers))
    assert sum(isinstance(answer, Minted) for answer in hub.answers.values()) == 10


# ---------------------------------------------------------------------------------------------------- roots


async def test_new_roots_are_scanned_and_roots_that_are_gone_forgotten(hub: SmallHub, agent: Agent) -> None:
    agent.bench.node.make_root(2)
    agent.bench.node.put(2, "a")
    agent.start()
    await agent.online()
    assert isinstance(await hub.ask(lambda r, d: Configure(r, d, 5, (config_of(1), config_of(2)))), Done)
    await agent.caught_up(2)
    assert isinstance(await hub.ask(lambda r, d: Configure(r, d, 4, ())), Done), "an older revision changes nothing"
    assert {config.root for config in agent.bench.ledger.configs()} == {1, 2}
    assert isinstance(await hub.ask(lambda r, d: Configure(r, d, 6, (config_of(2),))), Done)
    assert {config.root for config in agent.bench.ledger.configs()} == {2}
    failed = await hub.ask(lambda r, d: Scan(r, d, 1))
    assert isinstance(failed, Failed)
    assert failed.problem.code == "unknown-root"


async def test_the_hub_gets_neither_roots_nor_names_beyond_what_the_owner_admits(hub: SmallHub, agent: Agent) -> None:
    for root in (2, 3):
        agent.bench.node.make_root(root)
        agent.bench.node.put(root, "private")
    agent.access.admit = lambda root: {2: msgspec.structs.replace(root, level=IndexLevel.NONE), 3: None}.get(root.root, root)
    agent.start()
    await agent.online()
    await hub.ask(lambda r, d: Configure(r, d, 5, (config_of(1), config_of(2), config_of(3))))
    for root, code in ((2, "bad-setting"), (3, "unknown-root")):
        failed = await hub.ask(lambda r, d, root=root: Scan(r, d, root))  # type: ignore[misc]  # bound here on purpose
        assert isinstance(failed, Failed)
        assert failed.problem.code == code
    hint(agent, "a")
    agent.bench.node.put(1, "a")
    await agent.caught_up()
    assert {root for root, _ in hub.far.entries} == {1}


async def test_what_the_owner_admits_no_longer_is_let_go_at_once_and_at_the_next_start(hub: SmallHub, agent: Agent) -> None:
    agent.bench.node.make_root(2)
    agent.bench.node.put(1, "a")
    await agent.bench.ledger.configure(5, [config_of(1), config_of(2)])
    agent.access.admit = lambda root: root if root.root == 1 else None
    agent.start()
    await agent.online()
    assert {config.root for config in agent.bench.ledger.configs()} == {1}
    await agent.caught_up()
    agent.access.admit = lambda root: msgspec.structs.replace(root, level=IndexLevel.NONE)
    await agent.link.limits_changed()
    assert not agent.bench.ledger.indexed()
    await until(lambda: len(hub.live.of(Report)) == 2)
    agent.access.admit = lambda root: root
    await hub.ask(lambda r, d: Configure(r, d, 5, (config_of(1), config_of(2))))
    assert {config.root for config in agent.bench.ledger.indexed()} == {1, 2}, "the hub's word of before counts again"


# ---------------------------------------------------------------------------------------------------- broken connections


async def test_a_connection_cut_at_any_byte_loses_and_repeats_nothing(agent: Agent, cutter: Cutter) -> None:
    fill(agent, 3_000)
    agent.bench.schedule.request_all()
    # In the middle of the HTTP upgrade, of the handshake, of the first frames, of a batch; and of the hub's answers.
    cutter.cuts = [(size, None) for size in (50, 300, 500, 700, 1_500, 60_000, 150_000)]
    cutter.cuts += [(None, size) for size in (60, 200, 400, 500, 550, 600, 650, 700, 800)]
    agent.options = {"hub_url": f"http://127.0.0.1:{cutter.port}"}
    agent.start()
    number = 0
    while cutter.cuts:
        number += 1
        agent.bench.node.put(1, f"while it goes on/{number}")
        hint(agent, f"while it goes on/{number}")
        if number % 10 == 0:
            agent.bench.node.delete(1, f"while it goes on/{number - 5}")
            hint(agent, f"while it goes on/{number - 5}")
        await agent.bench.ledger.standings()
    await agent.caught_up()
    assert cutter.broken >= 15


async def test_a_hub_that_breaks_off_in_every_batch_gets_everything_in_the_end(hub: SmallHub, agent: Agent) -> None:
    fill(agent, 9_000)
    applied_without_saying = iter([True, False, True, True, False, True])

    def break_off(_: Session, events: Events) -> list[HubMessage] | None:
        apply = next(applied_without_saying, None)
        if apply is None:
            return [hub.apply(events)]
        if apply:
            hub.apply(events)
        return None

    hub.on_events = break_off
    agent.bench.schedule.request_all()
    agent.start()
    await agent.caught_up()
    assert len(hub.sessions) >= 7


async def test_acknowledgements_lost_or_said_twice_do_no_harm(hub: SmallHub, agent: Agent) -> None:
    numbers = iter(range(1_000_000))

    def answer(_: Session, events: Events) -> list[HubMessage] | None:
        said = hub.apply(events)
        return [] if next(numbers) % 3 == 0 else [said, said, said]

    hub.on_events = answer
    agent.bench.schedule.request_all()
    agent.start()
    for number in range(30):
        agent.bench.node.put(1, f"key{number}")
        hint(agent, f"key{number}")
        await until(lambda number=number: (1, f"key{number}") in hub.far.entries)  # type: ignore[misc]  # bound here on purpose
    hub.on_events = lambda _, events: [hub.apply(events)]
    agent.bench.node.put(1, "last")
    hint(agent, "last")
    await agent.caught_up()
    assert len(hub.sessions) == 1


async def test_a_hub_that_never_acknowledges_is_left_after_a_while(hub: SmallHub, agent: Agent) -> None:
    agent.bench.node.put(1, "a")
    agent.bench.schedule.request_all()
    hub.on_events = lambda _, __: []
    agent.make()
    sender = agent.link._sender
    sender._patience_s = 0.2
    waiting = asyncio.create_task(agent.link.once())
    await agent.bench.quiet()
    await waiting
    assert agent.link.state.problem is not None
    assert agent.link.state.problem.code == "link-broken"
    assert "acknowledged" in agent.link.state.problem.message


async def test_an_agent_is_back_when_its_hub_is_and_has_forgotten_nothing(hub: SmallHub, agent: Agent) -> None:
    fill(agent, 100)
    agent.bench.schedule.request_all()
    agent.start()
    await agent.caught_up()
    await hub.stop()
    await until(lambda: agent.link.state.since is None)
    for number in range(50):
        agent.bench.node.put(1, f"meanwhile{number}")
        hint(agent, f"meanwhile{number}")
    await until(lambda: agent.bench.ledger.pending >= 50)
    assert agent.link.state.problem is not None
    assert agent.link.state.problem.code == "hub-unreachable"
    await hub.start()
    await agent.caught_up()
    assert agent.link.state.problem is None
    assert max(agent.waits) <= 4.0


async def test_the_end_of_a_scan_is_said_again_to_a_hub_that_comes_back(hub: SmallHub, agent: Agent) -> None:
    fill(agent, 100)
    agent.bench.schedule.request_all()
    agent.start()
    await until(lambda: hub.digests)
    hub.digests.clear()
    hub.live.abort()
    await until(lambda: hub.digests)
    assert hub.digests[0][0].digest == hub.digests[0][1]


# ---------------------------------------------------------------------------------------------------- the journal


async def test_a_hub_restored_to_yesterday_gets_a_new_generation_and_everything_once_more(hub: SmallHub, agent: Agent) -> None:
    fill(agent, 200)
    agent.bench.schedule.request_all()
    agent.start()
    await agent.caught_up()
    yesterday, entries = hub.far.cursor, dict(hub.far.entries)
    fill(agent, 200, 200)
    for key in list(agent.bench.node.objects[1]):
        hint(agent, key)
    await agent.caught_up()
    generation = hub.far.cursor.generation
    await hub.stop()
    hub.far.cursor, hub.far.entries = yesterday, entries
    await hub.start()
    await until(lambda: hub.far.cursor.generation > generation)
    await agent.caught_up()


async def test_a_hub_that_knows_nothing_is_sent_everything(hub: SmallHub, agent: Agent) -> None:
    fill(agent, 200)
    agent.bench.schedule.request_all()
    agent.start()
    await agent.caught_up()
    await hub.stop()
    hub.far.cursor = Cursor(0, 0, EMPTY_RUN)
    hub.far.entries.clear()
    await hub.start()
    await agent.caught_up()


async def test_an_agent_that_lost_its_state_starts_a_generation_above_the_hubs(hub: SmallHub, agent: Agent) -> None:
    fill(agent, 200)
    hub.far.cursor = Cursor(7, 12, b"x" * 32)
    hub.far.entries[1, "long gone"] = None  # type: ignore[assignment]  # only its key matters
    agent.bench.schedule.request_all()
    agent.start()
    await until(lambda: hub.far.cursor.generation == 8)
    await agent.caught_up()


async def test_a_nak_makes_the_agent_go_back_and_a_stubborn_hub_is_asked_ever_less_often(hub: SmallHub, agent: Agent) -> None:
    fill(agent, 3_000)
    left = iter(range(12))

    def refuse(_: Session, events: Events) -> list[HubMessage]:
        return [Nak(hub.far.cursor, "database busy")] if next(left, None) is not None else [hub.apply(events)]

    hub.on_events = refuse
    agent.bench.schedule.request_all()
    agent.start()
    await agent.caught_up()
    assert len(hub.sessions) == 1
    assert 0.1 in agent.waits
    assert 0.2 in agent.waits


# ---------------------------------------------------------------------------------------------------- a hub that is wrong


async def test_a_hub_with_another_key_is_left_at_the_first_message_and_asked_seldom(hub: SmallHub, agent: Agent) -> None:
    agent.options = {"hub_key": public_bytes(Ed25519PrivateKey.generate())}
    wait = await agent.make().once()
    assert agent.link.state.problem is not None
    assert agent.link.state.problem.code == "hub-key-mismatch"
    assert 30 <= wait <= 60
    assert not hub.proved, "nothing was proved to a stranger"


async def test_a_hub_that_says_it_does_not_know_us_is_asked_again_and_nothing_is_undone(hub: SmallHub, agent: Agent) -> None:
    hub.refuse = lambda _: UnknownPeer("This hub knows no such node.").problem
    agent.start()
    await until(lambda: len(hub.proved) == 3)
    assert all(wait >= 30 for wait in agent.waits)
    assert agent.link.state.problem is not None
    assert agent.link.state.problem.code == "unknown-peer"
    assert not agent.access.evicted
    assert not agent.link.state.evicted
    hub.refuse = lambda _: None
    await agent.online()


@pytest.mark.parametrize(
    "data",
    [b"", b"x", bytes(100), b"\xff" * 5_000, "text"],
    ids=["empty", "short", "unsigned", "noise", "text"],
)
async def test_a_frame_that_nobody_signed_ends_the_session_and_the_next_one_is_good(
    hub: SmallHub, agent: Agent, data: bytes | str
) -> None:
    agent.bench.node.put(1, "a")
    agent.start()
    await agent.online()
    await hub.live.connection.send(data)
    await until(lambda: len(hub.sessions) == 2)
    assert isinstance(await hub.ask(mint_for(ALICE)), Minted)
    closed = hub.sessions[0].connection
    await until(lambda: closed.close_code == CLOSE_CODE)
    assert closed.close_reason is not None
    assert closed.close_reason.startswith(("bad-message: ", "bad-signature: "))


async def test_a_frame_over_the_limit_ends_the_session_and_the_next_one_is_good(hub: SmallHub, agent: Agent) -> None:
    agent.start()
    await agent.online()
    await hub.live.connection.send(bytes(2**20 + 1))
    await until(lambda: len(hub.sessions) == 2)
    assert isinstance(await hub.ask(mint_for(ALICE)), Minted)


async def test_a_frame_said_twice_ends_the_session(hub: SmallHub, agent: Agent) -> None:
    agent.start()
    await agent.online()
    frame = hub.live.session.send(Scan(1, 1000, 1))
    for _ in range(2):
        await hub.live.connection.send(frame)
    first = hub.live.connection
    await until(lambda: len(hub.sessions) == 2)
    await until(lambda: first.close_reason)
    assert str(first.close_reason).startswith("bad-sequence: ")


async def test_a_hub_that_says_nothing_is_given_up_within_the_deadline(agent: Agent) -> None:
    done = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.transport.abort()
        del reader

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    agent.options = {"hub_url": f"http://127.0.0.1:{port}", "handshake_s": 0.2}
    wait = await agent.make().once()
    done.set()
    server.close()
    await server.wait_closed()
    assert agent.link.state.problem is not None
    assert agent.link.state.problem.code == "hub-unreachable"
    assert wait == 0.05, "the time the try took counts as waited"


async def test_something_that_is_no_hub_is_named_with_its_http_status(agent: Agent) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 301 Moved\r\nLocation: ws://192.0.2.1/agent/v1\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(web, "127.0.0.1", 0)
    agent.options = {"hub_url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}
    await agent.make().once()
    server.close()
    await server.wait_closed()
    assert agent.link.state.problem is not None
    assert "HTTP status 301" in agent.link.state.problem.message, "and the redirect was not followed"


async def test_being_replaced_by_another_session_is_no_reason_to_fight(hub: SmallHub, agent: Agent) -> None:
    agent.start()
    await agent.online()
    problem = Conflict("Another agent connected with this node's key.").problem
    await hub.live.connection.close(CLOSE_CODE, close_reason(problem))
    await until(lambda: agent.waits)
    assert agent.waits[0] >= 30
    assert agent.link.state.problem is None or agent.link.state.problem.code == "conflict"


async def test_sessions_that_end_at_once_are_tried_ever_less_often(hub: SmallHub, agent: Agent) -> None:
    agent.longest_wait = 0.0
    agent.start()
    for number in range(1, 10):
        await until(lambda number=number: len(hub.sessions) == number)  # type: ignore[misc]  # bound here on purpose
        hub.live.abort()
    await until(lambda: len(agent.waits) >= 9)
    assert agent.waits[8] >= 2.0


# ---------------------------------------------------------------------------------------------------- eviction


async def test_an_eviction_the_hub_signed_ends_the_link_for_good_once_everything_is_taken_back(
    hub: SmallHub, agent: Agent
) -> None:
    failures = iter([StorageUnreachable("MinIO is away."), StorageUnreachable("MinIO is away.")])

    def fail(_: object) -> None:
        error = next(failures, None)
        if error is not None:
            raise error

    agent.access.before = fail
    agent.start()
    await agent.online()
    await hub.live.send(sign_eviction(hub.key, NODE, 1_800_000_000))
    await asyncio.wait_for(agent.running, 10)
    assert len(agent.access.evicted) == 3
    assert agent.link.state.evicted
    assert agent.link.state.since is None
    assert agent.link.state.problem is not None
    assert agent.link.state.problem.code == "evicted"


async def test_an_eviction_is_carried_out_though_the_hub_hangs_up_at_once(hub: SmallHub, agent: Agent) -> None:
    gate = asyncio.Event()
    agent.access.before = lambda _: gate.wait()
    agent.start()
    await agent.online()
    await hub.live.send(sign_eviction(hub.key, NODE, 1_800_000_000))
    await hub.stop()
    await until(lambda: agent.access.evicted)
    assert not agent.running.done()
    gate.set()
    await asyncio.wait_for(agent.running, 10)
    assert agent.access.finished
    assert agent.link.state.evicted


@pytest.mark.parametrize("which", ["another key", "another node"])
async def test_an_eviction_the_hub_did_not_sign_for_this_node_is_ignored(hub: SmallHub, agent: Agent, which: str) -> None:
    agent.start()
    await agent.online()
    key, node = (Ed25519PrivateKey.generate(), NODE) if which == "another key" else (hub.key, NODE + 1)
    await hub.live.send(sign_eviction(key, node, 1_800_000_000))
    assert isinstance(await hub.ask(mint_for(ALICE)), Minted)
    assert not agent.access.evicted
    assert not agent.link.state.evicted
