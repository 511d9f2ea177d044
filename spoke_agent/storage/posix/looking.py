"""Looking at a tree: at its directory, at one file, at what a link leads to. Blocking; opens files only to read them.

What the file system answers is told apart with care: that something is not there, that it may not be seen, and that nobody
knows. A directory that does not answer is unreachable and one that is gone is missing; neither is ever empty.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from protocol.errors import Conflict, NotAllowed, RootMissing, StorageUnreachable
from protocol.messages import RootConfig
from protocol.names import shown
from spoke_agent.storage.posix.volume import born, steady, volume_of
from spoke_agent.storage.posix.walking import BESIDE, gone, hidden, leads, parts_of, reach, too_long

T = TypeVar("T")

BORDERS: Final = 64
"""Folders that a root is cut at, at most."""
DEEP: Final = 3
"""Levels gone down while there is only one folder."""
LEVEL: Final = 20_000
"""Names of one level looked at in search of folders."""

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def told(directory: Path, what: Callable[..., T], *arguments: object) -> T:
    """Do something; what the file system answers becomes one of our own errors."""
    try:
        return what(*arguments)
    except OSError as error:
        raise unreachable(directory, error) from error


def unreachable(directory: Path, error: OSError) -> Exception:
    """Return the error of ours that says what the file system answered."""
    if gone(error):
        return missing(directory)
    if isinstance(error, PermissionError):
        return RootMissing(
            f"{directory} may not be listed by the user that the agent runs as.",
            todo="Give that user access, or run the agent as another one.",
        )
    return StorageUnreachable(f"{directory} does not answer: {error.strerror or error}.")


def missing(directory: Path) -> RootMissing:
    """Return the error that says that a directory is gone."""
    return RootMissing(f"The directory {directory} is not there.", todo="Check its name, and that its disk is mounted.")


def identity(directory: Path, root: RootConfig) -> str:
    """Return which directory of which file system a root lies in. Raises RootMissing, StorageUnreachable."""
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise unreachable(directory, error) from error
    try:
        with os.scandir(held) as listing:
            next(listing, None)  # that it answers counts, not only that it has a name
        found = os.fstat(held)
        inode = found.st_ino if steady(directory) else 0
        said = f"{inode} of {born(directory)} on {volume_of(directory)}"
        for parts in _upwards(parts_of(root.prefix) or []):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                below = directory.joinpath(*parts)
                if below.stat().st_dev != found.st_dev:
                    said += f", then {volume_of(below)}"
                break
    except OSError as error:
        raise unreachable(directory, error) from error
    finally:
        os.close(held)
    return said


def _upwards(parts: list[str]) -> Iterator[list[str]]:
    for count in range(len(parts), 0, -1):
        yield parts[:count]


def folders(directory: Path, prefix: str) -> list[str]:
    """Return folders below a prefix that split what lies there, in order; none where there is no good split."""
    top = prefix[: prefix.rfind("/") + 1]
    found: list[str] = []
    for _ in range(DEEP):
        found = sorted(_below(directory, top, prefix))
        if len(found) != 1:
            break
        top = prefix = found[0]
    if len(found) < 2:  # noqa: PLR2004 - one folder splits nothing
        return []
    step = -(-len(found) // BORDERS)
    return found[::step]


def _below(directory: Path, top: str, prefix: str) -> Iterator[str]:
    parts = parts_of(top)
    if parts is None:
        return
    try:
        held = reach(directory, parts, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if parts and (gone(error) or isinstance(error, PermissionError)):
            return
        raise
    try:
        with os.scandir(held) as listing:
            for number, entry in enumerate(listing):
                if number >= LEVEL:
                    return
                name = entry.name
                if not entry.is_dir(follow_symlinks=False) or hidden(name) or (not top and name == BESIDE):
                    continue
                if name.isprintable() and (top + name + "/").startswith(prefix):
                    yield top + name + "/"
    finally:
        os.close(held)


def see(directory: Path, key: str, spaces: Sequence[str]) -> tuple[os.stat_result | None, bool]:
    """Look at what lies at a key: None where nothing is served there, and whether that is because it must not be."""
    parts = parts_of(key)
    if not parts or key.endswith("/"):
        there(directory)
        return None, False
    try:
        held = reach(directory, parts[:-1])
    except OSError as error:
        if gone(error) or too_long(error) or isinstance(error, (PermissionError, UnicodeEncodeError)):
            there(directory)
            return None, False
        raise
    try:
        return _served(directory, key, spaces, os.stat(parts[-1].encode(), dir_fd=held, follow_symlinks=False))
    except OSError as error:
        if gone(error) or too_long(error) or isinstance(error, PermissionError):
            return None, False
        raise
    finally:
        os.close(held)


def _served(directory: Path, key: str, spaces: Sequence[str], found: os.stat_result) -> tuple[os.stat_result | None, bool]:
    if stat.S_ISLNK(found.st_mode):
        target = leads(directory, key, spaces)
        if target is None:
            return None, True
        found = Path(target).lstat()
    if stat.S_ISREG(found.st_mode):
        return found, False
    return None, not stat.S_ISDIR(found.st_mode)


def is_link(directory: Path, key: str) -> bool:
    """Say whether a key is a link."""
    try:
        return bool(parts_of(key)) and stat.S_ISLNK((directory / key).lstat().st_mode)
    except OSError:  # whatever that is, nothing is served there
        return False


def refusable(directory: Path, keys: Collection[str], spaces: Sequence[str]) -> set[str]:
    """Return those of the keys that must not be served: links that lead elsewhere, and what is no file."""
    return {key for key in keys if see(directory, key, spaces)[1]}


def there(directory: Path) -> None:
    """Raise RootMissing where the directory itself is gone: then nothing in it is known to be."""
    if not directory.is_dir():
        raise missing(directory)


def opened(directory: Path, key: str, spaces: Sequence[str]) -> int:
    """Open a file for reading, never anything else. Raises Conflict where none is served there, NotAllowed, RootMissing."""
    parts = parts_of(key)
    if not parts:
        raise Conflict(f"{shown(key)} is not served.")
    try:
        held = reach(directory, parts[:-1])
        try:
            handle = os.open(parts[-1].encode(), _READ, dir_fd=held)
        finally:
            os.close(held)
    except PermissionError:
        raise NotAllowed(f"{shown(key)} may not be read by the user that the agent runs as.") from None
    except OSError as error:
        if error.errno != errno.ELOOP or (target := leads(directory, key, spaces)) is None:
            if gone(error) or too_long(error) or error.errno == errno.ENXIO:
                there(directory)
                raise Conflict(f"{shown(key)} is gone.") from None
            raise
        try:
            handle = os.open(target, _READ)
        except PermissionError:
            raise NotAllowed(f"{shown(key)} may not be read by the user that the agent runs as.") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Conflict(f"{shown(key)} is no file.")
    return handle


def piece(handle: int, start: int, length: int) -> bytes:
    """Read so many bytes, fewer where the file ends before."""
    pieces = []
    while length > 0:
        some = os.pread(handle, min(length, 8 * 1024 * 1024), start)
        if not some:
            break
        pieces.append(some)
        start, length = start + len(some), length - len(some)
    return b"".join(pieces)
