"""Random documents and random queries: every engine answers as the plain evaluator does."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.fields import Fields
from search.document import Document, Gone
from search.engine import Asked, Engine, FacetKind, Sort
from search.query import parse
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
from search.words import fold, runs

EXAMPLES = max(12, int(os.environ.get("WIO_FUZZ", "0")) // 1000)
"""More of them when WIO_FUZZ asks for a long run."""
WORKSPACES = (0, 1, 2**53 - 1)
PARTS = ("a", "ab", "abc", "scan", "Scan", "rawData", "01", "T1w", "é", "É", "ß", "x y", "HTTPServer", ".hid", "+", "日本")
NAMES = st.builds(
    "".join, st.lists(st.sampled_from((*PARTS, ".", "-", "_", ".nii.gz", ".TXT", "\n", "\u2003")), min_size=1, max_size=5)
)
PATHS = st.builds("/".join, st.lists(NAMES, min_size=1, max_size=3))
NUMBERS = st.sampled_from((0, 1, 2, 1000, 2**40, 7_258_118_400_000_000_000))
VALUE_NAMES = st.sampled_from(("a.b", "a.b.c", "a.bc", "x.scan", "x_a.b"))
WHOLE_NUMBERS = (0, 1, -1, 2, 2**53, 2**53 + 1, -(2**53) - 1, -(2**63), 2**63 - 1, 2**64 - 1, 1_000_000)
BROKEN_NUMBERS = (1.0, -1.0, 0.0, -0.0, 1.5, -1.5, 2.0**53, 2.0**63, 2.0**64, 1e300, -1e300, 5e-324, -5e-324, 0.1)
VALUE_NUMBERS = st.sampled_from(WHOLE_NUMBERS + BROKEN_NUMBERS) | st.floats(allow_nan=False, allow_infinity=False)
SAYINGS = st.builds("".join, st.lists(st.sampled_from((*PARTS, " ", ", ", "=", "/", "3", "true", "\n", "*")), max_size=5))
VALUES = SAYINGS | VALUE_NUMBERS | st.booleans()
FIELDS = st.builds(
    Fields,
    kind=st.sampled_from(("", "image", "Image", "dicom", "a b")),
    values=st.dictionaries(VALUE_NAMES, VALUES, max_size=4),
    tags=st.dictionaries(SAYINGS, SAYINGS, max_size=3),
    text=SAYINGS,
    problem=st.sampled_from(("", "It is cut off.")),
)
DOCUMENTS = st.lists(
    st.builds(
        Document,
        root=st.sampled_from((1, 2**53 - 1)),
        workspace=st.sampled_from(WORKSPACES),
        key=st.builds(str.__add__, st.sampled_from(("k/", "", "z")), PATHS),
        path=PATHS,
        size=st.integers(0, 3) | st.integers(0, 2**45),
        mtime=NUMBERS,
        revision=st.just(0),
        fields=st.none() | FIELDS,
    ),
    max_size=25,
)


def text_of(value: str, scope: Scope) -> Query:
    found = runs(value)
    run = "".join(found[0]) if len(found) == 1 and len(found[0]) > 1 else ""
    return Text(tuple(p for parts in found for p in parts), run, fold(value), scope)


TEXTS = st.builds(text_of, (NAMES | st.sampled_from(PARTS)).filter(runs), st.sampled_from(Scope))
PATTERNS = st.builds("".join, st.lists(st.sampled_from(("*", "?", *PARTS, ".nii", "-", "/")), min_size=1, max_size=5))
GLOBS = st.builds(lambda pattern, scope: Glob(fold(pattern), scope), PATTERNS, st.sampled_from((Scope.NAME, Scope.PATH)))
BOUNDS = st.none() | VALUE_NUMBERS
VALUED: st.SearchStrategy[Query] = (
    st.builds(HasValue, VALUE_NAMES)
    | st.builds(lambda name, text: ValueWords(name, text.words, text.run), VALUE_NAMES, TEXTS)
    | st.builds(ValueGlob, VALUE_NAMES, PATTERNS.map(fold))
    | st.builds(ValueRange, VALUE_NAMES, BOUNDS, BOUNDS, st.booleans(), st.booleans())
    | st.builds(ValueTruth, VALUE_NAMES, st.booleans())
)
LEAVES: st.SearchStrategy[Query] = (
    TEXTS
    | TEXTS
    | GLOBS
    | st.builds(Extension, st.sampled_from(("", "gz", "nii.gz", "txt", "01", "nii")))
    | st.builds(Range, st.sampled_from(Measure), st.none() | NUMBERS, st.none() | NUMBERS)
    | st.builds(Within, st.frozensets(st.sampled_from(WORKSPACES)), st.just("") | st.sampled_from(PARTS))
    | st.sampled_from((Everything(), Nothing(), Hidden(), Read(), Unreadable()))
    | st.builds(Kind, st.sampled_from(("image", "dicom", "*", "?mage", "a b", "a?b")))
    | st.builds(Tag, SAYINGS.map(fold) | PATTERNS.map(fold) | st.builds("{}={}".format, PATTERNS, PATTERNS).map(fold))
    | VALUED
    | VALUED
)
QUERIES: st.SearchStrategy[Query] = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=6,
)
ASKED = st.builds(
    Asked,
    query=QUERIES,
    workspaces=st.frozensets(st.sampled_from(WORKSPACES), min_size=1),
    sort=st.sampled_from(Sort),
    limit=st.sampled_from((1, 3, 100)),
    facets=st.frozensets(st.sampled_from(FacetKind)),
    facet_size=st.sampled_from((1, 20)),
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=DOCUMENTS, batches=st.integers(1, 3), asked=st.lists(ASKED, min_size=8, max_size=20))
async def test_engine_and_evaluator_agree(
    engine: Engine, reference: type[Any], documents: list[Document], batches: int, asked: list[Asked]
) -> None:
    await engine.clear()
    numbered = [msgspec.structs.replace(document, revision=revision) for revision, document in enumerate(documents, 1)]
    for at in range(batches):  # several commits, so that there are several segments
        part = numbered[at::batches]
        await engine.write(part)
        await engine.commit(0)
    await engine.commit(len(numbered))
    living = {(d.root, d.key): d for d in numbered}
    plain = reference(living.values())
    for one in asked:
        plain.check(one, await engine.search(one))


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_any_history_of_writes_replays_and_deletes_ends_at_the_newest_of_each_file(
    engine: Engine, data: st.DataObject
) -> None:
    await engine.clear()
    newest: dict[str, Document | Gone] = {}
    history: list[Document | Gone] = []
    for revision in range(1, data.draw(st.integers(1, 30)) + 1):
        key = data.draw(st.sampled_from("abc"))
        change = data.draw(st.sampled_from([Gone(1, key, revision), Document(1, 1, key, f"{key}.txt", revision, 0, revision)]))
        history.append(change)
        newest[key] = change
    position = 0
    while position < len(history):
        end = data.draw(st.integers(position + 1, len(history)))
        batch = history[position:end]
        await engine.write(data.draw(st.permutations(batch)))
        if data.draw(st.booleans()):
            await engine.write(history[:end])
        await engine.commit(end)
        position = end
    page = await engine.search(Asked(parse("", 0), frozenset({1}), sort=Sort.PATH))
    assert {h.document.key: h.document for h in page.hits} == {k: d for k, d in newest.items() if isinstance(d, Document)}
