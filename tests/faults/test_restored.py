"""What was lost, and what came back from a backup: of the hub, of the agent, of the storage server."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import pytest

from deploy.running import until
from protocol.grants import Permission
from protocol.messages import RootActivity, ScanState
from tests.faults.runner import FIRST, SEEDS, Run, Stands, played
from tests.faults.stand import HEAL_S, NODE, Stand, quietly, start

pytestmark = pytest.mark.real

LOOKS: Final = 10
"""How often a bucket that was made anew is looked at before its root is believed to be kept."""


def _kept(run: Run, what: str) -> Path:
    kept = run.stand.folder / f"kept-{what}-{run.place.name}"
    shutil.rmtree(kept, ignore_errors=True)
    return kept


def the_hubs_database_is_of_yesterday(run: Run) -> None:
    """What was revoked since stays revoked until the node's owner has said that the old database is right."""
    stand, kept = run.stand, _kept(run, "hub")
    stand.share("second", Permission.READ)
    stand.share("third", None)
    assert stand.fetch_key("second")
    stand.keep(stand.hub, kept)
    stand.wait_online()
    stand.share("second", None)
    stand.share("third", Permission.READ)
    stand.check_access()
    run.work.more(30)
    if run.chance.random() < 0.5:
        stand.restore(stand.hub, kept)
    else:  # the search index stays, and is of a future that did not happen
        stand.hub.stop()
        for file in stand.hub.data.glob("hub.sqlite*"):
            file.unlink()
        for file in kept.glob("hub.sqlite*"):
            shutil.copy2(file, stand.hub.data)
    stand.heal()
    until("the node waits for its owner", quietly(lambda: any("backup" in one for one in stand.alice.node(NODE).warnings)))
    stand.grants["third"] = None  # this hub has never heard of it: only what both say counts
    stand.check_access(exactly=False)
    stand.alice.confirm_node(NODE)
    for name in stand.grants:
        shares = [one.permission for one in stand.alice.shares(name) if one.who == "bob"]
        stand.grants[name] = shares[0] if shares else None
    assert stand.grants["second"] is Permission.READ, "after that the old database is the truth again"


def the_agents_state_is_of_yesterday(run: Run) -> None:
    stand, kept = run.stand, _kept(run, "agent")
    stand.keep(stand.agent, kept)
    stand.wait_online()
    stand.reshare(run.chance)
    run.work.more(60)
    stand.reshare(run.chance)
    stand.restore(stand.agent, kept)
    stand.heal()


def the_agents_index_is_lost(run: Run) -> None:
    run.stand.agent.kill()
    for file in run.stand.agent.state.glob("index.sqlite*"):
        file.unlink()
    run.work.more(30)
    run.stand.heal()


def the_agents_grants_are_lost(run: Run) -> None:
    """Nobody knows the parents' names any more: they are removed, and their keys with them."""
    run.stand.agent.kill()
    for file in run.stand.agent.state.glob("grants.sqlite*"):
        file.unlink()
    run.stand.heal()
    _new_key(run)


def the_agents_state_directory_is_lost_while_it_runs(run: Run) -> None:
    stand = run.stand
    agent = stand.agent
    assert agent.process is not None
    shutil.rmtree(agent.state)
    until("it noticed, and stopped", lambda: not agent.running, seconds=30)
    assert agent.process.returncode == 3
    assert "was removed while the agent ran" in agent.tail()
    stand.wait_offline()
    assert any("was removed while the agent ran" in one for one in stand.alice.node(NODE).warnings), "the hub was told"
    _taken_in_again(run)


def the_agents_state_directory_is_lost_while_it_does_not_run(run: Run) -> None:
    run.stand.agent.kill()
    shutil.rmtree(run.stand.agent.state)
    _taken_in_again(run)


