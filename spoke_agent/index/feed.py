"""The change feed: hints in, looks at storage, rows out.

A hint is never believed: it says where to look. Hints gather in a bounded set that grows coarser instead of longer
(``dirty``); keys are looked at side by side, and a folder with many of them is listed instead.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from protocol.errors import RootMissing, StorageRefused, UnknownRoot, WioError
from protocol.messages import RootConfig
from spoke_agent.index.dirty import Dirty, Mark
from spoke_agent.index.entries import key_fits
from spoke_agent.index.ledger import Ledger, Superseded, is_indexed
from spoke_agent.index.scan import Scanner
from spoke_agent.index.schedule import Schedule
from spoke_agent.storage.node import Hint

KEYS_AT_ONCE: Final = 256
CROWD: Final = 200
"""Marked keys in one folder from which listing it may cost less than looking at each."""
LISTED_PER_LOOK: Final = 20
"""How many listed keys cost as much as one look: a page of 1,000 takes about as long as 50 looks."""
FIRST_DELAY_S: Final = 0.2
LAST_DELAY_S: Final = 10.0
REFUSED_DELAY_S: Final = 60.0
MISSING_DELAY_S: Final = 1.0
"""A root that is another one now may be written to all the time: it is not scanned for every object."""


class Feed:
    """Takes hints, and looks. ``who`` gives the user id behind the name of a Holder, 0 for nobody known."""

    def __init__(
        self,
        ledger: Ledger,
        scanner: Scanner,
        schedule: Schedule,
        *,
        who: Callable[[str], int] = lambda _: 0,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._scanner = scanner
        self._schedule = schedule
        self._who = who
        self._pause = pause
        self._wake = asyncio.Event()
        self._wake_folders = asyncio.Event()
        self._looking: Counter[int] = Counter()
        self._listing: Counter[int] = Counter()
        self._problems: dict[str, WioError] = {}
        self.dirty = Dirty()

    @property
    def problem(self) -> WioError | None:
        """Why looking, or listing, does not work at the moment; None where both do work."""
        return next(iter(self._problems.values()), None)

    @property
    def backlog(self) -> int:
        """Marks not yet looked at."""
        return len(self.dirty) + self._looking.total() + self._listing.total()

    def places(self) -> Counter[int]:
        """Return how many marks of each root are not yet looked at."""
        return self.dirty.places() + self._looking + self._listing

    def hint(self, hint: Hint) -> None:
        """Take a hint; one about a root that is not indexed here is forgotten."""
        if hint.folder:
            if self._is_ours(hint.root):
                self.dirty.mark_folder(hint.root, hint.key)
                self._stir()
        else:
            self.mark(Mark(hint.root, hint.key, hint.actor))

    def mark(self, mark: Mark) -> None:
        """Take a key that should be looked at; one that no object can have is forgotten."""
        if self._is_ours(mark.root) and key_fits(mark.key):
            self.dirty.mark_key(mark)
            self._stir()

    def _stir(self) -> None:
        self._wake.set()
        self._wake_folders.set()

    def _is_ours(self, root: int) -> bool:
        try:
            return is_indexed(self._ledger.config(root))
        except UnknownRoot:
            return False

    # -------------------------------------------------------------------------------------------------- steps

    async def look_once(self) -> bool:
        """Look at some marked keys; False where none is marked. Raises what looking raised: the keys stay marked."""
        for root in self.dirty.take_roots():
            self._schedule.request(root)
        await self._fold_crowds()
        marks = [mark for mark in self.dirty.take_keys(KEYS_AT_ONCE) if self._is_ours(mark.root)]
        if not marks:
            return False
        left = {root: [mark for mark in marks if mark.root == root] for root in dict.fromkeys(mark.root for mark in marks)}
        self._looking = Counter(mark.root for mark in marks)
        try:
            await self._ledger.room()
            for root in list(left):
                await self._look(root, left.pop(root))
        finally:
            self._looking = Counter()
            for mark in itertools.chain.from_iterable(left.values()):
                self.mark(mark)
        return True

    async def _look(self, root: int, marks: Sequence[Mark]) -> None:
        again = marks
        try:
            config = self._ledger.config(root)
            confirmed = await self._scanner.confirm(config, marks, self._who)
            again = confirmed.again
            if confirmed.problem is not None:
                raise confirmed.problem
        except UnknownRoot:
            again = ()
        except RootMissing as error:
            again = ()
            await self._missing(config, error)
        except StorageRefused as error:
            if error.retry:
                raise
            again = ()
            self._schedule.request(root, after_s=REFUSED_DELAY_S)
        finally:
            for mark in again:
                self.mark(mark)

    async def _missing(self, config: RootConfig, error: RootMissing) -> None:
        """Say so at once, whatever the hours; a scan repairs everything once the root is back."""
        await self._scanner.failed(config, error)
        self._schedule.request(config.root, after_s=MISSING_DELAY_S)

    async def _fold_crowds(self) -> None:
        for root, folder, marked in self.dirty.crowded(CROWD):
            if self._schedule.waiting(root) and not self._schedule.held(root):
                continue
            limit = marked * LISTED_PER_LOOK
            if await self._ledger.count_below(root, folder, limit) < limit:
                self.dirty.fold(root, folder)
                self._stir()

    async def list_once(self) -> bool:
        """List one marked folder; False where none is marked. Raises what listing raised: the folder stays marked."""
        place = self.dirty.take_folder()
        if place is None:
            return False
        root, prefix = place
        if not self._is_ours(root):
            return True
        config = self._ledger.config(root)
        self._listing[root] += 1
        try:
            await self._scanner.scan_folder(root, prefix)
        except UnknownRoot:
            pass  # it was taken off this node
        except RootMissing as error:
            await self._missing(config, error)
        except StorageRefused as error:
            if error.retry:
                self.dirty.mark_folder(root, prefix)
                raise
            self._schedule.request(root, after_s=REFUSED_DELAY_S)
        except Superseded:
            self._schedule.request(root)
        except BaseException:
            self.dirty.mark_folder(root, prefix)
            raise
        finally:
            self._listing = Counter()
        return True

    # -------------------------------------------------------------------------------------------------- loops

    async def run(self) -> None:
        """Look at what is marked, for ever; keys and folders side by side."""
        await asyncio.gather(self._loop(self.look_once, self._wake), self._loop(self.list_once, self._wake_folders))

    async def _loop(self, step: Callable[[], Coroutine[Any, Any, bool]], wake: asyncio.Event) -> None:
        failures = 0
        while True:
            wake.clear()
            try:
                more = await step()
            except WioError as error:
                self._problems[step.__name__] = error
                await self._pause(min(FIRST_DELAY_S * 2**failures, LAST_DELAY_S))
                failures += 1
                continue
            failures = 0
            self._problems.pop(step.__name__, None)
            if not more:
                await wake.wait()
