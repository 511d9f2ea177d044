"""Files that only their owner may read: written whole or not at all, 0600 in a 0700 directory, and locked for a change.

The one place of the client that touches the disk on its own account.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from protocol.errors import BadSetting, DiskFull, WioError
from protocol.names import shown

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def read(path: Path) -> bytes | None:
    """Return what is in a file, None where there is none; raise BadSetting if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _trouble(path, error) from error


def write(path: Path, content: bytes) -> None:
    """Put ``content`` in the place of a file, all at once, readable by its owner only; raise BadSetting or DiskFull."""
    try:
        _room(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _trouble(path, error) from error


def remove(path: Path) -> None:
    """Remove a file if it is there; raise BadSetting if it cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _trouble(path, error) from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only one who changes ``path``; whoever comes meanwhile waits. The lock ends with the process, too."""
    try:
        _room(path.parent)
        lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _trouble(path, error) from error
    try:
        _lock(lock)
        yield
    finally:
        os.close(lock)


def _room(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


if sys.platform == "win32":  # pragma: no cover

    def _lock(_: int) -> None:
        """Do nothing: replacing is atomic there as well, and two at once cost a second key only."""
else:
    import fcntl

    def _lock(lock: int) -> None:
        fcntl.flock(lock, fcntl.LOCK_EX)


def _trouble(path: Path, error: OSError) -> WioError:
    why = error.strerror or type(error).__name__
    if error.errno in _NO_ROOM:
        return DiskFull(f"There is no room left to write {shown(str(path))}.", todo="Free some space and try again.")
    return BadSetting(
        f"{shown(str(path))} cannot be used: {why}.",
        todo="Check who owns it, or point WIO_CONFIG at a directory of your own.",
    )