def _taken_in_again(run: Run) -> None:
    """Nothing but the hub and the server know of the node any more: its owner joins it again, under its name."""
    stand = run.stand
    stand.share("first", Permission.WRITE)  # waits: whoever could enforce it is gone
    stand.share("second", None)
    said = stand.agent.ask("run")
    assert (said.code, "No node has joined" in said.err) == (3, True), said
    run.work.more(20)
    before = stand.keys[-3:]
    assert any(stand.opens(key) for key in before), "a key was out, and nobody is there to take it back"
    stand.rejoin()
    assert not any(stand.opens(key) for key in before), "joining alone ends every key of before"
    del stand.keys[:]
    run.work.more(10)
    stand.heal()
    _new_key(run)
    assert not any(stand.opens(key) for key in before)


def storage_is_of_yesterday(run: Run) -> None:
    stand, kept = run.stand, _kept(run, "storage")
    stand.share("second", Permission.READ)
    assert stand.fetch_key("second")
    stand.keep(stand.server, kept)
    run.work.more(40)
    stand.wait_online()
    stand.share("second", None)
    run.work.more(20)
    stand.restore(stand.server, kept)
    stand.heal()
    _new_key(run)


def storage_is_restarted(run: Run) -> None:
    run.work.more(20)
    run.stand.server.stop()
    start(run.stand.server)


def _new_key(run: Run) -> None:
    """Older keys may open less than the grants say now, never more; a new one opens exactly that."""
    stand = run.stand
    stand.share("first", Permission.READ)
    stand.check_access(exactly=False)
    del stand.keys[:]
    until("bob gets a new key", lambda: stand.fetch_key("first"), seconds=HEAL_S, every=0.2)


@played(
    [
        the_hubs_database_is_of_yesterday,
        the_agents_state_is_of_yesterday,
        the_agents_index_is_lost,
        the_agents_grants_are_lost,
        the_agents_state_directory_is_lost_while_it_runs,
        the_agents_state_directory_is_lost_while_it_does_not_run,
        storage_is_of_yesterday,
        storage_is_restarted,
    ]
)
def test_what_came_back_from_a_backup_is_noticed_and_brought_up_to_date(stands: Stands, scenario: object, seed: int) -> None:
    stands.play(scenario, seed)  # type: ignore[arg-type]  # pytest's parameters have no types


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_a_bucket_that_was_deleted_and_made_anew_is_missing_and_its_catalogue_is_never_emptied_nor_added_to(
    stands: Stands, seed: int
) -> None:
    stand: Stand = stands.get()
    place = stand.place("anew", objects=60 + seed)
    before = sorted(place.catalogued())
    stand.to_storage.refuse()  # so that the agent does not see objects go one by one, which would be their owner's wish
    client = stand.owner()
    place.empty(list(place.stored()))
    client.delete_bucket(Bucket=place.name)
    if seed % 2 == 0:  # the agent sees that it is gone before it is there again
        stand.to_storage.heal()
        _failed(stand, place.name)
        stand.to_storage.refuse()
    client.create_bucket(Bucket=place.name)
    client.put_object(Bucket=place.name, Key="data/of-the-new-one", Body=b"x")
    stand.to_storage.heal()
    for number in range(LOOKS):  # a key of the old root's among them, and others
        client.put_object(Bucket=place.name, Key="data/of-the-new-one" if number % 2 else before[number][0], Body=b"y")
        assert sorted(place.catalogued()) == before

    def told() -> bool:
        status = stand.alice.scan_status(NODE, place.name)
        return status.state is ScanState.FAILED and "anew" in status.problem

    until("it is told, and nobody had to ask", quietly(told), seconds=HEAL_S, every=0.05)
    until("it shows as missing", quietly(lambda: _activity(stand, place.name) is RootActivity.MISSING), seconds=HEAL_S)
    _failed(stand, place.name)
    assert sorted(place.catalogued()) == before
    stand.alice.retire_root(NODE, place.name)


def _activity(stand: Stand, name: str) -> RootActivity | None:
    return next(one.activity for one in stand.alice.node(NODE).roots if one.root == f"{NODE}/{name}")


def _failed(stand: Stand, name: str) -> None:
    until("a scan is asked for", quietly(lambda: stand.alice.scan(NODE, name) is not None), seconds=HEAL_S)
    until(
        "the scan has failed",
        quietly(lambda: stand.alice.scan_status(NODE, name).state is ScanState.FAILED),
        seconds=HEAL_S,
        every=0.05,
    )
