"""A dry run: what lies in a root, before anything of it is written down. Only lists; memory stays bounded.

Odd names are not errors: they are what somebody wants to know about before an import, because a shell, a policy, a
spreadsheet or another operating system reads something else in them.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from protocol.messages import RootConfig
from protocol.names import shown
from search.words import extension, name_of
from spoke_agent.index.entries import fits, key_fits
from spoke_agent.index.pace import Pace
from spoke_agent.index.spans import Span, in_order
from spoke_agent.storage.node import Entry, StorageNode

IMPORT_PER_S: Final = 25_000
"""Objects per second that snapshot and journal take in, at least, on two cores (``bench`` measures it whole)."""
TOP: Final = 20
SAMPLES: Final = 5
MAX_EXTENSIONS: Final = 10_000
"""Different extensions counted one by one; whatever comes on top of them is counted as ``OTHER``."""
OTHER: Final = "(other)"


class ExtensionCount(msgspec.Struct, frozen=True):
    """So many objects and bytes of one extension (``search.words.extension``; empty: none)."""

    extension: str
    objects: int
    bytes: int


class OddNames(msgspec.Struct, frozen=True):
    """A kind of odd names, how many there are, and the first few of them, safe to print."""

    what: str
    objects: int
    samples: tuple[str, ...]


class Survey(msgspec.Struct, frozen=True):
    """What was counted so far. ``estimate_s`` is how long an import may take, in seconds."""

    objects: int
    bytes: int
    extensions: tuple[ExtensionCount, ...]
    """By bytes, the greatest first; at most TOP, the rest under OTHER."""
    odd: tuple[OddNames, ...]
    took_s: float
    estimate_s: float


async def survey(
    node: StorageNode,
    config: RootConfig,
    *,
    clock: Callable[[], int],
    pause: Callable[[float], Awaitable[None]],
    told: Callable[[int, int], None] = lambda _objects, _bytes: None,
) -> Survey:
    """List a root and count. ``clock`` gives Unix microseconds; ``told`` is called with every page's totals.

    Raises RootMissing, StorageUnreachable, StorageRefused (also for a listing that is out of order).
    """
    await node.check_root(config)
    counting = Counting()
    started = clock()
    pace = Pace(config.pace, clock, pause)
    last = ""
    async for page in node.scan(config):
        last = in_order(Span(low=last), page)
        counting.count(page)
        told(counting.objects, counting.bytes)
        await pace.spend(len(page))
    return counting.result((clock() - started) / 1_000_000, config.pace)


class Counting:
    """The counters. Pure."""

    def __init__(self) -> None:
        self.objects = 0
        self.bytes = 0
        self._objects: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._odd: Counter[str] = Counter()
        self._samples: dict[str, list[str]] = {}

    def count(self, page: list[Entry]) -> None:
        """Count one page."""
        for entry in page:
            size = max(entry.size, 0)
            self.objects += 1
            self.bytes += size
            ending = extension(name_of(entry.key))
            if ending not in self._objects and len(self._objects) >= MAX_EXTENSIONS:
                ending = OTHER
            self._objects[ending] += 1
            self._bytes[ending] += size
            for what in oddities(entry):
                self._odd[what] += 1
                samples = self._samples.setdefault(what, [])
                if len(samples) < SAMPLES:
                    samples.append(shown(entry.key))

    def result(self, took_s: float, pace: int = 0) -> Survey:
        """Return what was counted in ``took_s`` seconds; ``pace`` as in RootConfig."""
        order = sorted(self._objects, key=lambda ending: (-self._bytes[ending], -self._objects[ending], ending))
        top = [ending for ending in order if ending != OTHER][:TOP]
        lines = [ExtensionCount(ending, self._objects[ending], self._bytes[ending]) for ending in top]
        rest = ExtensionCount(
            OTHER, self.objects - sum(line.objects for line in lines), self.bytes - sum(line.bytes for line in lines)
        )
        if rest.objects:
            lines.append(rest)
        odd = tuple(OddNames(what, count, tuple(self._samples[what])) for what, count in self._odd.most_common())
        slowest = max(took_s, self.objects / IMPORT_PER_S, self.objects / pace if pace else 0.0)
        return Survey(self.objects, self.bytes, tuple(lines), odd, took_s, slowest)


def oddities(entry: Entry) -> list[str]:
    """Return what is odd about an object's name, size or time; mostly nothing."""
    key = entry.key
    found = []
    if not fits(entry):
        carried = key_fits(key)
        found.append("a size, time or etag that cannot be said as it is" if carried else "a key that S3 does not allow")
    if not key.isascii() or not key.isprintable():
        found += _odd_characters(key)
    if any(part in {"", ".", ".."} for part in key.removesuffix("/").split("/")):
        found.append("an empty part, or . or ..")
    if any(part != part.strip(" ") or (part.endswith(".") and part.strip(".")) for part in key.split("/")):
        found.append("a space at an end, or a dot at the last")
    if any(character in key for character in "*?${}\\"):
        found.append("a character that storage policies or shells read as syntax")
    if name_of(key).startswith(("=", "+", "@", "-")):
        found.append("a beginning that spreadsheets or commands read as syntax")
    return found


def _odd_characters(key: str) -> list[str]:
    found = []
    if not key.isprintable():
        found.append("control, bidi or invisible characters")
    if unicodedata.normalize("NFC", key) != key:
        found.append("Unicode that is not composed (NFC): a twin may look the same")
    return found
