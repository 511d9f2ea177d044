"""The pool of workers: which files are worth opening, and what can be read out of one."""

from __future__ import annotations

import asyncio
import sys
from functools import cached_property
from typing import Final

from protocol.errors import Internal
from protocol.fields import Fields
from protocol.messages import IndexLevel
from spoke_agent.extraction import catalogue
from spoke_agent.extraction.budget import Budget
from spoke_agent.extraction.catalogue import Known
from spoke_agent.extraction.messages import HEAD, Job
from spoke_agent.extraction.process import Failed, Process, Read
from spoke_agent.extractors.interface import Wanted, ending

EXTRA: Final = "workspacesio[extract]"
_OWN: Final = "spoke_agent."
_WANTED: Final = {
    IndexLevel.METADATA: Wanted.METADATA,
    IndexLevel.CONTENT: Wanted.CONTENT,
    IndexLevel.LOCAL: Wanted.CONTENT,
}


def _remedy(one: Known) -> str:
    """Say how to install what one of wio's own extractors needs; others' needs are theirs to tell."""
    return f" To have it: pip install '{EXTRA}'" if one.target.startswith(_OWN) else ""


class Extraction:
    """Reads fields out of files, in at most ``workers`` processes at a time. For one event loop.

    Workers start with the first file, are replaced after ``recycle`` files and end after ``idle_s`` seconds without one.
    Which extractors there are is asked of a process, once: the first call of any method takes some tenths of a second. The
    methods that are not async block that long unless ``prepare`` was awaited before.
    """

    def __init__(
        self, *, workers: int = 1, budget: Budget | None = None, recycle: int = 1000, idle_s: float = 30, listing_s: float = 20
    ) -> None:
        self._budget = budget or Budget()
        self._recycle = recycle
        self._idle_s = idle_s
        self._listing_s = listing_s
        self._free = asyncio.Semaphore(workers)
        self._resting: list[Process] = []
        self._busy: set[Process] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._rest: asyncio.TimerHandle | None = None
        self._asked: asyncio.Task[tuple[Known, ...]] | None = None
        self._closed = False

    async def prepare(self) -> None:
        """Find out which extractors there are, without blocking."""
        if self._asked is None:
            self._asked = asyncio.create_task(asyncio.to_thread(lambda: self._known))
        if not self._asked.done():
            await asyncio.shield(self._asked)

    def wants(self, name: str, size: int) -> bool:
        """Say whether a file so named may have something to read: others need not be opened."""
        return size > 0 and ending(name) in self._endings

    def versions(self) -> str:
        """Return what the extractors there are amount to: where it differs, files may give other fields than before."""
        return " ".join(sorted(f"{one.name}={one.version}" for one in self._usable))

    def missing(self) -> list[str]:
        """Return a sentence for each extractor that is left out: what is not installed, or what is wrong with it."""
        if sys.platform == "win32":
            return ["No fields are read out of files on Windows."]
        return [
            f"The extractor {one.name} cannot be used. {one.broken}"
            if one.broken
            else f"The extractor {one.name} is left out: {', '.join(one.missing)} is not installed.{_remedy(one)}"
            for one in self._known
            if one.broken or one.missing
        ]

    async def extract(self, name: str, size: int, level: IndexLevel, read: Read) -> Fields | None:
        """Return what can be read out of one file; None where no extractor fits, or the level allows none.

        A file that cannot be read gives Fields with a ``problem``. ``read(offset, length)`` gives a range of the file, never
        past ``size``; what it raises comes out here. Raises Internal where no worker can be started.
        """
        wanted = _WANTED.get(level)
        if wanted is None:
            return None
        if not self.prepared:
            await self.prepare()
        if not self.wants(name, size):
            return None
        # Before a worker is taken, so that it does not wait for the storage server.
        job = Job(name, size, wanted, await read(0, min(size, HEAD)))
        async with self._free:
            return await self._extract(job, read)

    async def close(self) -> None:
        """End all workers. A file that is being read now ends with a problem that is nobody's; nobody should be waiting."""
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()
        for process in (*self._resting, *self._busy):
            self._end(process)
        self._resting.clear()
        await asyncio.gather(*self._ending)

    async def _extract(self, job: Job, read: Read) -> Fields | None:
        """Have a worker read one file; once more where it ended in a worker that had read others before."""
        while True:
            process = await self._take()
            fresh = process.files == 0
            try:
                return await process.run(job, read, self._budget)
            except Failed as failed:
                if self._closed:
                    raise Internal("The agent ends.") from failed
                if failed.crashed and not fresh:
                    continue  # what broke it may be left from a file before
                return Fields(problem=str(failed))
            finally:
                self._give_back(process)

    async def _take(self) -> Process:
        if self._closed:
            raise Internal("The agent ends.")
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        process = self._resting.pop() if self._resting else await Process.start(self._usable, self._budget)
        self._busy.add(process)
        return process

    def _give_back(self, process: Process) -> None:
        self._busy.discard(process)
        if self._closed or not process.usable or process.files >= self._recycle:
            self._end(process)
        else:
            self._resting.append(process)
        if self._resting and not self._busy and self._rest is None:
            self._rest = asyncio.get_running_loop().call_later(self._idle_s, self._all_rested)

    def _all_rested(self) -> None:
        self._rest = None
        while self._resting:
            self._end(self._resting.pop())

    def _end(self, process: Process) -> None:
        task = asyncio.get_running_loop().create_task(process.kill())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    @property
    def prepared(self) -> bool:
        """Whether it is known which extractors there are."""
        return self._asked is not None and self._asked.done()

    @cached_property
    def _known(self) -> tuple[Known, ...]:
        if sys.platform == "win32":
            return ()
        return catalogue.known(self._budget.memory, seconds=self._listing_s)

    @cached_property
    def _usable(self) -> tuple[Known, ...]:
        return tuple(one for one in self._known if not one.broken and not one.missing)

    @cached_property
    def _endings(self) -> frozenset[str]:
        return frozenset(end for one in self._usable for end in one.endings)
