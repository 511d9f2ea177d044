"""Where something may have changed: keys, folders, roots. Bounded; forgets nothing, only becomes less exact.

Too many keys become the folders they lie in, too many folders become their root. Pure; used in the event loop alone.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

MAX_KEYS: Final = 20_000
MAX_FOLDERS: Final = 1_000
"""Together some 10 MB at most."""


class Mark(msgspec.Struct, frozen=True):
    """A key to look at. ``actor`` is the name of the Holder who did it, as far as it is known."""

    root: int
    key: str
    actor: str = ""
    hinted: bool = True
    """Somebody said it changed; False where the agent only wants to look again."""
    asked: bool = False
    """The hub asked about it, and hears what is there even where nothing is and nothing was known."""


class Dirty:
    """The set. Keys come out in the order in which they were first marked."""

    def __init__(self, *, max_keys: int = MAX_KEYS, max_folders: int = MAX_FOLDERS) -> None:
        self._max_keys = max_keys
        self._max_folders = max_folders
        self._keys: dict[tuple[int, str], Mark] = {}
        self._folders: dict[tuple[int, str], None] = {}
        self._roots: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._keys) + len(self._folders) + len(self._roots)

    def places(self) -> Counter[int]:
        """Return how many marks each root has."""
        found = Counter(root for root, _ in self._keys)
        found.update(root for root, _ in self._folders)
        found.update(self._roots.keys())  # the mapping itself would be taken for counts
        return found

    def mark_key(self, mark: Mark) -> None:
        """Mark a key; where it is marked already, a known actor is kept."""
        place = (mark.root, mark.key)
        before = self._keys.get(place)
        if before is not None:
            both = mark.hinted or before.hinted, mark.asked or before.asked
            mark = Mark(mark.root, mark.key, mark.actor or before.actor, *both)
        self._keys[place] = mark
        if len(self._keys) > self._max_keys:
            self._coarsen_keys()

    def mark_folder(self, root: int, prefix: str) -> None:
        """Mark everything below a prefix; an empty one is the whole root."""
        if not prefix:
            self.mark_root(root)
            return
        self._folders[root, prefix] = None
        if len(self._folders) > self._max_folders:
            self._coarsen_folders()

    def mark_root(self, root: int) -> None:
        """Mark a whole root: what is marked inside it needs no mark of its own."""
        self._roots[root] = None
        self._folders = {place: None for place in self._folders if place[0] != root}
        self._keys = {place: mark for place, mark in self._keys.items() if place[0] != root}

    def drop_root(self, root: int) -> None:
        """Forget everything about a root that is no longer this node's."""
        self.mark_root(root)
        del self._roots[root]

    def take_keys(self, limit: int) -> list[Mark]:
        """Take up to ``limit`` marked keys out."""
        taken = [mark for _, mark in zip(range(limit), self._keys.values(), strict=False)]
        for mark in taken:
            del self._keys[mark.root, mark.key]
        return taken

    def take_folder(self) -> tuple[int, str] | None:
        """Take one marked folder out."""
        place = next(iter(self._folders), None)
        if place is not None:
            del self._folders[place]
        return place

    def take_roots(self) -> list[int]:
        """Take all marked roots out."""
        taken = list(self._roots)
        self._roots.clear()
        return taken

    def crowded(self, at_least: int) -> list[tuple[int, str, int]]:
        """Return folders (root, prefix, marked keys) that hold at least so many marked keys, fullest first."""
        if len(self._keys) < at_least:
            return []
        full = Counter((root, folder_of(key)) for root, key in self._keys)
        return [(root, folder, count) for (root, folder), count in full.most_common() if count >= at_least]

    def fold(self, root: int, prefix: str) -> None:
        """Put a folder in the place of every marked key in it."""
        self._keys = {place: mark for place, mark in self._keys.items() if place[0] != root or not place[1].startswith(prefix)}
        self.mark_folder(root, prefix)

    def _coarsen_keys(self) -> None:
        """Fold the fullest folders until half the room is free."""
        full = Counter((root, folder_of(key)) for root, key in self._keys)
        left = len(self._keys)
        folded: set[tuple[int, str]] = set()
        for place, count in full.most_common():
            if left <= self._max_keys // 2:
                break
            folded.add(place)
            left -= count
        self._keys = {(root, key): mark for (root, key), mark in self._keys.items() if (root, folder_of(key)) not in folded}
        for root, folder in folded:
            self.mark_folder(root, folder)

    def _coarsen_folders(self) -> None:
        """Let the root with most marked folders stand for all of them."""
        ((root, _),) = Counter(root for root, _ in self._folders).most_common(1)
        self.mark_root(root)


def folder_of(key: str) -> str:
    """Return the folder a key lies in: empty, or ending in a slash."""
    return key[: key.rfind("/") + 1]
