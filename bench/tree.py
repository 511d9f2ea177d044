"""TREE: a directory of many files to searchable, and the scan of it alone, beside ``find -printf`` of the same tree."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Final

from bench.figure import Figure, percentile, rounded
from bench.rig import Rig
from deploy.running import until
from protocol.api import NewRoot, RootKind
from protocol.messages import IndexLevel, RootConfig
from protocol.names import Layout
from spoke_agent.storage.posix.exports import Export, Exports
from spoke_agent.storage.posix.sidecar import Sidecar
from spoke_agent.storage.posix.tree import Tree

NODE: Final = "nas"
FOLDER: Final = "all"
ROUNDS: Final = 3
PER_FOLDER: Final = 100


def measure(rig: Rig) -> Figure:
    """Make a tree, let find and the agent's own scan take turns over it, then import it through agent and hub."""
    objects, top = rig.objects, rig.federation.folder / "tree"
    grow(top, objects)
    rig.federation.directory(NODE, rig.owner, top)
    finds, scans, halves = [], [], []
    for _ in range(ROUNDS):
        finds.append(_find(top, objects))
        scans.append(asyncio.run(_scan(top, objects, spans=1)))
        halves.append(asyncio.run(_scan(top, objects, spans=2)))
    rig.alice.create_root(NewRoot(NODE, "tree", RootKind.UNMANAGED_PRIVATE, "tree"))
    began = time.perf_counter()
    rig.alice.create_workspace("tree", root=f"{NODE}/tree", folder=f"{FOLDER}/")
    until(
        "everything searchable",
        lambda: rig.alice.scan_status(NODE, "tree").searchable >= objects,
        seconds=max(600.0, objects / 1_000),
        every=0.2,
    )
    took = time.perf_counter() - began
    peer, alone, two = (percentile(values, 50) for values in (finds, scans, halves))
    rate = objects / took
    return Figure(
        what="directory node, import: from the tree to searchable",
        unit="objects/s",
        n=1,
        p50=rounded(rate),
        peer="find -printf of the same tree",
        peer_p50=rounded(peer),
        ratio=rounded(rate / peer),
        goal="ratio >= 0.5",
        scale={
            "objects": objects,
            "scan-alone": rounded(alone),
            "scan-alone-ratio": rounded(alone / peer),
            "scan-in-two": rounded(two),
            "scan-in-two-ratio": rounded(two / peer),
        },
    )


def grow(top: Path, objects: int) -> None:
    """Make so many empty files, a hundred to a folder."""
    for number in range(0, objects, PER_FOLDER):
        folder = top / FOLDER / f"s{number // (PER_FOLDER * 100):04}" / f"d{number // PER_FOLDER % 100:02}"
        folder.mkdir(parents=True)
        for one in range(number, min(number + PER_FOLDER, objects)):
            (folder / f"file-{one:08}.dat").touch()


def _find(top: Path, objects: int) -> float:
    began = time.perf_counter()
    command = ["find", str(top), "-name", ".sgwtmp", "-prune", "-o", "-type", "f", "-printf", "%p %s %T@ %C@ %i\n"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    took = time.perf_counter() - began
    if (found := done.stdout.count(b"\n")) != objects:
        raise AssertionError(f"find finds {found} of {objects} files")
    return objects / took


async def _scan(top: Path, objects: int, *, spans: int) -> float:
    """Return files a second of the listing that the agent does, side by side in so many parts."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Exports([Export("tree", str(top))]), Sidecar(Path(folder)), writable=lambda _: ())
        root = RootConfig(1, "tree", "tree", "", Layout.PREFIX, IndexLevel.NAMES)
        began = time.perf_counter()
        borders = await tree.ranges(root)
        cuts = ["", *(borders[len(borders) * at // spans] for at in range(1, spans)), ""]
        found = await asyncio.gather(*(_part(tree, root, cuts[at], cuts[at + 1]) for at in range(spans)))
        took = time.perf_counter() - began
        await tree.close()
    if sum(found) != objects:
        raise AssertionError(f"a scan finds {sum(found)} of {objects} files")
    return objects / took


async def _part(tree: Tree, root: RootConfig, low: str, high: str) -> int:
    found = 0
    async with aclosing(tree.scan(root, start_after=low)) as pages:
        async for page in pages:
            if high and page[-1].key >= high:
                return found + sum(one.key < high for one in page)
            found += len(page)
    return found
