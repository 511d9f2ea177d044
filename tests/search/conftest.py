"""Every engine there is, under one fixture, and a plain evaluator to compare them with."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import msgspec
import pytest

from protocol.fields import Fields
from search.document import Document
from search.engine import Asked, Engine, FacetKind, Page, Sort
from search.tantivy import Tantivy
from search.tree import (
    And,
    Everything,
    Extension,
    Glob,
    HasValue,
    Hidden,
    Kind,
    Measure,
    Not,
    Nothing,
    Or,
    Query,
    Range,
    Read,
    Scope,
    Tag,
    Text,
    Unreadable,
    ValueGlob,
    ValueRange,
    ValueTruth,
    ValueWords,
    Within,
)
from search.words import extension, fold, name_of, runs

ENGINES: dict[str, Callable[[Path], Engine]] = {
    "tantivy": Tantivy,
    "tantivy-level-by-level": functools.partial(Tantivy, few=0),
}
"""A new engine is added here, and has to pass everything that asks for the fixture ``engine``."""

NOW = 1_764_000_000_000_000


@pytest.fixture(params=list(ENGINES))
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    made = ENGINES[request.param](tmp_path)
    await made.open()
    yield made
    await made.close()


class Reference:
    """What an engine has to answer, worked out the slow way from a list of documents."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self.documents = list(documents)

    def fitting(self, asked: Asked) -> list[tuple[int, Document]]:
        """Return (level, document) of everything that fits, in order, without limit."""
        found = [(level(asked.query, d), d) for d in self.documents if d.workspace in asked.workspaces]
        fit = [(n, d) for n, d in found if n > 0]
        fit.sort(key=lambda hit: (hit[1].root, hit[1].key.encode()))
        match asked.sort:
            case Sort.RELEVANCE:
                fit.sort(key=lambda hit: (-hit[0], -hit[1].mtime))
            case Sort.NEWEST:
                fit.sort(key=lambda hit: -hit[1].mtime)
            case Sort.OLDEST:
                fit.sort(key=lambda hit: hit[1].mtime)
            case Sort.LARGEST:
                fit.sort(key=lambda hit: -hit[1].size)
            case Sort.SMALLEST:
                fit.sort(key=lambda hit: hit[1].size)
            case Sort.PATH:
                fit.sort(key=lambda hit: hit[1].path.encode())
        return fit

    def check(self, asked: Asked, page: Page) -> None:
        """Compare a first page with what is expected."""
        fit = self.fitting(asked)
        assert [hit.document for hit in page.hits] == [without_fields(d) for _, d in fit[: asked.limit]]
        if asked.sort is Sort.RELEVANCE:
            assert [int(hit.score) for hit in page.hits] == [n for n, _ in fit[: asked.limit]]
        assert (page.total, page.bytes) == (len(fit), sum(d.size for _, d in fit))
        assert set(page.facets) == asked.facets
        by: dict[FacetKind, Callable[[Document], list[str]]] = {
            FacetKind.EXTENSION: lambda d: [extension(name_of(d.path))],
            FacetKind.ROOT: lambda d: [str(d.root)],
            FacetKind.WORKSPACE: lambda d: [str(d.workspace)],
            FacetKind.TYPE: lambda d: [fold(d.fields.kind)] if d.fields is not None and d.fields.kind else [],
            FacetKind.TAG: lambda d: [f"{n}={v}" for n, v in d.fields.tags.items()] if d.fields is not None else [],
        }
        for kind, tallies in page.facets.items():
            groups: dict[str, list[int]] = {}
            for _, d in fit:
                for value in by[kind](d):
                    groups.setdefault(value, []).append(d.size)
            expected = sorted(((-len(sizes), value, sum(sizes)) for value, sizes in groups.items()))[: asked.facet_size]
            assert [(-t.count, t.value, t.bytes) for t in tallies] == expected


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    return Reference


