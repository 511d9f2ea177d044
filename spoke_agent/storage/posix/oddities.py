"""What in a directory is dangerous or odd to serve: for its owner to know of before anybody else does. Blocking; only looks.

*Refused* are things that the gateway would follow out of the tree or hang on. The rest is listed because somebody will
wonder: it is not served, cannot be overwritten, or looks like something else on another system.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from protocol.names import shown
from spoke_agent.storage.posix.walking import BESIDE, TEMPORARY, leads, reach

SAMPLES: Final = 5
REFUSED: Final = 10_000
"""Keys of refused things returned."""
LONGEST_NAME: Final = 227
"""Bytes of a file's name that the gateway can still replace: it puts 28 around it meanwhile, and 255 is the end."""
LONGEST_KEY: Final = 1024
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

OUTBOUND: Final = "links that lead out of the tree"
ACROSS: Final = "links to elsewhere in the tree: not served, as somebody may be granted the one place and not the other"
FIFO: Final = "FIFOs: whoever reads one waits for ever"
DEVICE: Final = "devices"
SOCKET: Final = "sockets"
BROKEN: Final = "links that lead nowhere"
INSIDE: Final = "links to folders in the tree: their files are listed under their own names only"
MANGLED: Final = "names that are not UTF-8: not served"
UNREADABLE: Final = "folders that this user may not list: not served, and a listing over S3 of what they lie in fails"
LONG: Final = f"names of {LONGEST_NAME + 1} bytes and more: can be read, not overwritten"
TOO_LONG: Final = f"paths of more than {LONGEST_KEY} bytes: not served"
OWN: Final = f"a folder {BESIDE} at the top: the gateway's own word, not served"
LEFT: Final = f"a folder {TEMPORARY}: the gateway's own word, not served"
CASE: Final = "names that differ in case only: one of them is missing on a system that does not tell them apart"
TWINS: Final = "names that look the same (composed and decomposed Unicode)"
LINKED: Final = "files with several names (hard links): one that is overwritten over S3 parts from the others"

_DANGEROUS: Final = frozenset({OUTBOUND, FIFO, DEVICE, SOCKET})
_REFUSED: Final = _DANGEROUS | {ACROSS}


class Oddity(msgspec.Struct, frozen=True):
    """One kind: how many, and the first few, safe to print. ``refused``: not served until the owner has decided."""

    what: str
    count: int
    samples: tuple[str, ...]
    refused: bool


class Oddities(msgspec.Struct, frozen=True):
    """What was found among ``looked_at`` entries; ``whole`` is false where a limit ended the search."""

    found: tuple[Oddity, ...]
    looked_at: int
    whole: bool
    refused: tuple[str, ...] = ()
    """The keys of what must not be served; bounded."""


def find(directory: Path, limit: int = 2_000_000, spaces: Sequence[str] = ()) -> Oddities:
    """Walk through a directory and return what is odd in it. Opens folders only. Raises OSError for the directory itself.

    ``limit`` entries are looked at, at most. ``spaces`` as for ``walking.Request``.
    """
    search = _Search(directory, limit, spaces)
    search.run()
    return search.result()


class _Search:
    def __init__(self, directory: Path, limit: int, spaces: Sequence[str]) -> None:
        self._directory = directory
        self._limit = limit
        self._spaces = spaces
        self._count: dict[str, int] = {}
        self._samples: dict[str, list[str]] = {}
        self._refused: list[str] = []
        self._looked_at = 0
        self._whole = True

    def result(self) -> Oddities:
        order = sorted(self._count, key=lambda what: (what not in _DANGEROUS, -self._count[what], what))
        found = [Oddity(what, self._count[what], tuple(self._samples[what]), what in _DANGEROUS) for what in order]
        return Oddities(tuple(found), self._looked_at, self._whole, tuple(self._refused))

    def run(self) -> None:
        left = [""]
        while left and self._whole:
            front = left.pop()
            try:
                held = reach(self._directory, front.removesuffix("/").split("/") if front else [], _DIRECTORY)
            except OSError:
                if not front:
                    raise
                self._note(UNREADABLE, front)
                continue
            try:
                left += self._folder(held, front)
            finally:
                os.close(held)

    def _folder(self, held: int, front: str) -> list[str]:
        below, folded, composed = [], dict[str, str](), dict[str, str]()
        with os.scandir(held) as listing:
            for entry in listing:
                if self._looked_at >= self._limit:
                    self._whole = False
                    return []
                self._looked_at += 1
                name = entry.name
                try:
                    size = len(name.encode())
                except UnicodeEncodeError:
                    self._note(MANGLED, front + name)
                    continue
                self._name(front, name, size, folded, composed)
                if entry.is_dir(follow_symlinks=False):
                    if name == TEMPORARY or (not front and name == BESIDE):
                        self._note(LEFT if name == TEMPORARY else OWN, front + name + "/")
                    else:
                        below.append(f"{front}{name}/")
                else:
                    self._entry(front + name, entry)
        return below

    def _name(self, front: str, name: str, size: int, folded: dict[str, str], composed: dict[str, str]) -> None:
        if size > LONGEST_NAME:
            self._note(LONG, front + name)
        if len(front) + size > LONGEST_KEY // 4 and len(front.encode()) + size > LONGEST_KEY:
            self._note(TOO_LONG, front + name)
        twin = None
        if not name.isascii():
            twin = composed.setdefault(unicodedata.normalize("NFC", name), name)
            if twin != name:
                self._note(TWINS, front + name)
        other = folded.setdefault(unicodedata.normalize("NFC", name).casefold() if twin else name.lower(), name)
        if other != name and (twin is None or twin == name):
            self._note(CASE, front + name)

    def _entry(self, key: str, entry: os.DirEntry[str]) -> None:
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError:
            return
        if stat.S_ISREG(found.st_mode):
            if found.st_nlink > 1:
                self._note(LINKED, key)
        elif stat.S_ISLNK(found.st_mode):
            self._link(key)
        elif stat.S_ISFIFO(found.st_mode):
            self._note(FIFO, key)
        elif stat.S_ISSOCK(found.st_mode):
            self._note(SOCKET, key)
        else:
            self._note(DEVICE, key)

    def _link(self, key: str) -> None:
        target = leads(self._directory, key, self._spaces)
        if target is None:
            self._note(ACROSS if leads(self._directory, key, ("",)) else OUTBOUND, key)
            return
        try:
            mode = Path(target).lstat().st_mode
        except OSError:
            self._note(BROKEN, key)
            return
        if stat.S_ISDIR(mode):
            self._note(INSIDE, key)
        elif not stat.S_ISREG(mode):
            self._note(FIFO if stat.S_ISFIFO(mode) else SOCKET if stat.S_ISSOCK(mode) else DEVICE, key)

    def _note(self, what: str, key: str) -> None:
        self._count[what] = self._count.get(what, 0) + 1
        samples = self._samples.setdefault(what, [])
        if len(samples) < SAMPLES:
            samples.append(shown(key))
        if what in _REFUSED and len(self._refused) < REFUSED:
            self._refused.append(key)
