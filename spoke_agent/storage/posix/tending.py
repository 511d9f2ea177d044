"""Putting right, file by file, what the gateway says of a tree. Blocking; runs as a program that gives way to all others.

As a program (``python -m spoke_agent.storage.posix.tending``) it reads one request from standard input and writes to standard
output how it ended. A million files that nobody has looked at before are two minutes of a processor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from spoke_agent.storage.posix.looking import see
from spoke_agent.storage.posix.sidecar import Sidecar
from spoke_agent.storage.posix.walking import Broke, End, Notes, Request, Walk, etag_of

GIVES_WAY: Final = 10
"""``nice(2)``."""


class Tending(msgspec.Struct, frozen=True):
    """What to put right: files of ``bucket`` in ``folders``. What is gone below ``prefix`` is forgotten.

    ``spaces`` and ``inodes`` as for a walk.
    """

    directory: str
    sidecar: str
    bucket: str
    prefix: str
    folders: tuple[str, ...]
    spaces: tuple[str, ...]
    inodes: bool


def tend(asked: Tending) -> None:
    """Do it. Raises OSError."""
    sidecar, directory = Sidecar(Path(asked.sidecar)), Path(asked.directory)
    for folder in asked.folders:
        for page in Walk(Request(asked.directory, folder, "", asked.spaces, asked.inodes)).pages():
            for key, _, _, etag in page:
                found, _ = see(directory, key, asked.spaces)
                if found is not None and etag_of(found, inodes=asked.inodes) == etag:
                    sidecar.settle(asked.bucket, key, found, etag)
    for key in sidecar.known(asked.bucket, asked.prefix):
        if not os.path.lexists(directory / key) and directory.is_dir():
            sidecar.drop(asked.bucket, key)


def main(source: BinaryIO, target: BinaryIO) -> None:
    """Read a request, do it, write how it ended."""
    asked = msgspec.msgpack.decode(source.read(), type=Tending)
    with contextlib.suppress(OSError):
        os.nice(GIVES_WAY)
    answer: End | Broke = End(Notes())
    try:
        tend(asked)
    except OSError as error:
        answer = Broke(error.errno or errno.EIO, "")
    target.write(msgspec.msgpack.encode(answer))
    target.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
