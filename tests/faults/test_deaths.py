"""SIGKILL of hub, agent and storage at every point where something is half done."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import pytest

from deploy.running import until
from protocol.api import NodeState
from protocol.errors import WioError
from protocol.grants import Permission
from tests.faults.runner import SOAK, Run, Stands, played
from tests.faults.stand import NODE, quietly, start

pytestmark = pytest.mark.real

HUB_POINTS: Final = (
    # A batch of journal rows: all of it is on the sheet, then in the transaction, then committed, then acknowledged.
    "hub.services.batches:Sheet.flush:before",
    "hub.services.batches:Sheet.flush:after:3",
    "hub.db.catalogue:store:after:2",
    "hub.services.ingest:_end:before:2",
    "hub.services.ingest:Ingest.apply:after:2",
    # The end of a scan: digests compared, tombstones forgotten.
    "hub.services.ingest:Ingest._compare:before",
    "hub.services.ingest:Ingest._compare:after",
    # The search index: written, its position in it, committed.
    "search.tantivy:Tantivy._write:after",
    "search.tantivy:Tantivy._finish:before",
    "search.tantivy:Tantivy._finish:after",
    # A session that begins: admitted, its cursor read, its epochs settled.
    "hub.services.enrolment:Enrolment.admit:after",
    "hub.services.settling:Settling.settle:before",
    "hub.services.settling:Settling.settle:after",
    "hub.services.roots:Roots.configure:after",
)
"""What a hub comes to by itself as long as people write."""

GRANT_POINTS: Final = (
    # A change of grants: written, committed, sent and answered, the receipt stored, the person told.
    "hub.db.grant_sets:sign:after",
    "hub.services.grantsets:GrantSets.transmit:before",
    "hub.services.grantsets:GrantSets._ask:after",
    "hub.services.grantsets:GrantSets._keep:before",
    "hub.services.grantsets:GrantSets._keep:after",
)
KEY_POINTS: Final = (
    # A key: noted that it may be out, minted, on its way to whoever asked.
    "hub.services.credentials:Issuing._note:after",
    "hub.services.credentials:Issuing._ask:after",
    "hub.services.credentials:Issuing._mint:after",
)
AGENT_POINTS: Final = (
    # Snapshot and journal, in one transaction: begun, half written, committed.
    "spoke_agent.index.journal:append:before:2",
    "spoke_agent.index.journal:append:after:3",
    "spoke_agent.index.ledger:Ledger.accept_looks:after:2",
    # A batch: read, sent, acknowledged, trimmed.
    "spoke_agent.link.sender:Flight.sent:after:2",
    "spoke_agent.link.sender:Sender._trimmed:before",
    "spoke_agent.index.journal:acknowledged:before",
    "spoke_agent.index.journal:acknowledged:after:2",
    # A scan: begun, a page of it in, its end written down, told.
    "spoke_agent.index.ledger:Ledger.begin_scan:after",
    "spoke_agent.index.ledger:Ledger.accept_page:after",
    "spoke_agent.index.ledger:Ledger.finish_scan:before",
    "spoke_agent.index.ledger:Ledger.finish_scan:after",
    # A session that begins.
    "spoke_agent.index.ledger:Ledger.settle:before",
    "spoke_agent.index.ledger:Ledger.settle:after",
    "spoke_agent.index.ledger:Ledger.configure:after",
    # At the start: what the server allows is compared with what it is meant to.
    "spoke_agent.access.applying:Applying.verify_once:before",
    "spoke_agent.access.applying:Applying.verify_once:after",
)
AGENT_GRANT_POINTS: Final = (
    # A set of grants: state stored before the policy is written, policy written before that is stored, proven.
    "spoke_agent.access.principals:Principals.accept:before",
    "spoke_agent.access.principals:Principals.accept:after",
    "spoke_agent.storage.minio:MinioNode.set_access:before",
    "spoke_agent.storage.minio:MinioNode.set_access:after",
    "spoke_agent.access.principals:Principals.note_applied:after",
)
AGENT_KEY_POINTS: Final = (
    "spoke_agent.storage.minio:MinioNode.mint:before",
    "spoke_agent.storage.minio:MinioNode.mint:after",
)


def _chosen(run: Run, points: tuple[str, ...], few: int) -> list[str]:
    """Return the points to die at: all of them in a long run, else some, others with each seed."""
    return list(points) if SOAK else run.chance.sample(points, few)


def the_hub_dies_at_what_it_does_by_itself(run: Run) -> None:
    stand = run.stand
    for point in _chosen(run, HUB_POINTS, 1):
        stand.doom(stand.hub, point)
        # Some points come with a session or a scan only: both are there once the agent is back.
        until("connected, or dead", lambda: not stand.hub.running or _online(run), every=0.05, seconds=60)
        if stand.hub.running:
            with suppress(WioError):
                stand.alice.scan(NODE, run.place.name)
        stand.wait_dead(stand.hub)
    stand.heal()


def _online(run: Run) -> bool:
    return quietly(lambda: run.stand.alice.node(NODE).state is NodeState.ONLINE)()


def the_hub_dies_while_grants_change(run: Run) -> None:
    stand = run.stand
    for point in _chosen(run, GRANT_POINTS, 1):
        stand.heal()
        stand.doom(stand.hub, point)
        until("somebody asks, and it dies", lambda: _reshared(run), every=0.05, seconds=60)
        stand.wait_dead(stand.hub)


def _reshared(run: Run) -> bool:
    """Change grants until the hub dies of it."""
    if run.stand.hub.running and _online(run):
        run.stand.reshare(run.chance)
    return not run.stand.hub.running


def the_hub_dies_while_it_gives_a_key(run: Run) -> None:
    stand = run.stand
    for point in _chosen(run, KEY_POINTS, 1):
        stand.heal()
        stand.share("second", Permission.READ)
        stand.doom(stand.hub, point)
        until("somebody asks, and it dies", lambda: _asked(run), every=0.05, seconds=60)
        stand.wait_dead(stand.hub)


def _asked(run: Run) -> bool:
    if run.stand.hub.running and _online(run):
        run.stand.fetch_key("second")
    return not run.stand.hub.running


def the_agent_dies_at_what_it_does_by_itself(run: Run) -> None:
    stand = run.stand
    for point in _chosen(run, AGENT_POINTS, 2):
        stand.doom(stand.agent, point)
        stand.wait_dead(stand.agent, seconds=60)
    stand.heal()


def the_agent_dies_while_grants_change(run: Run) -> None:
    stand = run.stand
    for point in _chosen(run, AGENT_GRANT_POINTS, 1):
        stand.heal()
        stand.doom(stand.agent, point)

        def changed() -> bool:
            if stand.agent.running and _online(run):
                stand.reshare(run.chance)
            return not stand.agent.running

        until("grants change, and it dies", changed, every=0.05, seconds=60)
        stand.wait_dead(stand.agent)


def the_agent_dies_while_it_gives_a_key(run: Run) -> None:
    stand = run.stand
    for point in _chosen(run, AGENT_KEY_POINTS, 1):
        stand.heal()
        stand.share("second", Permission.READ)
        stand.doom(stand.agent, point)

        def asked() -> bool:
            if stand.agent.running and _online(run):
                stand.fetch_key("second")
            return not stand.agent.running

        until("somebody asks, and it dies", asked, every=0.05, seconds=60)
        stand.wait_dead(stand.agent)


def storage_dies_in_the_middle_of_writes(run: Run) -> None:
    for _ in range(2):
        run.work.more(run.chance.randrange(10, 60))
        run.stand.server.kill()
        start(run.stand.server)


def storage_is_started_twice_within_a_second(run: Run) -> None:
    """To the second, as a server says it, the two starts may be one: what it was to report is lost twice all the same."""
    for steps in (run.chance.randrange(5, 15), run.chance.randrange(3, 20)):
        run.work.more(steps)
        run.stand.server.kill()
        start(run.stand.server)


@played(
    [
        the_hub_dies_at_what_it_does_by_itself,
        the_hub_dies_while_grants_change,
        the_hub_dies_while_it_gives_a_key,
        the_agent_dies_at_what_it_does_by_itself,
        the_agent_dies_while_grants_change,
        the_agent_dies_while_it_gives_a_key,
        storage_dies_in_the_middle_of_writes,
        storage_is_started_twice_within_a_second,
    ]
)
def test_whoever_dies_wherever_nothing_is_lost_and_nothing_is_there_twice(stands: Stands, scenario: object, seed: int) -> None:
    stands.play(scenario, seed)  # type: ignore[arg-type]  # pytest's parameters have no types
