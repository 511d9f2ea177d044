"""The embedded engine: tantivy, in the hub's own process, on its own disk.

Derived and disposable: what cannot be opened is started anew, empty, and filled again from the catalogue. The position is a
document of its own in the same commit as the changes it speaks of, so that after a crash both are there or neither.

Changes at or below the position are in already and are passed over; of those above it, the newest revision of each file is
kept in mind until the position has passed it. So replays and changes out of order do no harm, and no write has to look
into the index first.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import itertools
import shutil
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import msgspec
import tantivy

from protocol.errors import BadCursor, Conflict, Internal
from search.conditions import IN_NAME, IN_PATH, INSIDE, LEVELS, WHOLE, Condition, Conditions, every, ranks, without
from search.document import Document, Gone
from search.engine import Asked, FacetKind, Found, Page, Sort, Stats, Tally
from search.fields import FORMAT, MARKER, from_index, identity, marker, path_of, path_term, schema, to_index

_HEAP_BYTES: Final = 64 * 1024 * 1024
"""What the writer may hold before it writes a segment by itself; not searchable before the commit."""
_BUCKETS: Final = 60_000
"""Different values of all facets together that are counted exactly; the engine's own limit is 65,000."""
_FACETS: Final = {FacetKind.EXTENSION: "extension", FacetKind.ROOT: "root", FacetKind.WORKSPACE: "workspace"} | {
    FacetKind.TYPE: "kind",
    FacetKind.TAG: "tag",
}
_ORDERS: Final = {
    Sort.RELEVANCE: ("mtime", tantivy.Order.Desc),
    Sort.NEWEST: ("mtime", tantivy.Order.Desc),
    Sort.OLDEST: ("mtime", tantivy.Order.Asc),
    Sort.LARGEST: ("size", tantivy.Order.Desc),
    Sort.SMALLEST: ("size", tantivy.Order.Asc),
    Sort.PATH: ("path", tantivy.Order.Asc),
}
_RECENCY: Final = float(2**63)

T = TypeVar("T")
_Position = tuple[float | int | str, ...]
_After = tuple[Any, str]
"""Where a page goes on: the value sorted by, and the identity."""
_RankedAfter = tuple[int, int, str]
"""The same by relevance: level, time, identity."""


