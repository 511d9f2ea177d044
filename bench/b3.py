"""B3: from a bucket full of small objects to all of them searchable, beside listing the bucket with mc."""

from __future__ import annotations

import io
import os
import tarfile
import time

from bench.figure import Figure, rounded
from bench.peers import mc_lists
from bench.rig import NODE, Rig
from deploy.running import until
from protocol.api import NewRoot, RootKind

OBJECTS = int(os.environ.get("WIO_BENCH_OBJECTS", "100000"))
PER_ARCHIVE = 5000
BUCKET, FOLDER, WORKSPACE = "b3-import", "data/", "b3"


def measure(rig: Rig) -> Figure:
    """Fill a bucket, list it with mc, import it, list it with mc again; the peer is the mean of its two runs."""
    fill(rig, BUCKET, OBJECTS)
    listed, before = mc_lists(rig.server, BUCKET)
    started = time.perf_counter()
    rig.alice.create_root(NewRoot(NODE, BUCKET, RootKind.UNMANAGED_PRIVATE, BUCKET, accept_visible_names=True))
    rig.alice.create_workspace(WORKSPACE, root=f"{NODE}/{BUCKET}", folder=FOLDER)  # in no workspace nothing would be indexed
    until("everything searchable", lambda: searchable(rig, BUCKET) >= OBJECTS, seconds=600, every=0.2)
    took = time.perf_counter() - started
    found = rig.alice.search(f"in:{WORKSPACE}").total
    if found != OBJECTS:
        raise AssertionError(f"a search finds {found} of {OBJECTS} objects")
    _, after = mc_lists(rig.server, BUCKET)
    if listed != OBJECTS:
        raise AssertionError(f"mc lists {listed} of {OBJECTS} objects")
    rate, peer = OBJECTS / took, OBJECTS / ((before + after) / 2)
    return Figure(
        what="import: from the bucket to searchable",
        unit="objects/s",
        n=1,
        p50=rounded(rate),
        peer="mc ls -r of the same bucket",
        peer_p50=rounded(peer),
        ratio=rounded(rate / peer),
        goal="ratio >= 0.8",
        scale={"objects": OBJECTS},
    )


def searchable(rig: Rig, root: str) -> int:
    """Return how many objects of a root a search finds by now."""
    return rig.alice.scan_status(NODE, root).searchable


def fill(rig: Rig, bucket: str, objects: int) -> None:
    """Put so many small objects into a new bucket, a few thousand at a time: the server unpacks archives itself."""
    client = rig.root_client()
    client.create_bucket(Bucket=bucket)
    client.meta.events.register("before-call.s3.PutObject", _unpack)
    for first in range(0, objects, PER_ARCHIVE):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for number in range(first, min(first + PER_ARCHIVE, objects)):
                body = f"object {number}\n".encode()
                member = tarfile.TarInfo(f"{FOLDER}set-{number % 97:02}/sub-{number // 1000:04}/scan_{number:07}.nii")
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))
        client.put_object(Bucket=bucket, Key="archive.tar", Body=packed.getvalue())


def _unpack(params: dict[str, dict[str, str]], **_: object) -> None:
    params["headers"]["X-Amz-Meta-Snowball-Auto-Extract"] = "true"
