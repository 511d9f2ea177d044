"""Linux's inotify, as thin as it can be. Names are bytes: a file system holds names that are no text.

Not the ``watchfiles`` package, which is built on it (docs/decisions/0012): that one drops events in an overflow without
saying so, dies of a name that is not UTF-8, and watches through links, out of the tree.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import Final, NamedTuple

MODIFY: Final = 0x2
ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
UNMOUNT: Final = 0x2000
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
FOLDER: Final = 0x40000000
"""What happened, happened to a folder."""

_ONLY_FOLDERS: Final = 0x1000000
_NO_LINKS: Final = 0x2000000
_NO_UNLINKED: Final = 0x4000000
_WANTED: Final = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
_HEAD: Final = struct.Struct("iIII")
_READ: Final = 128 * 1024
"""Bytes taken at once: some 3,000 events, 5 ms of the loop's time."""


class Event(NamedTuple):
    """One thing that happened in (or to) a watched folder."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """One queue of events. Raises OSError: EMFILE where the system gives no more queues, ENOSPC no more watches."""

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, "There is no inotify on this system.")
        self._library = ctypes.CDLL(None, use_errno=True)
        self._handle = self._checked(self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        """Return the handle, for waiting until there is something to read."""
        return self._handle

    def add(self, path: bytes) -> int:
        """Watch a folder (no link); what lies in folders below it is not watched."""
        wanted = _WANTED | _ONLY_FOLDERS | _NO_LINKS | _NO_UNLINKED
        return self._checked(self._library.inotify_add_watch(self._handle, path, ctypes.c_uint32(wanted)), path)

    def remove(self, watch: int) -> None:
        """End a watch; fine if it has ended."""
        self._library.inotify_rm_watch(self._handle, watch)

    def read(self) -> list[Event]:
        """Return what has happened; nothing if nothing has."""
        try:
            content = os.read(self._handle, _READ)
        except BlockingIOError:
            return []
        events, at = [], 0
        while at < len(content):
            watch, mask, _, size = _HEAD.unpack_from(content, at)
            at += _HEAD.size
            events.append(Event(watch, mask, content[at : at + size].rstrip(b"\0")))
            at += size
        return events

    def close(self) -> None:
        """End all watches."""
        os.close(self._handle)

    def _checked(self, answer: int, path: bytes = b"") -> int:
        if answer < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return answer
