"""The tree as the index sees it: listed, looked at and read through the file system, never over S3.

The gateway would list 14,000 keys a second, and mangle or stumble over what no S3 key can be; the file system gives 200,000
(4-storage, ``bench`` TREE). A large listing is made by a process of its own, which gives it a processor and leaves this one
to those who want keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from protocol.errors import Conflict, StorageUnreachable
from protocol.messages import RootConfig
from protocol.names import Place, locate, shown
from spoke_agent.storage.node import Entry
from spoke_agent.storage.posix import looking
from spoke_agent.storage.posix.exports import Exports
from spoke_agent.storage.posix.sidecar import Sidecar
from spoke_agent.storage.posix.tending import Tending
from spoke_agent.storage.posix.volume import steady
from spoke_agent.storage.posix.walking import (
    Broke,
    End,
    Notes,
    Page,
    Request,
    Row,
    Walk,
    etag_of,
)

T = TypeVar("T")

SMALL: Final = 4_000
"""Rows that are listed in a thread; starting a process costs as much time as these do (some 30 ms)."""
THREADS: Final = 8
REFUSED: Final = 10_000
"""Keys of one bucket remembered as not to be served."""

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
        return await asyncio.get_running_loop().run_in_executor(self._threads, looking.told, directory, what, *arguments)

    async def regrant(self, bucket: str, folders: Collection[str]) -> None:
        """Look again at all links of a bucket, before these folders are granted too. Raises RootMissing, StorageUnreachable.

        A link that leads from one of them into its surroundings was fine for whoever had both.
        """
        directory, before = self._exports.directory(bucket), set(self._spaces(bucket))
        links = self._followed.get(bucket, set()) | self._refused.get(bucket, set())
        if links and not before.issuperset(folders):
            refused = await self._do(directory, looking.refusable, directory, links, (*before, *folders))
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
        return await self._do(directory, looking.identity, directory, root)

    async def ranges(self, root: RootConfig, prefix: str = "") -> list[str]:
        """Return folders (in order) that split the root; [""] where there is no good split."""
        place = locate(root.layout, root.bucket, root.prefix, prefix)
        directory = self._exports.directory(place.bucket)
        found = await self._do(directory, looking.folders, directory, place.key)
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
            found, refused = looking.see(directory, place.key, spaces)
            if found is not None:
                if protect or self._sidecar.etag(place.bucket, place.key):
                    self._sidecar.settle(place.bucket, place.key, found, etag_of(found, inodes=inodes))
            elif not refused:
                self._sidecar.drop(place.bucket, place.key)
            return found, refused, not refused and looking.is_link(directory, place.key)

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
            handle = looking.opened(directory, place.key, spaces)
            try:
                if etag and etag_of(os.fstat(handle), inodes=inodes) != etag:
                    raise Conflict(f"{shown(key)} has changed meanwhile.")
                content = looking.piece(handle, start, length)
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

        Takes some 80 µs a file that has no etag yet, 10 µs any other, in a process of its own that gives way to all others.
        Raises RootMissing, StorageUnreachable.
        """
        directory = self._exports.directory(bucket)
        spaces, inodes = tuple(self._spaces(bucket)), await self._keeps_inodes(bucket)
        folders = tuple(_within(self._writable(bucket), prefix))
        asked = Tending(str(directory), str(self._sidecar.folder), bucket, prefix, folders, spaces, inodes)
        async with _running("tending", asked) as output:
            answer = await output.read()
        if not answer:
            raise StorageUnreachable(f"The process that tends {directory} ended too early.")
        if (broke := msgspec.msgpack.decode(answer, type=End | Broke)) and isinstance(broke, Broke):
            raise looking.unreachable(directory, OSError(broke.number, os.strerror(broke.number), broke.key))

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
        self._step = loop.run_in_executor(self._threads, looking.told, self._directory, next, self._pages, None)
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


@contextlib.asynccontextmanager
async def _running(module: str, asked: msgspec.Struct) -> AsyncGenerator[asyncio.StreamReader, None]:
    """Run one of the modules beside this one as a program, and hand it what is asked; it ends with whoever asked."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-X", "utf8", "-c", _PROGRAM.format(module=module), str(Path(__file__).parents[3])),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=4 * 1024 * 1024,
    )
    assert process.stdin is not None  # noqa: S101 - pipes were asked for
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(msgspec.msgpack.encode(asked))
        process.stdin.write_eof()
        yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _process(asked: Request) -> AsyncGenerator[list[Row] | Notes, None]:
    """List in a process of its own. It waits while nobody takes its pages."""
    async with _running("walking", asked) as output:
        try:
            while True:
                size = int.from_bytes(await output.readexactly(4), "big")
                message = _MESSAGE.decode(await output.readexactly(size))
                if isinstance(message, Page):
                    yield message.rows
                elif isinstance(message, End):
                    yield message.notes
                    return
                else:
                    failed = OSError(message.number, os.strerror(message.number), message.key)
                    raise looking.unreachable(Path(asked.directory), failed)
        except asyncio.IncompleteReadError as error:
            raise StorageUnreachable(f"The process that lists {asked.directory} ended too early.") from error


_PROGRAM: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from spoke_agent.storage.posix import {module}; "
    "{module}.main(sys.stdin.buffer, sys.stdout.buffer)"
)


def _joined(one: Notes, other: Notes) -> Notes:
    return Notes(
        sorted({*one.refused, *other.refused}),
        sorted({*one.followed, *other.followed}),
        sorted({*one.unreadable, *other.unreadable}),
        max(one.mangled, other.mangled),
        one.lost + other.lost,
    )


def _within(spaces: Sequence[str], prefix: str) -> list[str]:
    """Return what of ``spaces`` lies below ``prefix``, each part once."""
    if any(prefix.startswith(space) for space in spaces):
        return [prefix]
    inside = sorted(space for space in spaces if space.startswith(prefix))
    return [space for space in inside if not any(space != other and space.startswith(other) for other in inside)]
