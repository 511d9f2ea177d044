"""Hints from the file system: which files and folders of the tree have changed. Never believed, only looked at.

The kernel reports changes folder by folder, so every folder has a watch of its own. A new folder is watched first and then
listed whole, as what came into it before is reported by nobody; an overflow of the kernel's queue makes everything dirty; so
does a watcher that died, once it is back. Where the kernel does not know of changes (network file systems), or gives no more
watches, the tree is looked through again and again instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from protocol.errors import RootMissing, WioError
from protocol.messages import RootConfig
from spoke_agent.storage.node import Hint
from spoke_agent.storage.posix import inotify
from spoke_agent.storage.posix.exports import Export, Exports
from spoke_agent.storage.posix.inotify import Event, Inotify
from spoke_agent.storage.posix.polling import Snapshot, changes, snapshot
from spoke_agent.storage.posix.settling import Settling, Spot
from spoke_agent.storage.posix.volume import networked, steady
from spoke_agent.storage.posix.walking import BESIDE, Request, gone, hidden

SETTLE_S: Final = 2.0
GATHER_S: Final = 0.03
"""A file is made, written and closed; within that time it is mostly one change."""
POLL_S: Final = 30.0
POLL_SHARE: Final = 20
"""Looking through the tree takes at most one in so many seconds."""
CHECK_S: Final = 5.0
"""How often it is asked whether the directory is still the one that is watched: another may be mounted over it."""
SERVED_S: Final = 1.0
"""How often it is asked which directories are served."""
FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 30.0
_SHORT: Final = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENOSYS, errno.ENOMEM})
_LOST: Final = inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.UNMOUNT | inotify.IGNORED
_COMPLETE: Final = inotify.CLOSE_WRITE | inotify.MOVED_TO | inotify.MOVED_FROM | inotify.DELETE | inotify.CREATE

log = logging.getLogger(__name__)


class Lost(Exception):
    """The directory that was watched is gone, or another one lies there now."""


class Watch:
    """Says which files and folders of the tree changed. ``pause`` waits seconds; ``settle_s``: see ``settling``.

    ``polling``: look through the tree again and again (True), never (False), or where the file system needs it (None).
    """

    def __init__(
        self,
        exports: Exports,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        settle_s: float = SETTLE_S,
        polling: bool | None = None,
        poll_s: float = POLL_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exports = exports
        self._pause = pause
        self._settling = Settling(settle_s)
        self._polling = polling
        self._poll_s = poll_s
        self._now = now
        self._stirred = asyncio.Event()
        self._warnings: dict[str, str] = {}
        self.on_warning: Callable[[str, str | None], None] = lambda _bucket, _sentence: None
        """Called with a bucket and what its owner should know of how its changes are found; None: nothing any more."""
        self.watching: set[str] = set()
        """Buckets whose changes are being reported by now."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the owner should know: why changes are found late, and what to do about it."""
        return tuple(dict.fromkeys(self._warnings.values()))

    async def run(self, roots: Callable[[], Sequence[RootConfig]], hint: Callable[[Hint], None]) -> None:
        """Report hints until cancelled."""
        followed: dict[Export, asyncio.Task[None]] = {}
        telling = asyncio.create_task(self._tell(roots, hint))
        try:
            while not telling.done():
                served = set(self._exports)
                for export in served - followed.keys():
                    followed[export] = asyncio.create_task(self._follow(export))
                for export in followed.keys() - served:
                    followed.pop(export).cancel()
                    self._note(export, None)
                await asyncio.wait([telling], timeout=SERVED_S)
            await telling
        finally:
            tasks = [telling, *followed.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # -------------------------------------------------------------------------------------------------- telling

    async def _tell(self, roots: Callable[[], Sequence[RootConfig]], hint: Callable[[Hint], None]) -> None:
        while True:
            for spot in self._settling.due(self._now()):
                for one in hints(spot, roots()):
                    hint(one)
            wait = self._settling.next_in(self._now())
            if wait is not None:
                await self._pause(max(wait, GATHER_S))
                continue
            self._stirred.clear()
            await self._stirred.wait()
            await self._pause(GATHER_S)

    def _touch(self, spot: Spot, *, complete: bool = True) -> None:
        self._settling.touch(spot, self._now(), complete=complete)
        self._stirred.set()

    def _dirty(self, export: Export) -> None:
        self._touch(Spot(export.bucket, "", folder=True))

    # -------------------------------------------------------------------------------------------------- following

    async def _follow(self, export: Export) -> None:
        """Follow one directory, for ever; whenever following broke off, all of it is dirty."""
        failures = 0
        while True:
            begun = self._now()
            try:
                await self._once(export, again=failures > 0)
            except (OSError, Lost, WioError) as error:
                log.info("the watcher of %s starts again: %s", export.bucket, type(error).__name__)
                self._note(export, f"Changes in {export.directory} are not seen at the moment: {_reason(error)}.")
            except Exception:
                log.exception("the watcher of %s died and starts again", export.bucket)
            self.watching.discard(export.bucket)
            self._dirty(export)
            failures = 1 if self._now() - begun > LAST_RETRY_S else failures + 1
            await self._pause(min(FIRST_RETRY_S * 2 ** min(failures - 1, 10), LAST_RETRY_S))

    async def _once(self, export: Export, *, again: bool) -> None:
        polled = self._polling
        if polled is None:
            polled = await asyncio.to_thread(networked, export.directory)
            if polled:
                text = "is on a file system whose changes the kernel does not report"
                self._note(export, f"{export.directory} {text}: it is looked through every {self._poll_s:g} s instead.")
        if not polled:
            try:
                await self._listen(export, again=again)
            except OSError as error:
                if error.errno not in _SHORT:
                    raise
                self._note(export, _short(export, error))
        await self._poll(export)

    def _note(self, export: Export, text: str | None) -> None:
        if text == self._warnings.get(export.bucket):
            return
        if text is None:
            del self._warnings[export.bucket]
        else:
            self._warnings[export.bucket] = text
        self.on_warning(export.bucket, text)

    async def _listen(self, export: Export, *, again: bool) -> None:
        """Report what the kernel reports. Raises Lost, OSError."""
        queue = Inotify()
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(queue.fileno(), readable.set)
        try:
            folders = _Folders(queue, await asyncio.to_thread(os.path.realpath, export.directory))
            await asyncio.to_thread(folders.watch, "")
            self._note(export, None)
            self.watching.add(export.bucket)
            if again:
                self._dirty(export)
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_S):
                        await readable.wait()
                readable.clear()
                if not await asyncio.to_thread(folders.same):
                    raise Lost
                while events := queue.read():
                    await self._take(export, folders, events)
                    await asyncio.sleep(0)
        finally:
            loop.remove_reader(queue.fileno())
            queue.close()

    async def _take(self, export: Export, folders: _Folders, events: Iterable[Event]) -> None:
        for event in events:
            if event.mask & inotify.OVERFLOW:
                log.info("the kernel's queue for %s ran over: all of it is looked at", export.bucket)
                self._dirty(export)
                await asyncio.to_thread(folders.watch, "")  # folders that nobody told of
                continue
            front = folders.of(event.watch)
            if front is None:
                continue
            if not event.name:
                folders.ended(event.watch, event.mask)
                continue
            key = _key(front, event.name)
            if key is None:
                continue
            if event.mask & inotify.FOLDER:
                await self._take_folder(export, folders, key + "/", event.mask)
            else:
                self._touch(Spot(export.bucket, key), complete=bool(event.mask & _COMPLETE))

    async def _take_folder(self, export: Export, folders: _Folders, key: str, mask: int) -> None:
        if mask & (inotify.DELETE | inotify.MOVED_FROM):
            folders.forget(key)
        elif mask & (inotify.CREATE | inotify.MOVED_TO | inotify.ATTRIB):
            await asyncio.to_thread(folders.watch, key)
        self._touch(Spot(export.bucket, key, folder=True))

    async def _poll(self, export: Export) -> None:
        """Look through the tree again and again. Raises OSError, RootMissing."""
        asked = Request(export.directory, inodes=await asyncio.to_thread(steady, export.directory))
        before: Snapshot | None = None
        while True:
            begun = self._now()
            after = await asyncio.to_thread(_snapshot, asked)
            if before is None:
                self._dirty(export)
                self.watching.add(export.bucket)
            else:
                keys, folders = changes(before, after)
                for key in keys:
                    self._touch(Spot(export.bucket, key))
                for folder in folders:
                    self._touch(Spot(export.bucket, folder, folder=True))
            before = after
            await self._pause(max(self._poll_s, POLL_SHARE * (self._now() - begun)))


