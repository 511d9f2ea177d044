"""Walking through a directory in the order of its keys. Blocking; runs in a thread, or in a process of its own.

As a program (``python -m spoke_agent.storage.posix.walking``) it reads one request from standard input and writes pages to
standard output: listing a million files takes a processor several seconds that the agent's keys must not wait for.

Nothing is followed that could lead elsewhere: every folder is opened from the one above it, never through a link. Files are
only looked at (``lstat``), never opened, so that a FIFO or a device cannot hold the walk.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Generator, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from protocol.names import MAX_KEY_BYTES

TEMPORARY: Final = ".sgwtmp"
"""The gateway's own folder for what is being uploaded; it lists nothing of this name, on any level."""
BESIDE: Final = "meta"
"""The sidecar keeps what it knows of a bucket under this name, so nothing of this name at a bucket's top can be served."""
PAGE: Final = 2_000
NOTED: Final = 10_000
"""Oddities of one kind remembered by name; beyond that they are only counted."""

_BEING_WRITTEN: Final = re.compile(r"\..*\.sgwtmp\.\d+\Z", re.DOTALL)
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Row = tuple[str, int, int, str]
"""Key, size, mtime in nanoseconds, etag."""


class Request(msgspec.Struct, frozen=True):
    """What to walk through: keys of ``directory`` that begin with ``prefix`` and come after ``after``.

    ``spaces`` are folders (keys ending in ``/``) inside which a link may point anywhere; outside of them a link may point
    below its own folder only. ``inodes``: whether this file system keeps a file's inode number for good.
    """

    directory: str
    prefix: str = ""
    after: str = ""
    spaces: tuple[str, ...] = ()
    inodes: bool = True


class Notes(msgspec.Struct):
    """What was met and is not served. Keys as far as they can be said; bounded."""

    refused: list[str] = []
    """Links that lead elsewhere, FIFOs, devices, sockets: a gateway that was asked for them would follow or hang."""
    followed: list[str] = []
    """Links that lead to what may be served."""
    unreadable: list[str] = []
    """Folders that this user may not list."""
    mangled: int = 0
    """Names that are not UTF-8."""
    lost: int = 0
    """What did not find room in the lists above."""

    def note(self, where: list[str], key: str) -> None:
        """Remember a key, or count it."""
        if len(where) < NOTED:
            where.append(key)
        else:
            self.lost += 1


class Page(msgspec.Struct, tag=True, array_like=True):
    """Rows in order."""

    rows: list[Row]


class End(msgspec.Struct, tag=True, array_like=True):
    """The walk came to its end."""

    notes: Notes


class Broke(msgspec.Struct, tag=True, array_like=True):
    """The walk cannot go on: the file system answered with this error."""

    number: int
    key: str


def gone(error: OSError) -> bool:
    """Say whether an error means that something is not there, and not that it cannot be asked."""
    return error.errno in _GONE


def too_long(error: OSError) -> bool:
    """Say whether an error means that no file system holds such a name."""
    return error.errno == errno.ENAMETOOLONG


def hidden(name: str) -> bool:
    """Say whether a name is one that the gateway uses for itself."""
    return name.startswith(".") and (name == TEMPORARY or _BEING_WRITTEN.match(name) is not None)


def parts_of(key: str) -> list[str] | None:
    """Return the names that a key or folder is made of; None where no file of a tree is served under it."""
    if not key.isascii() and not _is_text(key):
        return None
    parts = key.removesuffix("/").split("/") if key else []
    if any(part in {"", ".", ".."} or "\0" in part or hidden(part) for part in parts):
        return None
    return None if parts[:1] == [BESIDE] else parts


def etag_of(found: os.stat_result, *, inodes: bool = True) -> str:
    """Return what changes whenever a file changes: an overwrite with the same size and time moves inode or ctime.

    It never looks like an MD5, which some tools compare contents with.
    """
    return f"wio-{found.st_ino if inodes else 0:x}-{found.st_ctime_ns:x}-{found.st_size:x}"


def reach(directory: Path | str, parts: Sequence[str], flags: int = _PATH) -> int:
    """Open a folder of the tree without following a link on the way; the directory itself may be one. Raises OSError."""
    held = os.open(directory, (flags if not parts else _PATH) & ~os.O_NOFOLLOW)
    try:
        for at, part in enumerate(parts):
            below = os.open(part.encode(), flags if at == len(parts) - 1 else _PATH, dir_fd=held)
            os.close(held)
            held = below
    except BaseException:
        os.close(held)
        raise
    return held


def leads(directory: Path | str, key: str, spaces: Sequence[str]) -> str | None:
    """Return the real path that a link at ``key`` leads to if it may be followed: to what its readers may read anyway.

    None where it leads out of the tree, or (a link is no grant) out of the space it lies in.
    """
    top = os.path.realpath(directory)
    space = max((one for one in spaces if key.startswith(one)), key=len, default=None)
    if space is None:
        space = key[: key.rfind("/") + 1]
    target = os.path.realpath(f"{top}/{key}")
    inside = f"{top.rstrip('/')}/{space}"
    if not target.startswith(inside):
        return None
    below = target[len(top.rstrip("/")) + 1 :]
    return target if parts_of(below) else None


