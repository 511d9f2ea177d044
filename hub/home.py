"""The hub's data directory: made at the first start, held by one hub at a time, and home of the secret."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hub.settings import MIN_SECRET
from protocol.errors import BadSetting, Conflict, DiskFull, WioError

SECRET_FILE: Final = "secret"  # noqa: S105  - the name of the file, not what is in it
LOCK_FILE: Final = "lock"
_SECRET_BYTES: Final = 32


def make_home(data: Path) -> None:
    """Make the data directory, readable by its owner only. Raises BadSetting or DiskFull where it cannot be written."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = data / f".writable-{os.getpid()}"
        probe.write_bytes(b"wio")  # a full disk makes empty files gladly
        probe.unlink()
    except OSError as error:
        raise trouble(data, error) from error


def trouble(path: Path, error: OSError) -> WioError:
    """Turn what the operating system says about the data directory into an error that says what to do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"There is no space left to write in {path}.", todo="Make room there, or move WIO_DATA.")
    return BadSetting(
        f"The data directory {path} cannot be used: {error.strerror or error}.",
        todo="Set WIO_DATA, or --data, to a directory that this user may write.",
    )


@contextmanager
def hold(data: Path) -> Iterator[None]:
    """Hold the data directory for this process; raise Conflict if another one has it.

    The operating system lets go of the lock when the process ends, however it ends.
    """
    try:
        descriptor = os.open(data / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise trouble(data, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"Another wio-hub is using {data}{_holder(descriptor)}.",
                todo="Stop that one first, or give this one a directory of its own with --data.",
            ) from error
        with contextlib.suppress(OSError):  # the number is for people; a full disk must not keep a hub from stopping work
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def held(data: Path) -> bool:
    """Say whether a hub is using this data directory now."""
    try:
        with hold(data):
            return False
    except Conflict:
        return True


def _holder(descriptor: int) -> str:
    number = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
    return f" (process {number})" if number.isdecimal() else ""


def open_secret(data: Path, *, fresh: bytes) -> str:
    """Return the secret in the data directory; the first time, make it of ``fresh``, 32 random bytes.

    Raises BadSetting where the file cannot be used, DiskFull where it cannot be written.
    """
    path = data / SECRET_FILE
    try:
        with contextlib.suppress(FileExistsError):
            _write_once(path, fresh.hex())
        mode = path.stat().st_mode
        text = path.read_text("ascii").strip()
    except UnicodeDecodeError as error:
        raise BadSetting(f"The secret in {path} cannot be read.", todo="Restore it from a backup.") from error
    except OSError as error:
        raise trouble(data, error) from error
    if mode & 0o077:
        raise BadSetting(f"Others on this machine can read the secret in {path}.", todo=f"Run: chmod 600 {path}")
    if len(text) < MIN_SECRET:
        raise BadSetting(f"The secret in {path} is cut off.", todo="Restore it from a backup, or set WIO_SECRET.")
    return text


def _write_once(path: Path, text: str) -> None:
    """Write a whole file under a name that is free: never half of one, whatever happens in between."""
    if path.exists():
        raise FileExistsError(path)
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.link(draft, path)
    finally:
        draft.unlink()
