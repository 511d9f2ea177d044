"""B7: reading and writing with a key of wio's, beside the same requests with the server's root key.

The client does as little as it can, so that the server's own work shows: links are signed once and used over and over, on
connections that stay open. A link is checked against the same policies as a signed request.
"""

from __future__ import annotations

import time
from typing import Any, Final

import urllib3

from bench.figure import Figure, percentile, rounded
from bench.rig import Rig, fetch_key, s3
from protocol.grants import Permission

MIB: Final = 1024 * 1024
ROUNDS: Final = 24
"""Turns of each side; one turn is ``SECONDS`` long."""
SECONDS: Final = 0.25
OBJECTS: Final = 16


def measure(rig: Rig, *, grants: int = 1, size: int = 1024) -> Figure:
    """Take turns: a quarter of a second with the one key, a quarter with the other; half the requests write."""
    workspaces = rig.shared(grants, Permission.WRITE)
    place = workspaces[-1]
    key, _ = fetch_key(rig.bob, f"alice/{place.name}")
    return compared(s3(key), rig.root_client(), place.bucket, place.prefix, grants=grants, size=size)


def compared(mine_client: Any, root_client: Any, bucket: str, prefix: str, *, grants: int, size: int) -> Figure:
    """Compare boto3's client with a key of wio's and the one with the root key at the same place."""
    pool = urllib3.PoolManager(retries=False)
    body = b"x" * size
    ours = _Links(pool, mine_client, bucket, prefix, body)
    peer = _Links(pool, root_client, bucket, prefix, body)
    rates: dict[_Links, list[float]] = {ours: [], peer: []}
    for number in range(ROUNDS + 1):
        for side in (ours, peer) if number % 2 else (peer, ours):
            rate = side.turn()
            if number:  # the first one warms up
                rates[side].append(rate)
    mine, theirs = (percentile(rates[side], 50) for side in (ours, peer))
    big = size >= MIB
    return Figure(
        what=f"data path, objects of {'1 MiB' if big else '1 KiB'}, half read, half written",
        unit="MiB/s" if big else "operations/s",
        n=ROUNDS,
        p50=rounded(mine),
        peer="the server's root key",
        peer_p50=rounded(theirs),
        ratio=rounded(mine / theirs),
        goal=f"ratio >= {0.97 if big else 0.8}",
        scale={"grants": grants},
    )


class _Links:
    """Signed links of one key to the same few objects."""

    def __init__(self, pool: urllib3.PoolManager, client: Any, bucket: str, prefix: str, body: bytes) -> None:
        self._pool = pool
        self._body = body
        places = [{"Bucket": bucket, "Key": f"{prefix}b7-{number}"} for number in range(OBJECTS)]
        self._put = [client.generate_presigned_url("put_object", Params=place) for place in places]
        self._get = [client.generate_presigned_url("get_object", Params=place) for place in places]

    def turn(self) -> float:
        """Write and read for a while; return MiB or operations per second, whichever the size asks for."""
        operations, started = 0, time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            for put, get in zip(self._put, self._get, strict=True):
                self._ask("PUT", put, self._body)
                self._ask("GET", get, None)
                operations += 2
        took = time.perf_counter() - started
        return operations * (len(self._body) / MIB if len(self._body) >= MIB else 1) / took

    def _ask(self, method: str, url: str, body: bytes | None) -> None:
        answer = self._pool.request(method, url, body=body)
        if answer.status != 200:
            raise AssertionError(f"{method} was answered with {answer.status}: {answer.data[:300]!r}")
