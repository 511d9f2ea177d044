"""Buckets with very many small objects, made the fastest honest way there is.

Putting objects through the server costs 2 to 6 ms each: an hour for a million, a third of that as archives that it unpacks.
So some hundred are put, and the rest are copies of what the server wrote of these, below other names, on its own disk: MinIO
keeps a small object as one file in a folder named like the key, which does not hold its name. Listing and reading them costs
the server the same; it sends no events for them. A folder in WIO_BENCH_SHELF keeps such buckets for the next run.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from bench.rig import Rig

FOLDER: Final = "data/"
PUT: Final = 97
_SEED: Final = "seed"


def key(number: int) -> str:
    """Return the key of one object: 97 folders, in each one for every thousand."""
    return f"{FOLDER}set-{number % 97:02}/sub-{number // 1000:04}/scan_{number:07}.nii"


def fill(rig: Rig, bucket: str, objects: int) -> None:
    """Make a bucket with so many small objects below FOLDER. Raises AssertionError where the server does not know them."""
    client = rig.root_client()
    client.create_bucket(Bucket=bucket)
    place = rig.server.data / bucket
    kept = _kept(bucket, objects)
    if kept is not None and kept.is_dir():
        place.rmdir()
        shutil.move(kept, place)
    else:
        _copy(rig, bucket, objects)
    for number in {0, objects // 2, objects - 1}:
        size = client.head_object(Bucket=bucket, Key=key(number))["ContentLength"]
        if size != len(_body(number % PUT)):
            raise AssertionError(f"{key(number)} has {size} bytes")


def keep(rig: Rig, bucket: str, objects: int) -> None:
    """Put a bucket on the shelf, where there is one: the server has no use for it any more."""
    kept = _kept(bucket, objects)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(rig.server.data / bucket, kept)


def _kept(bucket: str, objects: int) -> Path | None:
    shelf = os.environ.get("WIO_BENCH_SHELF")
    return Path(shelf) / f"{bucket}-{objects}" if shelf else None


def _body(number: int) -> bytes:
    return f"object {number}\n".encode()


def _copy(rig: Rig, bucket: str, objects: int) -> None:
    client, place = rig.root_client(), rig.server.data / bucket
    written = []
    for number in range(min(PUT, objects)):
        client.put_object(Bucket=bucket, Key=f"{_SEED}/{number}", Body=_body(number))
        written.append((place / _SEED / str(number) / "xl.meta").read_bytes())
        client.delete_object(Bucket=bucket, Key=f"{_SEED}/{number}")
    for number in range(objects):
        folder = f"{place}/{key(number)}"
        try:
            os.mkdir(folder)  # noqa: PTH102 - a million times: pathlib would cost as much as the disk
        except FileNotFoundError:
            os.makedirs(folder)  # noqa: PTH103 - as above
        file = os.open(f"{folder}/xl.meta", os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            os.write(file, written[number % PUT])
        finally:
            os.close(file)
