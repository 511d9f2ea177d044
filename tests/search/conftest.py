"""Every engine there is, under one fixture, and a plain evaluator to compare them with."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest

from search.document import Document
from search.engine import Asked, Engine, FacetKind, Page, Sort
from search.query import (
    And,
    Everything,
    Extension,
    Glob,
    Hidden,
    Measure,
    Not,
    Nothing,
    Or,
    Query,
    Range,
    Scope,
    Text,
    Within,
)
from search.tantivy import Tantivy
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
        assert [hit.document for hit in page.hits] == [d for _, d in fit[: asked.limit]]
        if asked.sort is Sort.RELEVANCE:
            assert [int(hit.score) for hit in page.hits] == [n for n, _ in fit[: asked.limit]]
        assert (page.total, page.bytes) == (len(fit), sum(d.size for _, d in fit))
        assert set(page.facets) == asked.facets
        by = {
            FacetKind.EXTENSION: lambda d: extension(name_of(d.path)),
            FacetKind.ROOT: lambda d: str(d.root),
            FacetKind.WORKSPACE: lambda d: str(d.workspace),
        }
        for kind, tallies in page.facets.items():
            groups: dict[str, list[int]] = {}
            for _, d in fit:
                groups.setdefault(by[kind](d), []).append(d.size)
            expected = sorted(((-len(sizes), value, sum(sizes)) for value, sizes in groups.items()))[: asked.facet_size]
            assert [(-t.count, t.value, t.bytes) for t in tallies] == expected


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    return Reference


def level(query: Query, document: Document) -> int:  # noqa: C901, PLR0911 - one line for each kind of condition
    """Return 0 where a document does not fit, else where it was found: 1 in folders, 2 in the name, 3 the name itself."""
    path, name = document.path, name_of(document.path)
    match query:
        case Text():
            return _text_level(query, path, name)
        case Glob(pattern, scope):
            regex = "".join({"*": ".*", "?": "."}.get(c) or re.escape(c) for c in pattern)
            fits = re.fullmatch(regex, fold(name if scope is Scope.NAME else path), re.DOTALL)
            return 0 if not fits else 2 if scope is Scope.NAME else 1
        case Extension(value):
            has = extension(name)
            return 3 * (has == value or (value != "" and has.endswith("." + value)))
        case Range(measure, low, high):
            number = document.size if measure is Measure.SIZE else document.mtime
            return 3 * ((low is None or number >= low) and (high is None or number <= high))
        case Hidden():
            return 3 * any(part.startswith(".") for part in path.split("/"))
        case Within(workspaces, below):
            return 3 * (document.workspace in workspaces and (not below or f"{path}/".startswith(f"{below}/")))
        case Everything():
            return 3
        case Nothing():
            return 0
        case Not(part):
            return 3 * (level(part, document) == 0)
        case And(parts):
            return min(level(part, document) for part in parts)
        case Or(parts):
            return max(level(part, document) for part in parts)
        case _:
            raise AssertionError(query)


def _text_level(text: Text, path: str, name: str) -> int:
    if _holds(name, text):
        stem = fold(name).removesuffix("." + extension(name)) if extension(name) else fold(name)
        return 3 if text.text in {fold(name), stem} else 2
    return int(text.scope is Scope.PATH and _holds(path, text))


def _holds(value: str, text: Text) -> bool:
    found = list(itertools.chain.from_iterable(runs(value)))
    joined = {"".join(run) for run in runs(value)}
    together = any(tuple(found[at : at + len(text.words)]) == text.words for at in range(len(found)))
    return together or (len(text.words) == 1 and text.words[0] in joined) or text.run in joined