class _Folders:
    """The folders that are watched: which watch is whose. ``watch`` may run in a thread while nothing else uses it."""

    def __init__(self, queue: Inotify, top: str) -> None:
        self._queue = queue
        self._top = top
        self._fronts: dict[int, str] = {}
        self._watches: dict[str, int] = {}
        self._identity = _identity(top)

    def of(self, watch: int) -> str | None:
        """Return the folder of a watch (empty, or ending in a slash); None where it is no longer watched."""
        return self._fronts.get(watch)

    def same(self) -> bool:
        """Say whether the directory is still the one that is watched."""
        return _identity(self._top) == self._identity

    def watch(self, front: str) -> None:
        """Watch a folder and all below it. Raises OSError: ENOSPC where the system gives no more watches; Lost."""
        left = [front]
        while left:
            front = left.pop()
            path = f"{self._top}/{front}".encode()
            try:
                watch = self._queue.add(path)
                self._put(watch, front)
                with os.scandir(path) as listing:
                    names = [entry.name for entry in listing if entry.is_dir(follow_symlinks=False)]
            except OSError as error:
                if not (gone(error) or isinstance(error, PermissionError)):
                    raise
                if not front:
                    raise
                continue
            left += [key + "/" for name in names if (key := _key(front, name)) is not None]

    def _put(self, watch: int, front: str) -> None:
        before = self._fronts.get(watch)
        if before is not None and before != front:
            self._watches.pop(before, None)
        self._fronts[watch] = front
        self._watches[front] = watch

    def forget(self, front: str) -> None:
        """End the watches of a folder that is gone from here; it may have gone elsewhere."""
        for below in [one for one in self._watches if one.startswith(front)]:
            watch = self._watches.pop(below)
            self._fronts.pop(watch, None)
            self._queue.remove(watch)

    def ended(self, watch: int, mask: int) -> None:
        """Take in what happened to a watched folder itself. Raises Lost where it was the directory."""
        if not mask & _LOST:
            return
        front = self._fronts.get(watch)
        if front == "":
            raise Lost
        if mask & inotify.IGNORED and front is not None:
            self._fronts.pop(watch, None)
            self._watches.pop(front, None)