class Walk:
    """One walk. ``pages`` may be iterated once; ``notes`` is complete when it has come to its end."""

    def __init__(self, asked: Request) -> None:
        self._asked = asked
        self.notes = Notes()
        self.at = asked.prefix
        self._stack: list[tuple[int, str, Iterator[tuple[str, os.DirEntry[str]]]]] = []

    def pages(self, size: int = PAGE) -> Generator[list[Row], None, None]:
        """Yield rows in the order of the keys' UTF-8 bytes. Raises OSError where the file system does not answer."""
        rows: list[Row] = []
        try:
            self._begin()
            while self._stack:
                held, front, left = self._stack[-1]
                for order, entry in left:
                    if order.endswith("/"):
                        if self._descend(held, front + order, order[:-1]):
                            break
                    elif (row := self._row(front + order, entry)) is not None:
                        rows.append(row)
                        if len(rows) >= size:
                            yield rows
                            rows = []
                else:
                    self._stack.pop()
                    os.close(held)
            if rows:
                yield rows
        finally:
            while self._stack:
                os.close(self._stack.pop()[0])

    def _begin(self) -> None:
        """Open the folder that the prefix lies in; where it is not there, or may not be listed, nothing is."""
        folder = self._asked.prefix[: self._asked.prefix.rfind("/") + 1]
        parts = parts_of(folder)
        if parts is None:
            return
        try:
            held = reach(self._asked.directory, parts, _DIRECTORY)
        except OSError as error:
            if not parts or not (gone(error) or too_long(error) or isinstance(error, PermissionError)):
                raise
            if isinstance(error, PermissionError):
                self.notes.note(self.notes.unreadable, folder)
            return
        self._push(held, folder)

    def _descend(self, held: int, key: str, name: str) -> bool:
        below = self._open(held, key, name)
        if below is None:
            return False
        self._push(below, key)
        return True

    def _push(self, held: int, front: str) -> None:
        self._stack.append((held, front, iter(())))  # from here on it is closed, whatever happens
        self._stack[-1] = (held, front, iter(self._level(held, front)))

    def _level(self, held: int, front: str) -> list[tuple[str, os.DirEntry[str]]]:
        """Return what of one folder belongs to this walk, in order: folders sort as their name and a slash."""
        self.at = front
        prefix, after = self._asked.prefix, self._asked.after
        # Most folders lie in the middle of a walk, where nothing has to be compared.
        whole = front.startswith(prefix) and (not after or after < front)
        found = []
        try:
            listing = os.scandir(held)
        except PermissionError:
            self.notes.note(self.notes.unreadable, front)
            return []
        with listing:
            for entry in listing:
                name = entry.name
                if not name.isascii() and not _is_text(name):
                    self.notes.mangled += 1
                    continue
                if (name[0] == "." and hidden(name)) or (not front and name == BESIDE and entry.is_dir(follow_symlinks=False)):
                    continue
                order = name + "/" if entry.is_dir(follow_symlinks=False) else name
                if whole or _belongs(front + order, prefix, after):
                    found.append((order, entry))
        found.sort(key=itemgetter(0))
        return found

    def _open(self, held: int, key: str, name: str) -> int | None:
        try:
            return os.open(os.fsencode(name), _DIRECTORY, dir_fd=held)
        except PermissionError:
            self.notes.note(self.notes.unreadable, key)
        except OSError as error:
            self.at = key
            if not gone(error):
                raise
        return None

    def _row(self, key: str, entry: os.DirEntry[str]) -> Row | None:
        try:
            found = entry.stat(follow_symlinks=False)
            mode = found.st_mode
            if stat.S_ISLNK(mode):
                linked = self._linked(key)
                if linked is None:
                    return None
                found = linked
            elif not stat.S_ISREG(mode):
                self.notes.note(self.notes.refused, key)
                return None
        except PermissionError:
            return None
        except OSError as error:
            self.at = key
            if not gone(error):
                raise
            return None
        if len(key) > MAX_KEY_BYTES // 4 and len(key.encode()) > MAX_KEY_BYTES:
            return None
        return key, found.st_size, found.st_mtime_ns, etag_of(found, inodes=self._asked.inodes)

    def _linked(self, key: str) -> os.stat_result | None:
        """Look at what a link leads to; None where that is no file, or nothing that may be served."""
        target = leads(self._asked.directory, key, self._asked.spaces)
        if target is None:
            self.notes.note(self.notes.refused, key)
            return None
        self.notes.note(self.notes.followed, key)
        found = Path(target).lstat()
        if stat.S_ISDIR(found.st_mode):
            return None  # served under its own name
        if not stat.S_ISREG(found.st_mode):
            self.notes.note(self.notes.refused, key)
            return None
        return found


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _belongs(key: str, prefix: str, after: str) -> bool:
    """Say whether a key, or any below a folder (ending in a slash), begins with ``prefix`` and comes after ``after``."""
    if key.endswith("/"):
        return (key.startswith(prefix) or prefix.startswith(key)) and (key > after or after.startswith(key))
    return key.startswith(prefix) and key > after


def main(source: BinaryIO, target: BinaryIO) -> None:
    """Read a request, write pages: each message as its length in four bytes and itself."""
    asked = msgspec.msgpack.decode(source.read(), type=Request)
    encode = msgspec.msgpack.Encoder().encode

    def send(message: Page | End | Broke) -> None:
        body = encode(message)
        target.write(len(body).to_bytes(4, "big"))
        target.write(body)
        target.flush()

    walk = Walk(asked)
    try:
        for rows in walk.pages():
            send(Page(rows))
        send(End(walk.notes))
    except BrokenPipeError:
        raise
    except OSError as error:
        send(Broke(error.errno or errno.EIO, walk.at))


if __name__ == "__main__":
    try:
        main(sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:  # whoever asked has gone
        os._exit(0)
