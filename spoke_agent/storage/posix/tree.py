"""The tree as the index sees it: listed, looked at and read through the file system, never over S3.

The gateway would list 14,000 keys a second, and mangle or stumble over what no S3 key can be; the file system gives 200,000
(4-storage, ``bench`` TREE). A large listing is made by a process of its own, which gives it a processor and leaves this one
to those who want keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from protocol.errors import Conflict, NotAllowed, RootMissing, StorageUnreachable
from protocol.messages import RootConfig
from protocol.names import Place, locate, shown
from spoke_agent.storage.node import Entry
from spoke_agent.storage.posix.exports import Exports
from spoke_agent.storage.posix.sidecar import Sidecar
from spoke_agent.storage.posix.volume import born, steady, volume_of
from spoke_agent.storage.posix.walking import (
    BESIDE,
    Broke,
    End,
    Notes,
    Page,
    Request,
    Row,
    Walk,
    etag_of,
    gone,
    hidden,
    leads,
    parts_of,
    reach,
    too_long,
)

T = TypeVar("T")

SMALL: Final = 4_000
"""Rows that are listed in a thread; starting a process costs as much time as these do (some 30 ms)."""
SETTLED: Final = 200
"""Files put right at a time."""
THREADS: Final = 8
BORDERS: Final = 64
"""Folders that a root is cut at, at most."""
DEEP: Final = 3
"""Levels gone down while there is only one folder."""
LEVEL: Final = 20_000
"""Names of one level looked at in search of folders."""
REFUSED: Final = 10_000
"""Keys of one bucket remembered as not to be served."""

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MESSAGE = msgspec.msgpack.Decoder(Page | End | Broke)


class Tree:
    """The directories of one node.

    ``spaces`` gives, for a bucket, folders (keys ending in ``/``; empty: all of it) inside which a link may point anywhere:
    those that are granted as a whole. Outside of them a link may point below its own folder, as no grant ends in between.
    ``writable`` gives the folders of a bucket that somebody may write to: only there files need an etag in the sidecar, which
    costs three inodes a file.
    """

    def __init__(
        self,
        exports: Exports,
        sidecar: Sidecar,
        *,
        spaces: Callable[[str], Sequence[str]] = lambda _: (),
        writable: Callable[[str], Sequence[str]] = lambda _: ("",),
    ) -> None:
        self._exports = exports
        self._sidecar = sidecar
        self._spaces = spaces
        self._writable = writable
        self._notes: dict[str, Notes] = {}
        self._refused: dict[str, set[str]] = {}
        self._followed: dict[str, set[str]] = {}
        self._tending: dict[tuple[str, str], None] = {}
        self._tender: asyncio.Task[None] | None = None
        self._steady: dict[str, bool] = {}
        # Threads of its own: those of a file server that hangs must not be missing elsewhere in the agent.
        self._threads = ThreadPoolExecutor(THREADS, "tree")
        self.on_refused: Callable[[str, frozenset[str]], None] = lambda _bucket, _keys: None
        """Called with a bucket and all keys in it that must not be served, whenever they have changed."""
        self.on_tend_failed: Callable[[Exception | None], None] = lambda _: None
        """Called with why putting right what the gateway says failed; None: it worked again."""

    async def close(self) -> None:
        """End what works for this tree."""
        if self._tender is not None:
            self._tender.cancel()
            await asyncio.gather(self._tender, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def refused(self, bucket: str) -> frozenset[str]:
        """Return the keys found so far that must not be served: links that lead elsewhere, FIFOs, devices, sockets."""
        return frozenset(self._refused.get(bucket, ()))

    def remember(self, bucket: str, keys: Collection[str]) -> None:
        """Take up what was refused before this process was started: it stays so until a listing finds otherwise."""
        self._refused[bucket] = set(keys)

    def notes(self, bucket: str) -> Notes:
        """Return what the last whole listing of a bucket met and did not serve."""
        return self._notes.get(bucket, Notes())

    async def _do(self, directory: Path, what: Callable[..., T], *arguments: object) -> T:
        """Do something in a thread. Raises RootMissing, StorageUnreachable for what the file system answers."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _told, directory, what, *arguments)

    async def regrant(self, bucket: str, folders: Collection[str]) -> None:
        """Look again at all links of a bucket, before these folders are granted too. Raises RootMissing, StorageUnreachable.

        A link that leads from one of them into its surroundings was fine for whoever had both.
        """
        directory, before = self._exports.directory(bucket), set(self._spaces(bucket))
        links = self._followed.get(bucket, set()) | self._refused.get(bucket, set())
        if links and not before.issuperset(folders):
            refused = await self._do(directory, _refusable, directory, links, (*before, *folders))
            self._followed[bucket] = links - refused
            self._refuse(bucket, refused)

    def tend(self, bucket: str, folder: str) -> None:
        """Put right what the gateway says of the files in a folder, when there is time: somebody may write to it now."""
        self._tend(Place(bucket, folder))

    def _refuse(self, bucket: str, keys: set[str]) -> None:
        if keys != self._refused.get(bucket, set()):
            self._refused[bucket] = keys
            self.on_refused(bucket, frozenset(keys))

    # -------------------------------------------------------------------------------------------------- places

    async def check_root(self, root: RootConfig) -> str:
        """Return the root's identity: which directory of which file system. Raises RootMissing, StorageUnreachable.

        Not of the folder within it: the gateway removes that with its last file, and makes it again. But where another file
        system is mounted on the way to it, that one counts too: unmounted, it would look like an empty folder.
        """
        directory = self._exports.directory(root.bucket)
        return await self._do(directory, _identity, directory, root)

    async def ranges(self, root: RootConfig, prefix: str = "") -> list[str]:
        """Return folders (in order) that split the root; [""] where there is no good split."""
        place = locate(root.layout, root.bucket, root.prefix, prefix)
        directory = self._exports.directory(place.bucket)
        found = await self._do(directory, _folders, directory, place.key)
        cut = len(root.prefix)
        return [folder[cut:] for folder in found] or [""]

    # -------------------------------------------------------------------------------------------------- listing

    async def scan(self, root: RootConfig, *, start_after: str = "", prefix: str = "") -> AsyncGenerator[list[Entry], None]:
        """List a root (or below ``prefix``) in order of the keys' UTF-8 bytes, a page at a time.

        Afterwards what the gateway says of these files is put right, when there is time (``tended``).
        """
        place = locate(root.layout, root.bucket, root.prefix, prefix)
        asked = Request(
            str(self._exports.directory(place.bucket)),
            place.key,
            root.prefix + start_after if start_after else "",
            tuple(self._spaces(place.bucket)),
            await self._keeps_inodes(place.bucket),
        )
        cut, ended = len(root.prefix), None
        async with contextlib.aclosing(self._listing(asked)) as listing:
            async for one in listing:
                if isinstance(one, Notes):
                    ended = one
                else:
                    yield [Entry(key[cut:], size, mtime, etag) for key, size, mtime, etag in one if len(key) > cut]
        if ended is not None:
            self._took_in(place, asked.after, ended)
            self._tend(place)

    async def _listing(self, asked: Request) -> AsyncGenerator[list[Row] | Notes, None]:
        """Yield pages, at last the notes: the first pages from a thread, then from a process."""
        walk = Walk(asked)
        pages = _Pulled(self._threads, Path(asked.directory), walk.pages())
        listed, last = 0, ""
        if sys.getfilesystemencoding() == "utf-8":
            try:
                while listed < SMALL:
                    page = await pages.next()
                    if page is None:
                        yield walk.notes
                        return
                    listed, last = listed + len(page), page[-1][0]
                    yield page
            finally:
                pages.close()
        async with contextlib.aclosing(_process(msgspec.structs.replace(asked, after=last or asked.after))) as listing:
            async for one in listing:
                # What the thread met may lie in folders that the process did not come into again.
                yield _joined(walk.notes, one) if isinstance(one, Notes) else one

    async def look(self, root: RootConfig, key: str) -> Entry | None:
        """Look at one key with the precision that ``scan`` has; None if it is not there, or not served.

        Also puts right what the gateway says of it.
        """
        place = locate(root.layout, root.bucket, root.prefix, key)
        directory = self._exports.directory(place.bucket)
        spaces, inodes = tuple(self._spaces(place.bucket)), await self._keeps_inodes(place.bucket)
        protect = place.key.startswith(tuple(self._writable(place.bucket)) or ("\0",))

        def see() -> tuple[os.stat_result | None, bool, bool]:
            found, refused = _see(directory, place.key, spaces)
            if found is not None:
                if protect or self._sidecar.etag(place.bucket, place.key):
                    self._sidecar.settle(place.bucket, place.key, found, etag_of(found, inodes=inodes))
            elif not refused:
                self._sidecar.drop(place.bucket, place.key)
            return found, refused, not refused and _is_link(directory, place.key)

        found, refused, followed = await self._do(directory, see)
        if followed:
            self._followed.setdefault(place.bucket, set()).add(place.key)
        self._mark_refused(place, refused=refused)
        if found is None:
            return None
        return Entry(key, found.st_size, found.st_mtime_ns, etag_of(found, inodes=inodes))

    # -------------------------------------------------------------------------------------------------- reading

    async def read(self, root: RootConfig, key: str, etag: str, start: int, length: int) -> bytes:
        """Read a piece of a file, if it still is the one with this etag. Raises Conflict, NotAllowed, RootMissing."""
        place = locate(root.layout, root.bucket, root.prefix, key)
        directory = self._exports.directory(place.bucket)
        spaces, inodes = tuple(self._spaces(place.bucket)), await self._keeps_inodes(place.bucket)

        def piece() -> bytes:
            handle = _opened(directory, place.key, spaces)
            try:
                if etag and etag_of(os.fstat(handle), inodes=inodes) != etag:
                    raise Conflict(f"{shown(key)} has changed meanwhile.")
                content = _pread(handle, start, length)
                if etag and etag_of(os.fstat(handle), inodes=inodes) != etag:
                    raise Conflict(f"{shown(key)} changed while it was read.")
                return content
            finally:
                os.close(handle)

        return await self._do(directory, piece)

    async def tags(self, root: RootConfig, key: str) -> dict[str, str]:  # noqa: ARG002 - what any kind of node is asked
        """Return nothing: files have no tags of S3's kind that the index could rely on."""
        return {}

    # -------------------------------------------------------------------------------------------------- tending

    def _tend(self, place: Place) -> None:
        self._tending[place.bucket, place.key] = None
        if self._tender is None or self._tender.done():
            self._tender = asyncio.create_task(self._tend_all())

    async def tended(self) -> None:
        """Wait until what was listed so far has been put right."""
        while self._tender is not None and not self._tender.done():
            await asyncio.wait([self._tender])

    async def _tend_all(self) -> None:
        while self._tending:
            bucket, prefix = next(iter(self._tending))
            del self._tending[bucket, prefix]
            try:
                await self.protect(bucket, prefix)
            except Exception as error:  # noqa: BLE001 - the next listing tries again; what it was is told
                self.on_tend_failed(error)
            else:
                self.on_tend_failed(None)

    async def protect(self, bucket: str, prefix: str = "") -> None:
        """Put right what the gateway says of all files below ``prefix``: for those that somebody may write to.

        Takes some 80 µs a file that has no etag yet, 10 µs any other, in a thread that gives way.
        """
        directory = self._exports.directory(bucket)
        spaces, inodes = tuple(self._spaces(bucket)), await self._keeps_inodes(bucket)
        for space in _within(self._writable(bucket), prefix):
            walk = Walk(Request(str(directory), space, "", spaces, inodes))
            pages = _Pulled(self._threads, directory, walk.pages(SETTLED))
            try:
                while (page := await pages.next()) is not None:
                    await self._do(directory, self._settle, bucket, directory, page, spaces)
            finally:
                pages.close()
        await self._do(directory, self._drop_gone, bucket, directory, prefix)

    def _settle(self, bucket: str, directory: Path, page: list[Row], spaces: Sequence[str]) -> None:
        for key, _, _, etag in page:
            found, _ = _see(directory, key, spaces)
            if found is not None and etag_of(found, inodes=not etag.startswith("wio-0-")) == etag:
                self._sidecar.settle(bucket, key, found, etag)

    def _drop_gone(self, bucket: str, directory: Path, prefix: str) -> None:
        for key in self._sidecar.known(bucket, prefix):
            if not os.path.lexists(directory / key) and directory.is_dir():
                self._sidecar.drop(bucket, key)

    # -------------------------------------------------------------------------------------------------- what was met

    def _took_in(self, place: Place, after: str, notes: Notes) -> None:
        """Keep what a whole listing met; a refused key that was not met again in it is one no longer."""
        bucket = place.bucket
        if not place.key and not after:
            self._notes[bucket] = notes
        for known, met in ((self._refused, notes.refused), (self._followed, notes.followed)):
            kept = {key for key in known.get(bucket, ()) if not key.startswith(place.key) or (after and key <= after)}
            both = set(list(kept)[:REFUSED]) | set(met[:REFUSED])
            if known is self._followed:
                known[bucket] = both
            else:
                self._refuse(bucket, both)

    def _mark_refused(self, place: Place, *, refused: bool) -> None:
        known = self._refused.setdefault(place.bucket, set())
        if refused == (place.key in known) or (refused and len(known) >= REFUSED):
            return
        (known.add if refused else known.discard)(place.key)
        self.on_refused(place.bucket, frozenset(known))

    async def _keeps_inodes(self, bucket: str) -> bool:
        known = self._steady.get(bucket)
        if known is None:
            directory = self._exports.directory(bucket)
            known = self._steady[bucket] = await self._do(directory, steady, directory)
        return known


