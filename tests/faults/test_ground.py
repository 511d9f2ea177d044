"""What hub and agent stand on: a disk that is full, a database that is locked or restarted, a search index that is gone."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import pytest

from deploy.federation import BIN
from deploy.running import until
from protocol.errors import WioError
from tests.faults.postgres import Postgres
from tests.faults.runner import SEEDS, SOAK, Run, Stands, played
from tests.faults.stand import HEAL_S, NODE, quietly, start

pytestmark = pytest.mark.real

HUB_LOCK_S: Final = 11.0 if SOAK else 3.0
AGENT_LOCK_S: Final = 5.5
"""Longer than they wait for a lock of SQLite's: 10 s, and 5 s. The hub's patience is tried in long runs."""
SMALL: Final = "24m"


# ---------------------------------------------------------------------------------------------------- SQLite


def _locked(run: Run, file: Path, seconds: float) -> None:
    """Hold SQLite's write lock, as a backup program would, for so long; work goes on."""
    with closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        end = time.monotonic() + seconds
        run.work.more(30)
        until("it was locked for long", lambda: time.monotonic() >= end, seconds=seconds + 1)
        other.execute("ROLLBACK")


def the_hubs_database_is_locked_by_another(run: Run) -> None:
    _locked(run, run.stand.hub.data / "hub.sqlite", HUB_LOCK_S)


def the_agents_index_is_locked_by_another(run: Run) -> None:
    _locked(run, run.stand.agent.state / "index.sqlite", AGENT_LOCK_S)


