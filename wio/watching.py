"""What changes in files, one after the other, for as long as somebody wants to know: over ``GET /changes`` of the hub.

The hub learns of changes from the nodes' agents, whatever storage a node has. A hub that goes away is waited for: the
position stays good, so nothing is told twice and nothing is left out, up to what the hub still knows when it is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from protocol.api import FileChange, Hit
from protocol.errors import LinkBroken, TooMany, Unreachable
from wio.client import Client

WAIT_S: Final = 25
FIRST_S: Final = 0.5
LONGEST_S: Final = 10.0
"""Pauses between tries while the hub is away."""
INDEXED_S: Final = 10.0
"""How long a change may take to be found by a search."""
_FOLDERS: Final = 20
_PAGE: Final = 200
_KNOWN: Final = 1000
"""Hits that are there at the start, of which it is told when they go."""


class Watch:
    """Changes below ``path`` (a workspace, folder or file; None: in all one may read), from now on."""

    def __init__(
        self,
        client: Client,
        path: str | None = None,
        *,
        note: Callable[[str], None] = lambda _: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._path = path
        self._note = note
        self._pause = pause
        self._after: str | None = None

    def begin(self) -> None:
        """Take now as the position to go on from; raises what the hub answers."""
        self._after = self._client.changes(self._path).after

    def pages(self, *, wait: int = WAIT_S) -> Iterator[tuple[FileChange, ...]]:
        """Give what changed, as it comes in; an empty page now and then where nothing did. Does not end by itself.

        Raises what the hub answers (access that ended, a workspace that is gone, BadCursor after a long absence).
        """
        if self._after is None:
            self.begin()
        away = FIRST_S
        while True:
            try:
                found = self._client.changes(self._path, after=self._after, wait=wait)
            except (Unreachable, TooMany) as error:
                if away == FIRST_S:
                    self._note(f"{error.message} Trying again.")
                self._pause(away)
                away = min(2 * away, LONGEST_S)
                continue
            if away != FIRST_S:
                self._note("The hub answers again.")
                away = FIRST_S
            self._after = found.after
            yield found.changes


def matching(
    client: Client,
    query: str,
    watch: Watch,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[FileChange]:
    """Give those changes whose files a search finds, and the removal of files that it had found."""
    known = {hit.path for hit in _hits(client, query, _KNOWN)}
    waiting: dict[str, tuple[FileChange, float]] = {}
    watch.begin()
    for page in watch.pages(wait=1):
        now = clock()
        for change in page:
            waiting.pop(change.path, None)
            if not change.gone:
                waiting[change.path] = (change, now + INDEXED_S)
            elif change.path in known:
                known.discard(change.path)
                yield change
        if waiting:
            for path in _found(client, query, waiting):
                known.add(path)
                yield waiting.pop(path)[0]
            waiting = {path: (change, until) for path, (change, until) in waiting.items() if until > now}


def _found(client: Client, query: str, waiting: dict[str, tuple[FileChange, float]]) -> list[str]:
    """Return which of the changed files the search finds as they are now."""
    found: list[str] = []
    for folder in _folders(list(waiting)):
        try:
            hits = _hits(client, f'({query}) in:"{folder}"', len(waiting) + _PAGE)
        except (Unreachable, LinkBroken):
            return found
        for hit in hits:
            change = waiting.get(hit.path)
            if change is not None and (hit.size, hit.modified_at) == (change[0].size, change[0].modified_at):
                found.append(hit.path)
    return found


def _hits(client: Client, query: str, most: int) -> list[Hit]:
    page = client.search(query, sort="newest", limit=min(most, _PAGE))
    hits = list(page.hits)
    while page.cursor is not None and page.hits and len(hits) < most:
        page = client.search(query, sort="newest", limit=min(most - len(hits), _PAGE), cursor=page.cursor)
        hits += page.hits
    return hits


def _folders(paths: Sequence[str]) -> list[str]:
    """Return the folders to search in: those of the paths or, where they are many or oddly named, their workspaces."""
    folders = {path.rpartition("/")[0] for path in paths}
    if len(folders) > _FOLDERS or any('"' in one or "\\" in one for one in folders):
        folders = {"/".join(path.split("/")[:2]) for path in paths}
    return sorted(folders)