# ------------------------------------------------------------------------------------------------------ elsewhere


class _Pulled:
    """A walk that is taken a step at a time, in threads."""

    def __init__(self, threads: ThreadPoolExecutor, directory: Path, pages: Generator[list[Row], None, None]) -> None:
        self._threads = threads
        self._directory = directory
        self._pages = pages
        self._step: asyncio.Future[list[Row] | None] | None = None

    async def next(self) -> list[Row] | None:
        """Return the next page; None at the end."""
        loop = asyncio.get_running_loop()
        self._step = loop.run_in_executor(self._threads, _told, self._directory, next, self._pages, None)
        return await asyncio.shield(self._step)

    def close(self) -> None:
        """Let go, as soon as the step under way is over."""
        if self._step is None or self._step.done():
            self._pages.close()
        else:
            self._step.add_done_callback(self._closed)

    def _closed(self, step: asyncio.Future[list[Row] | None]) -> None:
        if not step.cancelled():
            step.exception()
        self._pages.close()


async def _process(asked: Request) -> AsyncGenerator[list[Row] | Notes, None]:
    """List in a process of its own. It waits while nobody takes its pages, and ends with whoever asked."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-X", "utf8", "-c", _PROGRAM, str(Path(__file__).parents[3])),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=4 * 1024 * 1024,
    )
    assert process.stdin is not None  # noqa: S101 - pipes were asked for
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(msgspec.msgpack.encode(asked))
        process.stdin.write_eof()
        while True:
            size = int.from_bytes(await process.stdout.readexactly(4), "big")
            message = _MESSAGE.decode(await process.stdout.readexactly(size))
            if isinstance(message, Page):
                yield message.rows
            elif isinstance(message, End):
                yield message.notes
                return
            else:
                raise _unreachable(Path(asked.directory), OSError(message.number, os.strerror(message.number), message.key))
    except asyncio.IncompleteReadError as error:
        raise StorageUnreachable(f"The process that lists {asked.directory} ended too early.") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


_PROGRAM: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from spoke_agent.storage.posix import walking; "
    "walking.main(sys.stdin.buffer, sys.stdout.buffer)"
)


def _joined(one: Notes, other: Notes) -> Notes:
    return Notes(
        sorted({*one.refused, *other.refused}),
        sorted({*one.followed, *other.followed}),
        sorted({*one.unreadable, *other.unreadable}),
        max(one.mangled, other.mangled),
        one.lost + other.lost,
    )


# ------------------------------------------------------------------------------------------------------ the file system


def _told(directory: Path, what: Callable[..., T], *arguments: object) -> T:
    """Do something; what the file system answers becomes one of our own errors."""
    try:
        return what(*arguments)
    except OSError as error:
        raise _unreachable(directory, error) from error


def _unreachable(directory: Path, error: OSError) -> Exception:
    if gone(error):
        return _missing(directory)
    if isinstance(error, PermissionError):
        return RootMissing(
            f"{directory} may not be listed by the user that the agent runs as.",
            todo="Give that user access, or run the agent as another one.",
        )
    return StorageUnreachable(f"{directory} does not answer: {error.strerror or error}.")


def _missing(directory: Path) -> RootMissing:
    return RootMissing(f"The directory {directory} is not there.", todo="Check its name, and that its disk is mounted.")


def _identity(directory: Path, root: RootConfig) -> str:
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreachable(directory, error) from error
    try:
        with os.scandir(held) as listing:
            next(listing, None)  # that it answers counts, not only that it has a name
        found = os.fstat(held)
        inode = found.st_ino if steady(directory) else 0
        identity = f"{inode} of {born(directory)} on {volume_of(directory)}"
        for parts in _upwards(parts_of(root.prefix) or []):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                below = directory.joinpath(*parts)
                if below.stat().st_dev != found.st_dev:
                    identity += f", then {volume_of(below)}"
                break
    except OSError as error:
        raise _unreachable(directory, error) from error
    finally:
        os.close(held)
    return identity


def _upwards(parts: list[str]) -> Iterator[list[str]]:
    for count in range(len(parts), 0, -1):
        yield parts[:count]


def _folders(directory: Path, prefix: str) -> list[str]:
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


def _see(directory: Path, key: str, spaces: Sequence[str]) -> tuple[os.stat_result | None, bool]:
    """Look at what lies at a key: None where nothing is served there, and whether that is because it must not be."""
    parts = parts_of(key)
    if not parts or key.endswith("/"):
        _there(directory)
        return None, False
    try:
        held = reach(directory, parts[:-1])
    except OSError as error:
        if gone(error) or too_long(error) or isinstance(error, (PermissionError, UnicodeEncodeError)):
            _there(directory)
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


def _is_link(directory: Path, key: str) -> bool:
    try:
        return bool(parts_of(key)) and stat.S_ISLNK((directory / key).lstat().st_mode)
    except OSError:  # whatever that is, nothing is served there
        return False


def _refusable(directory: Path, keys: Collection[str], spaces: Sequence[str]) -> set[str]:
    """Return those of the keys that must not be served: links that lead elsewhere, and what is no file."""
    return {key for key in keys if _see(directory, key, spaces)[1]}


def _there(directory: Path) -> None:
    """Raise RootMissing where the directory itself is gone: then nothing in it is known to be."""
    if not directory.is_dir():
        raise _missing(directory)


def _opened(directory: Path, key: str, spaces: Sequence[str]) -> int:
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
                _there(directory)
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


def _pread(handle: int, start: int, length: int) -> bytes:
    pieces = []
    while length > 0:
        piece = os.pread(handle, min(length, 8 * 1024 * 1024), start)
        if not piece:
            break
        pieces.append(piece)
        start, length = start + len(piece), length - len(piece)
    return b"".join(pieces)


def _within(spaces: Sequence[str], prefix: str) -> list[str]:
    """Return what of ``spaces`` lies below ``prefix``, each part once."""
    if any(prefix.startswith(space) for space in spaces):
        return [prefix]
    inside = sorted(space for space in spaces if space.startswith(prefix))
    return [space for space in inside if not any(space != other and space.startswith(other) for other in inside)]