class Tantivy:
    """``engine.Engine`` over one directory, which belongs to it alone. One process at a time can have it open.

    Up to ``few`` files are ranked outside of the index, in one look; more of them inside, in one look for each level.
    """

    def __init__(self, folder: Path, *, few: int = 2000) -> None:
        self._few_files = few
        self._home = folder
        self._folder = folder / f"tantivy-{FORMAT}"
        self._index: tantivy.Index | None = None
        self._writer: tantivy.IndexWriter | None = None
        self._held: BinaryIO | None = None
        self._schema = schema()
        self._conditions = Conditions(self._schema)
        self._position = 0
        self._empty = True
        self._seen: dict[str, int] = {}
        self._faults = 0
        """Writes and commits that failed since the last commit."""
        self._writing = asyncio.Lock()

    async def open(self) -> None:
        """See ``Engine.open``; raises Conflict if another process has it open."""
        await asyncio.to_thread(self._open)

    async def close(self) -> None:
        """See ``Engine.close``."""
        async with self._writing:
            await asyncio.to_thread(self._close)

    async def write(self, changes: Sequence[Document | Gone]) -> None:
        """See ``Engine.write``. Until ``commit`` the changes are in memory or in segments that nobody reads.

        Raises Internal if they cannot be written; then everything since the last commit has to be written again.
        """
        async with self._writing:
            await asyncio.to_thread(self._whole, functools.partial(self._write, changes))

    async def commit(self, position: int) -> None:
        """See ``Engine.commit``; raises as ``write`` does."""
        async with self._writing:
            await asyncio.to_thread(self._whole, functools.partial(self._finish, max(position, self._position)))

    async def position(self) -> int:
        """See ``Engine.position``."""
        return self._position

    async def search(self, asked: Asked) -> Page:
        """See ``Engine.search``. Raises BadCursor for an ``after`` that this order cannot have, BadQuery for a pattern.

        Raises Internal where the index is damaged; so do ``count`` and ``stats``.
        """
        return await self._read(functools.partial(self._search, asked))

    async def count(self, workspaces: AbstractSet[int]) -> int:
        """See ``Engine.count``."""
        return await self._read(functools.partial(self._count, workspaces))

    async def clear(self) -> None:
        """See ``Engine.clear``."""
        async with self._writing:
            await asyncio.to_thread(self._whole, self._clear)

    async def _read(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except BaseException as error:
            if not _is_unreadable(error):
                raise
            cause = error.with_traceback(None)
        raise Internal(
            f"The search index in {self._folder} cannot be read: {cause}.",
            todo="If that goes on, the index is damaged: stop the hub, wio-hub reindex, start it again. Nothing else is lost.",
        ) from cause

    async def stats(self) -> Stats:
        """See ``Engine.stats``."""
        return await self._read(self._stats)

    # -------------------------------------------------------------------------------------------------- its life

    def _open(self) -> None:
        if self._index is not None:
            return
        self._home.mkdir(parents=True, exist_ok=True)
        lock = self._lock()
        try:
            for old in self._home.glob("tantivy-*"):
                if old != self._folder:
                    shutil.rmtree(old, ignore_errors=True)
            index = _opened(self._try_open)
            if index is None:
                shutil.rmtree(self._folder, ignore_errors=True)
                index = self._try_open()
        except BaseException:
            lock.close()
            raise
        self._index, self._held = index, lock
        self._learn()

    def _lock(self) -> BinaryIO:
        """Hold the directory before anything in it is looked at: another process may be in the middle of a commit."""
        lock = (self._home / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise Conflict(
                f"The search index in {self._home} is in use by another process.",
                todo="Stop the other hub, or give this one a data directory of its own.",
            ) from error
        return lock

    def _try_open(self) -> tantivy.Index:
        self._folder.mkdir(exist_ok=True)
        index = tantivy.Index(self._schema, str(self._folder))
        index.config_reader("manual")
        index.reload()
        _marked(index, self._conditions)
        return index

    def _close(self) -> None:
        writer, held = self._writer, self._held
        self._index = self._writer = self._held = None
        if writer is not None:
            writer.rollback()
            writer.wait_merging_threads()
        if held is not None:
            held.close()

    def _learn(self) -> None:
        """Take position and size from the last commit."""
        index = self._opened_index()
        index.reload()
        self._position = _marked(index, self._conditions)
        self._empty = index.searcher().num_docs <= 1
        self._seen = {found: revision for found, revision in self._seen.items() if revision > self._position}

    # -------------------------------------------------------------------------------------------------- writing

    def _write(self, changes: Sequence[Document | Gone]) -> None:
        for change in changes:
            if change.revision <= self._position:
                continue
            term = identity(change.root, change.key)
            before = self._seen.get(term)
            if before is not None and before >= change.revision:
                continue
            replaces = before is not None or not self._empty
            self._seen[term] = change.revision
            self._put(term if replaces else None, to_index(change) if isinstance(change, Document) else None)

    def _put(self, unwanted: str | None, added: tantivy.Document | None) -> None:
        writer = self._ready()
        if unwanted is not None:
            writer.delete_documents_by_term("id", unwanted)
        if added is not None:
            writer.add_document(added)

    def _clear(self) -> None:
        writer = self._ready()
        writer.rollback()  # deleting all does not reach what was never committed
        writer.delete_all_documents()
        self._seen.clear()
        self._finish(0)

    def _finish(self, position: int) -> None:
        writer = self._ready()
        writer.delete_documents_by_term("id", MARKER)
        writer.add_document(marker(position))
        writer.commit()
        self._faults = 0
        self._learn()

    def _ready(self) -> tantivy.IndexWriter:
        """Return the writer. There is a new one after a fault: the old one is of no use any more, not even to roll back."""
        if self._writer is None:
            self._writer = self._opened_index().writer(_HEAP_BYTES, 1)
        return self._writer

    def _whole(self, work: Callable[[], None]) -> None:
        """Do all of ``work`` or go back to the last commit.

        A faulty writer holds the index until nothing refers to it, neither a traceback: so the cause travels without its
        own, and is raised where ``work`` has been left.
        """
        self._opened_index()
        try:
            work()
        except BaseException as error:
            if not _is_fault(error):
                raise
            cause = error.with_traceback(None)
        else:
            return
        self._seen.clear()
        self._writer = None
        self._faults += 1
        if self._faults > 1:
            self._mend()
        raise Internal(
            f"The search index in {self._folder} cannot be written: {cause}.", todo="Look at the disk's free space."
        ) from cause

    def _mend(self) -> None:
        """Go on with what the disk has, after a second fault in a row; where it is damaged or gone, begin anew at 0.

        A first one may pass by itself, as where a disk was away for a moment; until then what is open is searched. Without
        this, an index whose files somebody deleted could never be written again before the next start.
        """
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            index = _opened(self._try_open)
            if index is None:
                shutil.rmtree(self._folder, ignore_errors=True)
                index = self._try_open()
        except BaseException as error:
            if not _is_fault(error):
                raise
            return  # as on a full disk: what is open stays open, and the next write tries again
        self._index = index
        self._learn()

    # -------------------------------------------------------------------------------------------------- searching

    def _opened_index(self) -> tantivy.Index:
        if self._index is None:
            raise Internal("The search index is not open.")
        return self._index

    def _searcher(self) -> tantivy.Searcher:
        return self._opened_index().searcher()

    def _search(self, asked: Asked) -> Page:
        searcher = self._searcher()
        readable = self._conditions.ids("workspace", asked.workspaces)
        fits = every([readable, self._conditions.at(asked.query, INSIDE)])
        total, size, facets = _tallied(searcher, fits, asked.facets, asked.facet_size)
        if asked.sort is not Sort.RELEVANCE:
            after = _after(asked.after, asked.sort)
            window = self._window(searcher, fits, asked.sort, after, asked.limit) if total else []
            hits = tuple(Found(found, 0.0, (value, found.root, found.key)) for value, found in window)
        else:
            place = _ranked_after(asked.after)
            few = total <= self._few_files
            ranked = self._few(searcher, fits, asked, place, total) if few else self._many(searcher, readable, asked, place)
            hits = tuple(
                Found(found, level + found.mtime / _RECENCY, (level, found.mtime, found.root, found.key))
                for level, found in ranked
            )
        return Page(hits, total, size, facets)

    def _few(
        self, searcher: tantivy.Searcher, fits: Condition, asked: Asked, after: _RankedAfter | None, total: int
    ) -> list[tuple[int, Document]]:
        """Return one page by relevance from few files: all of them with their level at once, sorted here."""
        if not total:
            return []
        if ranks(asked.query):
            counted = [(tantivy.Occur.Must, tantivy.Query.const_score_query(fits, INSIDE))]
            for level in (IN_PATH, IN_NAME, WHOLE):
                higher = tantivy.Query.const_score_query(self._conditions.at(asked.query, level), 1)
                counted.append((tantivy.Occur.Should, higher))
            hits = searcher.search(tantivy.Query.boolean_query(counted), total, count=False).hits
        else:
            hits = [(WHOLE, address) for _, address in searcher.search(fits, total, count=False).hits]
        times = searcher.fast_field_values("mtime", [address for _, address in hits])
        rows = sorted(
            ((-int(level), -int(time or 0), address) for (level, address), time in zip(hits, times, strict=True)),
            key=lambda row: row[:2],
        )
        if after is not None:
            rows = [row for row in rows if row[:2] >= (-after[0], -after[1])]
        page: list[tuple[int, Document]] = []
        for (level, time), group in itertools.groupby(rows, key=lambda row: row[:2]):
            if len(page) >= asked.limit:
                break
            equal = sorted((from_index(searcher.doc(address)) for *_, address in group), key=lambda d: identity(d.root, d.key))
            if after is not None and (-level, -time) == after[:2]:
                equal = [d for d in equal if identity(d.root, d.key) > after[2]]
            page += [(-level, d) for d in equal]
        return page[: asked.limit]

    def _many(
        self, searcher: tantivy.Searcher, readable: Condition, asked: Asked, after: _RankedAfter | None
    ) -> list[tuple[int, Document]]:
        """Return one page by relevance from many files: level by level, as many as are needed."""
        page: list[tuple[int, Document]] = []
        above: Condition | None = None
        for level in LEVELS if ranks(asked.query) else LEVELS[:1]:
            here = every([readable, self._conditions.at(asked.query, level)])
            if after is None or level <= after[0]:
                only = here if above is None else without(here, above)
                rest = after[1:] if after is not None and level == after[0] else None
                window = self._window(searcher, only, Sort.RELEVANCE, rest, asked.limit - len(page))
                page += [(level, found) for _, found in window]
            if len(page) >= asked.limit:
                break
            above = here
        return page

    def _window(
        self, searcher: tantivy.Searcher, fits: Condition, sort: Sort, after: _After | None, limit: int
    ) -> list[tuple[Any, Document]]:
        """Return up to ``limit`` documents behind ``after`` with what they are sorted by, in the one exact order.

        The index sorts by one field only, so where several documents have the value at which a page ends or begins,
        those are asked for again, sorted by identity.
        """
        if limit <= 0:
            return []
        page: list[tuple[Any, Document]] = []
        if after is not None:
            value, last = after
            equal = every([fits, self._equal(sort, value), self._behind("id", last)])
            page += self._by_identity(searcher, equal, value, limit)
            fits = every([fits, self._beyond(sort, value)])
        need = limit - len(page)
        if need == 0:
            return page
        field, order = _ORDERS[sort]
        # One more than needed: it tells whether the page ends between two values or inside one.
        hits = searcher.search(fits, need + 1, count=False, order_by_field=field, order=order).hits
        edge = hits[-1][0] if len(hits) > need and hits[-1][0] == hits[-2][0] else None
        whole = [(value, from_index(searcher.doc(address))) for value, address in hits[:need] if value != edge]
        whole.sort(key=lambda hit: identity(hit[1].root, hit[1].key))
        whole.sort(key=lambda hit: hit[0], reverse=order == tantivy.Order.Desc)
        page += [(found.path if field == "path" else value, found) for value, found in whole]
        if edge is not None:
            value = edge if field != "path" else path_of(edge)
            page += self._by_identity(searcher, every([fits, self._equal(sort, value)]), value, limit - len(page))
        return page

    def _by_identity(
        self, searcher: tantivy.Searcher, equal: Condition, value: float | str, limit: int
    ) -> list[tuple[Any, Document]]:
        hits = searcher.search(equal, limit, count=False, order_by_field="id", order=tantivy.Order.Asc).hits
        return [(value, from_index(searcher.doc(address))) for _, address in hits]

    def _equal(self, sort: Sort, value: Any) -> Condition:
        field, _ = _ORDERS[sort]
        return (
            self._conditions.term(field, path_term(value)) if field == "path" else self._conditions.number(field, value, value)
        )

    def _beyond(self, sort: Sort, value: Any) -> Condition:
        field, order = _ORDERS[sort]
        if field == "path":
            return self._behind(field, path_term(value))
        if order == tantivy.Order.Desc:
            return self._conditions.number(field, None, value - 1) if value > 0 else tantivy.Query.empty_query()
        return self._conditions.number(field, value + 1, None)

    def _behind(self, field: str, term: str) -> Condition:
        """Return the condition that a field sorts behind a term. Only the text form can say it; terms are plain (fields)."""
        return self._conditions.between(field, term, "*", above=True)

    def _count(self, workspaces: AbstractSet[int]) -> int:
        return _tallied(self._searcher(), self._conditions.ids("workspace", workspaces), frozenset(), 0)[0]

    def _stats(self) -> Stats:
        documents = max(self._searcher().num_docs - 1, 0)
        size = 0
        for path in self._folder.iterdir():
            try:
                size += path.stat().st_size
            except FileNotFoundError:  # a merge has removed it meanwhile
                continue
        return Stats(documents, size, self._position)


def _opened(attempt: Callable[[], T]) -> T | None:
    """Return what ``attempt`` gives, or None where the index it opens is damaged or of another schema."""
    try:
        return attempt()
    except PermissionError:
        raise
    except BaseException as error:
        if not _is_fault(error):
            raise
        return None


def _is_fault(error: BaseException) -> bool:
    """Say whether this is tantivy's way to report damage or a failed write."""
    return isinstance(error, ValueError | OSError | msgspec.MsgspecError) or _is_panic(error)


def _is_unreadable(error: BaseException) -> bool:
    """Say whether a search failed at the files, not at what was asked: tantivy raises ValueError for both."""
    files = isinstance(error, ValueError) and str(error).startswith(("An IO error", "Data corrupt", "Failed to open file"))
    return files or isinstance(error, OSError) or _is_panic(error)


def _is_panic(error: BaseException) -> bool:
    """Say whether tantivy panicked: its panics are no Exceptions."""
    return type(error).__name__ == "PanicException"


def _marked(index: tantivy.Index, conditions: Conditions) -> int:
    searcher = index.searcher()
    hits = searcher.search(conditions.term("id", MARKER), 1).hits
    return int(searcher.doc(hits[0][1]).get_first("position") or 0) if hits else 0


def _tallied(
    searcher: tantivy.Searcher, fits: Condition, facets: AbstractSet[FacetKind], size: int
) -> tuple[int, int, dict[FacetKind, tuple[Tally, ...]]]:
    """Count everything that fits. Sums of bytes are exact up to 2**53."""
    total = {"bytes": {"sum": {"field": "size"}}}
    each = _BUCKETS // max(len(facets), 1)
    wanted: dict[str, Any] = {
        "files": {"value_count": {"field": "size"}},
        **total,
        **{
            kind.value: {"terms": {"field": _FACETS[kind], "size": each, "segment_size": each}, "aggs": total}
            for kind in facets
        },
    }
    answer = searcher.aggregate(fits, wanted)
    tallies = {
        kind: sorted(
            (Tally(_value(b["key"]), b["doc_count"], int(b["bytes"]["value"])) for b in answer[kind.value]["buckets"]),
            key=lambda tally: (-tally.count, tally.value),
        )
        for kind in facets
    }
    return (
        int(answer["files"]["value"]),
        int(answer["bytes"]["value"]),
        {kind: tuple(found[:size]) for kind, found in tallies.items()},
    )


def _value(key: str | float) -> str:
    return key if isinstance(key, str) else str(int(key))


def _ranked_after(after: _Position | None) -> _RankedAfter | None:
    if after is None:
        return None
    rest = _after(after[1:], Sort.RELEVANCE)
    if rest is None or type(after[0]) is not int or after[0] not in LEVELS:
        raise _bad_cursor()
    return after[0], *rest


def _after(after: _Position | None, sort: Sort) -> _After | None:
    """Check a position that came back from outside; return the value sorted by and the identity."""
    if after is None:
        return None
    match after:
        case (value, int(root), str(key)) if root >= 0:
            right = isinstance(value, str) if sort is Sort.PATH else type(value) is int and 0 <= value < 2**63
            if right:
                try:
                    return value, identity(root, key)
                except UnicodeEncodeError:
                    pass
    raise _bad_cursor()


def _bad_cursor() -> BadCursor:
    return BadCursor("This is no place to continue this search from.", todo="Search again from the first page.")