def the_agents_grants_are_locked_by_another(run: Run) -> None:
    with closing(sqlite3.connect(run.stand.agent.state / "grants.sqlite", timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        run.stand.reshare(run.chance)
        other.execute("ROLLBACK")


# ---------------------------------------------------------------------------------------------------- the search index


def the_search_index_is_deleted_while_it_is_in_use(run: Run) -> None:
    shutil.rmtree(run.stand.hub.data / "index")
    run.work.more(60)


def the_search_index_is_damaged_while_it_is_in_use(run: Run) -> None:
    """What nobody wrote to is not noticed before somebody searches: then it is said, with what to do, which is done."""
    stand = run.stand
    _damage(run)
    run.work.more(60)
    problems: list[WioError] = []
    for _ in range(3):
        try:
            stand.alice.search(f"in:{run.place.name}", limit=200)
        except WioError as error:
            problems.append(error)
    if stand.hub.running:
        assert all("reindex" in problem.todo for problem in problems), problems
    else:  # a file that is cut off while it is mapped into memory: the kernel ends whoever looks at what is not there
        assert stand.hub.process is not None
        assert stand.hub.process.returncode == -signal.SIGBUS
    stand.hub.stop()
    said = subprocess.run(
        [BIN / "wio-hub", "reindex"], env=stand.hub.environment, capture_output=True, timeout=120, check=False
    )
    assert said.returncode == 0, said.stderr


def the_search_index_is_deleted_between_runs(run: Run) -> None:
    run.stand.hub.kill()
    shutil.rmtree(run.stand.hub.data / "index")
    run.stand.heal()


def the_search_index_is_damaged_between_runs(run: Run) -> None:
    run.stand.hub.kill()
    _damage(run)
    run.stand.heal()


def _damage(run: Run) -> None:
    """Overwrite a piece of some files, cut others off, leave out others."""
    files = sorted(path for path in (run.stand.hub.data / "index").rglob("*") if path.is_file() and path.name != "lock")
    for file in run.chance.sample(files, max(1, len(files) // 3)):
        with suppress(FileNotFoundError):  # a merge may have been quicker
            match run.chance.randrange(3):
                case 0:
                    file.unlink()
                case 1:
                    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
                case _:
                    data = bytearray(file.read_bytes())
                    for at in range(0, len(data), 7):
                        data[at] ^= 0x55
                    file.write_bytes(data)


# ---------------------------------------------------------------------------------------------------- the disk


def _on_a_small_disk(run: Run, variable: str, home: Path, *words: str) -> list[str]:
    """Return a command that runs a program on a copy of its folder on a disk of SMALL bytes, in a namespace of its own."""
    small = run.stand.folder / f"small-{home.name}"
    small.mkdir(exist_ok=True)
    script = (
        f"mount -t tmpfs -o size={SMALL} tmpfs {small} && cp -a {home}/. {small} && {variable}={small} exec {' '.join(words)}"
    )
    as_whom = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *as_whom, "--mount", "sh", "-c", script]


def _filled(file: Path) -> None:
    with file.open("wb", buffering=0) as full, suppress(OSError):
        while True:
            full.write(b"x" * 4096)


def _by_itself(run: Run) -> None:
    """Wait until all is well again; then the folder on the small disk is given up: what runs next has one of before."""
    run.work.rest()
    run.place.settled()
    run.work.go_on()


def the_hubs_disk_is_full(run: Run) -> None:
    stand = run.stand
    stand.hub.stop()
    stand.hub.command = _on_a_small_disk(run, "WIO_DATA", stand.hub.data, *stand.hub.command)
    start(stand.hub)
    stand.inside[stand.hub] = stand.folder / "small-hub"
    stand.wait_online()
    filler = Path(f"/proc/{stand.hub.pid}/root{stand.inside[stand.hub]}/filler")
    _filled(filler)
    run.place.fill(2000)
    codes: set[str] = set()

    def noticed() -> bool:
        try:
            stand.alice.invite(f"node-{len(codes)}")
        except WioError as error:
            codes.add(error.code)
        return "disk-full" in codes

    until("the full disk is noticed", noticed, seconds=HEAL_S)
    filler.unlink()
    _by_itself(run)


def the_agents_disk_is_full(run: Run) -> None:
    stand = run.stand
    stand.agent.stop()
    stand.agent.command = _on_a_small_disk(run, "WIO_AGENT_STATE", stand.agent.state, *stand.agent.command)
    start(stand.agent)
    stand.inside[stand.agent] = stand.folder / "small-agent"
    stand.wait_online()
    filler = Path(f"/proc/{stand.agent.pid}/root{stand.inside[stand.agent]}/filler")
    _filled(filler)
    more = itertools.count(1)

    def told() -> bool:
        run.place.fill(3000, folder=f"full-{next(more)}")  # until it really is: SQLite's log may have had room left
        return any("disk" in one or "No space left" in one for one in stand.alice.node(NODE).warnings)

    until("the full disk is told", quietly(told), seconds=HEAL_S, every=1.0)
    filler.unlink()
    _by_itself(run)


def clocks_are_apart(run: Run) -> None:
    """The hub is a day ahead, the agent ten minutes behind; of the storage server's, S3 allows a quarter of an hour."""
    stand = run.stand
    stand.doom(stand.hub, ahead={"hub.app:SystemClock.now": 86_400_000_000})
    stand.doom(stand.agent, ahead={"spoke_agent.agent:clock": -600_000_000})
    stand.wait_online()
    stand.reshare(run.chance)
    run.work.more(30)
    until("bob gets a key", lambda: stand.fetch_key("first") or stand.grants["first"] is None, seconds=HEAL_S, every=0.2)


@played(
    [
        the_hubs_database_is_locked_by_another,
        the_agents_index_is_locked_by_another,
        the_agents_grants_are_locked_by_another,
        the_search_index_is_deleted_while_it_is_in_use,
        the_search_index_is_damaged_while_it_is_in_use,
        the_search_index_is_damaged_between_runs,
        clocks_are_apart,
    ],
    rare=[the_search_index_is_deleted_between_runs],
)
def test_whatever_the_ground_does_everybody_agrees_again(stands: Stands, scenario: object, seed: int) -> None:
    stands.play(scenario, seed)  # type: ignore[arg-type]  # pytest's parameters have no types


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux for a small file system of its own")
@played([the_hubs_disk_is_full, the_agents_disk_is_full])
def test_a_disk_that_was_full_is_gone_on_with_once_there_is_room(stands: Stands, scenario: object, seed: int) -> None:
    stands.play(scenario, seed)  # type: ignore[arg-type]  # as above


# ---------------------------------------------------------------------------------------------------- PostgreSQL


@pytest.fixture(scope="module")
def on_postgres(postgres: Postgres) -> Iterator[Stands]:
    numbers = itertools.count(1)
    made = Stands(new_database=lambda: postgres.database(f"faults{next(numbers)}"))
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(1, 1 + SEEDS))
@pytest.mark.parametrize("how", ["restarted", "killed", "cut", "away"] if SOAK else ["killed", "cut"])
def test_postgresql_may_go_and_come_back(on_postgres: Stands, postgres: Postgres, how: str, seed: int) -> None:
    def postgresql(run: Run) -> None:
        match how:
            case "restarted":
                postgres.stop()
                start(postgres)
            case "killed":
                postgres.kill()
                start(postgres)
            case "cut":
                for _ in range(4):
                    run.stand.to_database.cut_all()
                    run.work.more(10)
            case _:
                run.stand.to_database.refuse()
                run.work.more(60)
                run.stand.to_database.heal()

    on_postgres.play(postgresql, seed)
