"""B4: from a change in the bucket to the answer of a search."""

from __future__ import annotations

import time

from bench.b3 import BUCKET, import_bucket
from bench.buckets import fill, keep
from bench.figure import Figure, percentile, rounded
from bench.rig import NODE, Rig, fetch_key, s3
from protocol.messages import ScanState

ROUNDS = 200
DEADLINE_S = 10


def measure(rig: Rig, *, load: bool = False) -> Figure:
    """Put a file with one's own key and tools, then search until it is found. The search itself is part of it.

    With ``load``, the same agent imports a bucket of small objects all the while.
    """
    rig.alice.create_workspace("b4")
    key, opened = fetch_key(rig.alice, "b4")
    client, place = s3(key), opened.opens[0]
    if load:
        fill(rig, BUCKET, rig.objects)
        import_bucket(rig)
    took = []
    for number in range(ROUNDS):
        name = f"change{number:05}x.dat"
        client.put_object(Bucket=place.bucket, Key=place.prefix + name, Body=b"new")
        changed = time.perf_counter()
        while not rig.alice.search(f"name:{name} in:b4").hits:
            if time.perf_counter() - changed > DEADLINE_S:
                raise AssertionError(f"{name} is not found after {DEADLINE_S} s")
        took.append((time.perf_counter() - changed) * 1000)
        if load and rig.alice.scan_status(NODE, BUCKET).state is ScanState.DONE:
            break  # what comes now is no longer under load
    if load:
        keep(rig, BUCKET, rig.objects)
    return Figure(
        what=f"a change to searchable{', while a bucket is imported' if load else ''}",
        unit="ms",
        n=len(took),
        p50=rounded(percentile(took, 50)),
        p99=rounded(percentile(took, 99)),
        goal="p50 <= 500 ms, p99 <= 2 s",
        scale={"objects": rig.objects} if load else {},
    )