def level(query: Query, document: Document) -> int:  # noqa: C901, PLR0911 - one line for each kind of condition
    """Return 0 where a document does not fit, else where it was found: 1 inside, 2 in folders, 3 in its name, 4 the name."""
    path, name = document.path, name_of(document.path)
    match query:
        case Text():
            return _text_level(query, document)
        case Glob(pattern, scope):
            return (3 if scope is Scope.NAME else 2) * _fits(pattern, name if scope is Scope.NAME else path)
        case Extension(value):
            has = extension(name)
            return 4 * (has == value or (value != "" and has.endswith("." + value)))
        case Range(measure, low, high):
            number = document.size if measure is Measure.SIZE else document.mtime
            return 4 * ((low is None or number >= low) and (high is None or number <= high))
        case Hidden():
            return 4 * any(part.startswith(".") for part in path.split("/"))
        case Within(workspaces, below):
            return 4 * (document.workspace in workspaces and (not below or f"{path}/".startswith(f"{below}/")))
        case Everything():
            return 4
        case Nothing():
            return 0
        case Not(part):
            return 4 * (level(part, document) == 0)
        case And(parts):
            return min(level(part, document) for part in parts)
        case Or(parts):
            return max(level(part, document) for part in parts)
        case _:
            return 4 * (document.fields is not None and _read_out(query, document.fields))


def _read_out(query: Query, fields: Fields) -> bool:  # noqa: C901, PLR0911 - one line for each kind of condition
    match query:
        case Kind(pattern):
            return fields.kind != "" and _fits(pattern, fields.kind)
        case Tag(pattern):
            return any(_fits(pattern, f"{name}={value}" if "=" in pattern else name) for name, value in fields.tags.items())
        case HasValue(name):
            return name in fields.values
        case ValueWords(name, words, run):
            value = fields.values.get(name)
            return isinstance(value, str) and _holds(value, Text(words, run, "", Scope.CONTENT))
        case ValueGlob(name, pattern):
            value = fields.values.get(name)
            return isinstance(value, str) and _fits(pattern, value)
        case ValueRange(name, low, high, above, below):
            value = fields.values.get(name)
            if isinstance(value, str | bool | None):
                return False
            over = low is None or value > low or (value == low and not above)
            return over and (high is None or value < high or (value == high and not below))
        case ValueTruth(name, truth):
            return fields.values.get(name) is truth
        case Read():
            return fields.problem == ""
        case Unreadable():
            return fields.problem != ""
        case _:
            raise AssertionError(query)


def _fits(pattern: str, text: str) -> bool:
    regex = "".join({"*": ".*", "?": "."}.get(c) or re.escape(c) for c in pattern)
    return re.fullmatch(regex, fold(text), re.DOTALL) is not None


def _text_level(text: Text, document: Document) -> int:
    name = name_of(document.path)
    if text.scope is not Scope.CONTENT and _holds(name, text):
        stem = fold(name).removesuffix("." + extension(name)) if extension(name) else fold(name)
        return 4 if text.text in {fold(name), stem} else 3
    if text.scope in {Scope.PATH, Scope.ANYWHERE} and _holds(document.path, text):
        return 2
    fields = document.fields or Fields()
    inside = [fields.text] if text.scope in {Scope.CONTENT, Scope.ANYWHERE} else []
    if text.scope is Scope.ANYWHERE:
        inside += [value for value in fields.values.values() if isinstance(value, str)]
        inside += [part for tag in fields.tags.items() for part in tag]
    return int(any(_holds(value, text) for value in inside))


def without_fields(document: Document) -> Document:
    """Return a document as it comes back from an engine."""
    return msgspec.structs.replace(document, fields=None)


def _holds(value: str, text: Text) -> bool:
    found = list(itertools.chain.from_iterable(runs(value)))
    joined = {"".join(run) for run in runs(value)}
    together = any(tuple(found[at : at + len(text.words)]) == text.words for at in range(len(found)))
    return together or (len(text.words) == 1 and text.words[0] in joined) or text.run in joined
