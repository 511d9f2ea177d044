"""The small interface every search engine serves; one conformance suite, run against each, is its definition.

Engines are disposable: each remembers up to which revision it has everything (``position``), and the catalogue can fill
an empty one from nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

import msgspec

from search.document import Document, Gone
from search.query import Query


class Sort(enum.StrEnum):
    """The order of hits; ties end with (root, key) so that every order is total."""

    RELEVANCE = "relevance"
    NEWEST = "newest"
    OLDEST = "oldest"
    LARGEST = "largest"
    SMALLEST = "smallest"
    PATH = "path"


class FacetKind(enum.StrEnum):
    """What an engine can count by."""

    EXTENSION = "ext"
    ROOT = "root"
    WORKSPACE = "workspace"
    TYPE = "type"
    """Kinds of what was read out (``Fields.kind``, folded); files without one are not counted."""
    TAG = "tag"
    """The storage's tags, ``name=value`` in their own case; a file counts under each of its tags."""


class Asked(msgspec.Struct, frozen=True):
    """One search. ``workspaces`` are the ids the person may read: nothing else is ever returned, counted or suggested."""

    query: Query
    workspaces: frozenset[int]
    sort: Sort = Sort.RELEVANCE
    limit: int = 50
    after: tuple[float | int | str, ...] | None = None
    """The sort position of the last hit seen (``Found.position``), or None for the first page."""
    facets: frozenset[FacetKind] = frozenset()
    facet_size: int = 20


class Found(msgspec.Struct, frozen=True):
    """One hit. ``score`` uses no corpus statistics (field matched, exactness, recency), so lists of sources merge."""

    document: Document
    score: float
    position: tuple[float | int | str, ...]


class Tally(msgspec.Struct, frozen=True):
    """So many files and bytes under one value (an extension, or an id in decimal)."""

    value: str
    count: int
    bytes: int


class Page(msgspec.Struct, frozen=True):
    """An engine's answer."""

    hits: tuple[Found, ...]
    total: int
    bytes: int
    facets: dict[FacetKind, tuple[Tally, ...]]


class Stats(msgspec.Struct, frozen=True):
    """The engine at a glance."""

    documents: int
    bytes_on_disk: int
    position: int


class Engine(Protocol):
    """A search engine. ``write`` and ``commit`` have one caller at a time; ``search`` any number, beside them."""

    async def open(self) -> None:
        """Make ready, empty if there was nothing or what was there cannot be used."""

    async def close(self) -> None:
        """Let go of everything; what was committed stays."""

    async def write(self, changes: Sequence[Document | Gone]) -> None:
        """Take changes in revision order; replays are harmless. Not searchable before ``commit``."""

    async def commit(self, position: int) -> None:
        """Make everything written searchable and remember that all revisions up to ``position`` are in."""

    async def position(self) -> int:
        """Return the position of the last commit; 0 for an empty index."""

    async def search(self, asked: Asked) -> Page:
        """Answer from the last commit."""

    async def count(self, workspaces: AbstractSet[int]) -> int:
        """Count the documents these workspaces hold."""

    async def clear(self) -> None:
        """Forget everything; position 0."""

    async def stats(self) -> Stats:
        """Return numbers for people."""