def hints(spot: Spot, roots: Sequence[RootConfig]) -> list[Hint]:
    """Say in which roots, and where in them, something may have changed. Pure."""
    found = []
    for root in roots:
        if root.bucket != spot.bucket:
            continue
        if spot.key.startswith(root.prefix) and (spot.folder or spot.key != root.prefix):
            found.append(Hint(root.root, spot.key[len(root.prefix) :], folder=spot.folder))
        elif spot.folder and root.prefix.startswith(spot.key):
            found.append(Hint(root.root, "", folder=True))
    return found


def _key(front: str, name: bytes) -> str | None:
    """Return the key of a name in a folder; None where nothing of that name is served."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    return None if hidden(text) or (not front and text == BESIDE) else front + text


def _snapshot(asked: Request) -> Snapshot:
    try:
        return snapshot(asked)
    except OSError as error:
        if gone(error):
            raise RootMissing(f"The directory {asked.directory} is not there.") from error
        raise


def _identity(top: str) -> tuple[int, int]:
    try:
        found = Path(top).stat()
    except OSError as error:
        raise Lost from error
    return found.st_dev, found.st_ino


def _reason(error: Exception) -> str:
    if isinstance(error, Lost):
        return "it is not there, or another one is"
    return (error.strerror or "it does not answer") if isinstance(error, OSError) else "it is not there"


def _short(export: Export, error: OSError) -> str:
    setting = "max_user_instances" if error.errno == errno.EMFILE else "max_user_watches"
    more = 1024 if error.errno == errno.EMFILE else 1_048_576
    return (
        f"The system gives no more inotify watches for the folders of {export.directory}: it is looked through from time to"
        f" time instead, so changes are found late. Raise the limit: sudo sysctl fs.inotify.{setting}={more}"
    )
