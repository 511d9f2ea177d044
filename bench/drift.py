"""DRIFT: ten entries of a catalogue are wrong; how long until it equals storage again, and how many rows that takes."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import Final

from bench.buckets import fill
from bench.figure import Figure, rounded
from bench.rig import NODE, Rig
from deploy.running import until
from protocol.api import NewRoot, RootKind
from protocol.messages import ScanState

WRONG: Final = 10
ROOT: Final = "drift"


def measure(rig: Rig) -> Figure:
    """Import a bucket, make ten entries wrong behind the hub's back, scan; count from the end of that scan."""
    fill(rig, ROOT, rig.objects)
    rig.alice.create_root(NewRoot(NODE, ROOT, RootKind.UNMANAGED_PRIVATE, ROOT, accept_visible_names=True))
    until("imported", lambda: _imported(rig), seconds=600, every=0.2)
    started = time.perf_counter()
    if not rig.alice.verify_root(NODE, ROOT).equal:
        raise AssertionError("the catalogue does not equal storage after an import")
    verified = time.perf_counter() - started
    before = _rows(rig)
    _tamper(rig)
    rig.alice.scan(NODE, ROOT)
    until("noticed", lambda: _drifted(rig), seconds=600, every=0.005)
    started = time.perf_counter()
    until("repaired", lambda: not _drifted(rig), seconds=600, every=0.005)
    took = time.perf_counter() - started
    rows = _rows(rig) - before
    if not rig.alice.verify_root(NODE, ROOT).equal:
        raise AssertionError("the catalogue does not equal storage after its repair")
    return Figure(
        what="a catalogue that has drifted equals storage again",
        unit="s",
        n=1,
        p50=rounded(took),
        goal="rows <= 1,000 per wrong entry",
        scale={"objects": rig.objects, "wrong": WRONG, "rows": rows, "verify s": rounded(verified)},
    )


def _imported(rig: Rig) -> bool:
    done = rig.alice.scan_status(NODE, ROOT).state is ScanState.DONE
    return done and rig.alice.root(NODE, ROOT).objects == rig.objects


def _tamper(rig: Rig) -> None:
    with closing(sqlite3.connect(rig.federation.hub.data / "hub.sqlite", timeout=20)) as connection:
        (root,) = connection.execute("SELECT id FROM roots WHERE name = ?", (ROOT,)).fetchone()
        keys = [key for (key,) in connection.execute("SELECT key FROM entries WHERE root_id = ? ORDER BY key", (root,))]
        wrong = [(root, keys[len(keys) * at // WRONG]) for at in range(WRONG)]
        connection.executemany("UPDATE entries SET size = size + 1 WHERE root_id = ? AND key = ?", wrong)
        connection.execute("UPDATE roots SET digest = digest - 1 WHERE id = ?", (root,))
        connection.commit()


def _asked(rig: Rig, sql: str) -> int:
    with closing(sqlite3.connect(f"file:{rig.federation.hub.data / 'hub.sqlite'}?mode=ro", uri=True)) as connection:
        return int(connection.execute(sql, (ROOT,)).fetchone()[0])


def _drifted(rig: Rig) -> bool:
    return bool(_asked(rig, "SELECT drifted_at IS NOT NULL FROM roots WHERE name = ?"))


def _rows(rig: Rig) -> int:
    return _asked(rig, "SELECT sequence FROM journals WHERE node_id = (SELECT node_id FROM roots WHERE name = ?)")
