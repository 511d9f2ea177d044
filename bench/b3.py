"""B3: from a bucket full of small objects to all of them searchable, beside listing the bucket with mc."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import psutil

from bench.buckets import FOLDER, fill, keep
from bench.figure import Figure, rounded
from bench.peers import mc_lists
from bench.rig import NODE, Rig
from deploy.running import until
from protocol.api import NewRoot, RootKind

BUCKET, WORKSPACE = "b3-import", "b3"
MIB: Final = 1024 * 1024


def measure(rig: Rig) -> Figure:
    """Fill a bucket, list it with mc, import it, list it with mc again; the peer is the mean of its two runs."""
    objects = rig.objects
    fill(rig, BUCKET, objects)
    _, _ = mc_lists(rig.server, BUCKET)  # once for nobody: the files of the first listing may still be on their way to the disk
    listed, before = mc_lists(rig.server, BUCKET)
    if listed != objects:
        raise AssertionError(f"mc lists {listed} of {objects} objects")
    watch = Watch(rig)
    began = time.perf_counter()
    import_bucket(rig)
    until("everything searchable", watch.over(lambda: searchable(rig, BUCKET) >= objects), seconds=1200, every=0.2)
    took = time.perf_counter() - began
    found = rig.alice.search(f"in:{WORKSPACE}").total
    if found != objects:
        raise AssertionError(f"a search finds {found} of {objects} objects")
    _, after = mc_lists(rig.server, BUCKET)
    keep(rig, BUCKET, objects)
    rate, peer = objects / took, objects / ((before + after) / 2)
    return Figure(
        what=f"import: from the bucket (copies on MinIO's disk) to searchable, {rig.kept_in}",
        unit="objects/s",
        n=1,
        p50=rounded(rate),
        peer="mc ls -r of the same bucket",
        peer_p50=rounded(peer),
        ratio=rounded(rate / peer),
        goal="ratio >= 0.8",
        scale={"objects": objects, **watch.said(objects)},
    )


def import_bucket(rig: Rig) -> None:
    """Begin the import: every object of the bucket is news to agent and hub."""
    rig.alice.create_root(NewRoot(NODE, BUCKET, RootKind.UNMANAGED_PRIVATE, BUCKET, accept_visible_names=True))
    rig.alice.create_workspace(WORKSPACE, root=f"{NODE}/{BUCKET}", folder=FOLDER)  # in no workspace nothing would be indexed


def searchable(rig: Rig, root: str) -> int:
    """Return how many objects of a root a search finds by now."""
    return rig.alice.scan_status(NODE, root).searchable


class Watch:
    """What hub, agent and storage spend meanwhile: processor time, and memory at most."""

    def __init__(self, rig: Rig) -> None:
        self._wal = rig.federation.hub.data / "hub.sqlite-wal"
        self._there = {
            name: psutil.Process(program.pid)
            for name, program in (("hub", rig.federation.hub), ("agent", rig.agent), ("storage", rig.server))
        }
        self._before = self._spent()
        self._most = dict.fromkeys(self._there, 0.0)
        self._longest_wal = 0

    def _spent(self) -> dict[str, float]:
        return {name: sum(one.cpu_times()[:2]) for name, one in self._there.items()}

    def over(self, ready: Callable[[], bool]) -> Callable[[], bool]:
        """Return ``ready``, having a look at the processes each time that it is asked."""

        def looked() -> bool:
            for name, one in self._there.items():
                self._most[name] = max(self._most[name], one.memory_info().rss / MIB)
            if self._wal.exists():
                self._longest_wal = max(self._longest_wal, self._wal.stat().st_size)
            return ready()

        return looked

    def said(self, rows: int) -> dict[str, int | float | str]:
        """Return it for a figure's ``scale``; processor time as microseconds for each of so many rows."""
        now = self._spent()
        spent = {f"{name} us/row": rounded((now[name] - self._before[name]) * 1e6 / rows) for name in self._there}
        most = {f"{name} MiB": rounded(self._most[name]) for name in ("hub", "agent")}
        return {**spent, **most, "WAL MiB": rounded(self._longest_wal / MIB)}
