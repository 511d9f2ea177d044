"""The grammar: what is read, and where and how it says no."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.errors import BadQuery
from search.query import FIELDS, MAX_DEPTH, MAX_ITEMS, MAX_QUERY, bind_places, parse, places
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
    Place,
    PlaceField,
    PlaceScope,
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

NOW = 1_764_000_000_000_000  # 2025-11-24 16:00:00 UTC
DAY = 86_400 * 10**9
Y2024 = 1_704_067_200 * 10**9
Y2025 = 1_735_689_600 * 10**9


def word(text: str, scope: Scope = Scope.ANYWHERE) -> Text:
    return Text((text,), "", text, scope)


A, B, C = word("a"), word("b"), word("c")


def size(low: int | None, high: int | None) -> Range:
    return Range(Measure.SIZE, low, high)


def modified(low: int | None, high: int | None) -> Range:
    return Range(Measure.MODIFIED, low, high)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Everything()),
        (" \t ", Everything()),
        ("a", A),
        ("a b", And((A, B))),
        ("a AND b", And((A, B))),
        ("a OR b", Or((A, B))),
        ("a OR b c", Or((A, And((B, C))))),
        ("(a OR b) c", And((Or((A, B)), C))),
        ("((a))", A),
        ("-a", Not(A)),
        ("NOT a", Not(A)),
        ("NOT -a", Not(Not(A))),
        ("a -b", And((A, Not(B)))),
        ("a NOT (b OR c)", And((A, Not(Or((B, C)))))),
        ("a-b", Text(("a", "b"), "", "a-b", Scope.ANYWHERE)),
        ("or not and", And((word("or"), word("not"), word("and")))),
        ('"OR"', word("or")),
        ("a(b)", And((A, B))),
        ('a"b"', And((A, B))),
        ('"Raw Data"', Text(("raw", "data"), "", "raw data", Scope.ANYWHERE)),
        ('"a*"', Text(("a",), "", "a ", Scope.ANYWHERE)),
        ("rawData", Text(("raw", "data"), "rawdata", "rawdata", Scope.ANYWHERE)),
        ("*.NII*", Glob("*.nii*", Scope.NAME)),
        ("a**b", Glob("a*b", Scope.NAME)),
        ("*", Everything()),
        ("raw/*.nii", Glob("raw/*.nii", Scope.PATH)),
        ("name:a", word("a", Scope.NAME)),
        ("NAME:A", word("a", Scope.NAME)),
        ('name:"a b*"', Glob("a b*", Scope.NAME)),
        ("name:b/a?", Glob("b/a?", Scope.PATH)),
        ("path:a*", Glob("a*", Scope.PATH)),
        ("path:a", word("a", Scope.PATH)),
        ("text:a", word("a", Scope.CONTENT)),
        ('text:"Raw Data"', Text(("raw", "data"), "", "raw data", Scope.CONTENT)),
        ("type:Image", Kind("image")),
        ("type:*", Kind("*")),
        ("tag:Project", Tag("project")),
        ('tag:"Project=My **Scans"', Tag("project=my *scans")),
        ("dicom.modality:MR", ValueWords("dicom.modality", ("mr",), "")),
        ("Dicom.Modality:MR", ValueWords("dicom.modality", ("mr",), "")),
        ('dicom.series:"Head Scan"', ValueWords("dicom.series", ("head", "scan"), "")),
        ("dicom.series:t1W", ValueWords("dicom.series", ("t", "1", "w"), "t1w")),
        ("dicom.series:T1*", ValueGlob("dicom.series", "t1*")),
        ("dicom.series:**", HasValue("dicom.series")),
        ("image.width>4000", ValueRange("image.width", 4000, None, above=True)),
        ("image.width:>4000", ValueRange("image.width", 4000, None, above=True)),
        ("image.width>=-1.5", ValueRange("image.width", -1.5, None)),
        ("image.width<1e3", ValueRange("image.width", None, 1000.0, below=True)),
        ("image.width<=.5", ValueRange("image.width", None, 0.5)),
        ("image.width:1000..2000", ValueRange("image.width", 1000, 2000)),
        ("image.width:-2..-1.5", ValueRange("image.width", -2, -1.5)),
        ("image.width:..2000", ValueRange("image.width", None, 2000)),
        ("image.width:1..", ValueRange("image.width", 1, None)),
        ("image.width>9223372036854775807", ValueRange("image.width", 2**63 - 1, None, above=True)),
        ("image.width>99999999999999999999", ValueRange("image.width", 1e20, None, above=True)),
        ("image.width:3", Or((ValueRange("image.width", 3, 3), ValueWords("image.width", ("3",), "")))),
        ("image.width:-3.0", Or((ValueRange("image.width", -3.0, -3.0), ValueWords("image.width", ("3", "0"), "")))),
        ("image.alpha:True", Or((ValueTruth("image.alpha", True), ValueWords("image.alpha", ("true",), "")))),
        ("image.alpha:false", Or((ValueTruth("image.alpha", False), ValueWords("image.alpha", ("false",), "")))),
        ("pdf.title:a..b", ValueWords("pdf.title", ("a", "b"), "")),
        ("a.txt:3x", ValueWords("a.txt", ("3", "x"), "3x")),
        ("ext:NII", Extension("nii")),
        ("ext:.nii.gz", Extension("nii.gz")),
        ("ext:.", Extension("")),
        ("is:empty", size(0, 0)),
        ("is:Hidden", Hidden()),
        ("is:read", Read()),
        ("is:unreadable", Unreadable()),
        ("owner:bob", Place(PlaceField.OWNER, "bob", 7)),
        ("a node:lab3", And((A, Place(PlaceField.NODE, "lab3", 8)))),
        ('in:"alice/My Scans/x"', Place(PlaceField.IN, "alice/My Scans/x", 4)),
        ("workspace:w OR root:r", Or((Place(PlaceField.WORKSPACE, "w", 11), Place(PlaceField.ROOT, "r", 21)))),
        ("size:0", size(0, 0)),
        ("size:100", size(100, 100)),
        ("size:10M", size(10_000_000, 10_999_999)),
        ("size:1.5GiB", size(1_610_612_736, 1_717_986_918)),
        ("size>10M", size(10_000_001, None)),
        ("size:>10M", size(10_000_001, None)),
        ("size>=10mb", size(10_000_000, None)),
        ("size<1KiB", size(None, 1023)),
        ("size<=1Ki", size(None, 1024)),
        ("size<0", Nothing()),
        ("size>1.0001K", size(1001, None)),
        ("size>=1.0001K", size(1001, None)),
        ("size<1.0001K", size(None, 1000)),
        ("size<=1.0001K", size(None, 1000)),
        ("size:1M..2M", size(1_000_000, 2_000_000)),
        ("size:1M..", size(1_000_000, None)),
        ("size:..2M", size(None, 2_000_000)),
        ("modified:2024", modified(Y2024, Y2025 - 1)),
        ("modified:2024-12", modified(Y2025 - 31 * DAY, Y2025 - 1)),
        ("modified:2024-02", modified(Y2024 + 31 * DAY, Y2024 + 60 * DAY - 1)),
        ("modified:2024-02-29", modified(Y2024 + 59 * DAY, Y2024 + 60 * DAY - 1)),
        ("modified:<2024", modified(None, Y2024 - 1)),
        ("modified<=2024", modified(None, Y2025 - 1)),
        ("modified>2024", modified(Y2025, None)),
        ("modified>=2024", modified(Y2024, None)),
        ("modified<1970", Nothing()),
        ("modified:2024..2024", modified(Y2024, Y2025 - 1)),
        ("modified:2024..", modified(Y2024, None)),
        ("modified:..2024", modified(None, Y2025 - 1)),
        ("modified:7d", modified(NOW * 1000 - 7 * DAY, None)),
        ("modified<7d", modified(None, NOW * 1000 - 7 * DAY - 1)),
        ("modified:12h", modified(NOW * 1000 - DAY // 2, None)),
        ("modified:2w..1W", modified(NOW * 1000 - 14 * DAY, NOW * 1000 - 7 * DAY - 1)),
        ("modified:1y", modified(NOW * 1000 - 365 * DAY, None)),
        ("modified:999999y", modified(0, None)),
        ("modified:today", modified(NOW * 1000 // DAY * DAY, NOW * 1000 // DAY * DAY + DAY - 1)),
        ("modified:yesterday", modified(NOW * 1000 // DAY * DAY - DAY, NOW * 1000 // DAY * DAY - 1)),
    ],
)
def test_a_query_is_read_as_it_is_meant(text: str, expected: Query) -> None:
    assert parse(text, NOW) == expected


@pytest.mark.parametrize(
    ("text", "column", "hint"),
    [
        ("a sise:3", 3, "Did you mean size:?"),
        ("onwer:bob", 1, "Did you mean owner:?"),
        ("qqq:1", 1, "The fields are name, path, ext"),
        ("http://x", 1, "quotation marks"),
        ("a b>3", 3, "The fields are"),
        ("(a", 1, "Write a )"),
        ("a (b (c)", 3, "Write a )"),
        ("a)", 2, "Remove it"),
        (")", 1, "Remove it"),
        ("()", 2, "Remove it"),
        ("OR a", 1, 'quotation marks: "OR"'),
        ("a OR OR b", 6, 'quotation marks: "OR"'),
        ("a AND", 6, "Add a word"),
        ("a OR", 5, "Add a word"),
        ("a -", 4, "Add a word"),
        ("NOT", 4, "Add a word"),
        ("NOT AND a", 5, 'quotation marks: "AND"'),
        ('a "b', 3, 'another "'),
        ('name:"b', 6, 'another "'),
        ("a ++", 3, "*++*"),
        ("name:&", 6, "*&*"),
        ('a "&"', 3, "*&*"),
        ('""', 1, "*&*"),
        ("size:", 6, "Write the value"),
        ("size: 3", 6, "Write the value"),
        ('ext:""', 5, "Write the value"),
        ("size>=", 7, "Write the value"),
        ("a size:3X", 8, "1.5GiB"),
        ("size:1.5", 6, "1.5GiB"),
        ("size:-3", 6, "1.5GiB"),
        ("size:9999999P", 6, "smaller size"),
        ("size:2M..1M", 6, "smaller end first"),
        ("size:1M..x", 10, "1.5GiB"),
        ("size:x..1M", 6, "1.5GiB"),
        ("size:..", 6, "two ends"),
        ("size>1..2", 6, "two ends"),
        ("modified:2024-02-30", 10, "2024-03-01"),
        ("modified:2024-13", 10, "2024-03-01"),
        ("modified:2024-00", 10, "2024-03-01"),
        ("modified:1969", 10, "2024-03-01"),
        ("modified:9999", 10, "2024-03-01"),
        ("modified:7m", 10, "12h, 7d"),
        ("modified:2025..2024", 10, "smaller end first"),
        ("modified>7d..1d", 10, "two ends"),
        ("modified:..", 10, "two ends"),
        ("owner>3", 6, "owner:3"),
        ("is:big", 4, "is:empty"),
        ("text:a*", 6, "Leave out"),
        ("text:&", 6, "*&*"),
        ("type>3", 5, "type:3"),
        ("tag:", 5, "Write the value"),
        ("b.c:", 5, "Write the value"),
        ("b.c>", 5, "Write the value"),
        ("a b.c>x", 7, "b.c:x"),
        ("b.c:>=2024-01", 7, "b.c:2024-01"),
        ("b.c>1e999", 5, "b.c:1e999"),
        ("b.c>²", 5, "Compare with a number"),
        ("b.c:1..x", 8, "both ends"),
        ("b.c:x..1", 5, "both ends"),
        ("b.c:2..1", 5, "smaller end first"),
        ("b.c>1..2", 5, "two ends"),
        ("b.c:&", 5, "b.c:*&*"),
        ("b..c:1", 1, "The fields are"),
        ("b.:1", 1, "The fields are"),
        ("tipe:image", 1, "Did you mean type:?"),
        ("ext:a*", 5, "ext:nii"),
        ("ext:a/b", 5, "ext:nii"),
    ],
)
def test_what_cannot_be_read_says_where_and_what_to_write(text: str, column: int, hint: str) -> None:
    with pytest.raises(BadQuery) as caught:
        parse(text, NOW)
    assert (caught.value.column, hint in caught.value.todo) == (column, True), caught.value.todo
    assert caught.value.message.endswith((".", "?"))


def test_limits_are_named_with_the_column_that_breaks_them() -> None:
    parse("a " * (MAX_ITEMS - 1) + "a", NOW)
    parse("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH, NOW)
    for text, column in (
        ("a" * (MAX_QUERY + 1), MAX_QUERY + 1),
        ("a " * (MAX_ITEMS + 1), 2 * MAX_ITEMS + 1),
        ("(" * (MAX_DEPTH + 1) + "a" + ")" * (MAX_DEPTH + 1), MAX_DEPTH + 1),
        ("-" * (MAX_DEPTH + 1) + "a", MAX_DEPTH + 1),
        ("(" * 900, MAX_DEPTH + 1),
    ):
        with pytest.raises(BadQuery) as caught:
            parse(text, NOW)
        assert caught.value.column == column


PIECES = st.sampled_from(
    [
        "(",
        ")",
        "-",
        '"',
        " ",
        "OR",
        "NOT",
        "AND",
        "a",
        "B1",
        "*",
        "?",
        "..",
        "/",
        ".",
        *(f"{f}:" for f in FIELDS),
        "size>",
        "image.width:",
        "image.width>=",
        "x.",
        "true",
        "1e",
        "=",
        "1M",
        "2024",
        "7d",
        "\0",
        "é",
        "\ud800",
        "²",
    ]
)


def read(text: str) -> tuple[BadQuery | None, Query]:
    try:
        return None, parse(text, NOW)
    except BadQuery as error:
        return error, Nothing()


@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=60))
@example("size:²")
@example("modified:٢٠٢٤")
@example("\ud800:x")
def test_every_text_is_either_a_query_or_bad_at_a_column_inside_it(text: str) -> None:
    error, query = read(text)
    if error is not None:
        assert error.column is not None
        assert 1 <= error.column <= len(text) + 1
        assert error.message.encode()
    elif "\ud800" not in text:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(query), type=Query) == query


def test_places_are_found_and_bound_wherever_they_stand() -> None:
    query = parse("a -(in:alice/scans/sub-01/ OR owner:bob) (node:lab3 OR c) ext:gz", NOW)
    assert [(p.field.value, p.value) for p in places(query)] == [
        ("in", "alice/scans/sub-01/"),
        ("owner", "bob"),
        ("node", "lab3"),
    ]

    def resolve(place: Place) -> frozenset[int] | PlaceScope:
        return PlaceScope(frozenset({1}), "sub-01/") if place.field is PlaceField.IN else frozenset({len(place.value)})

    assert bind_places(query, resolve) == And(
        (
            A,
            Not(Or((Within(frozenset({1}), "sub-01"), Within(frozenset({3}))))),
            Or((Within(frozenset({4})), C)),
            Extension("gz"),
        )
    )
    assert places(bind_places(query, resolve)) == ()


def test_what_a_resolver_raises_goes_through() -> None:
    def resolve(place: Place) -> frozenset[int]:
        raise BadQuery("There is nobody of that name.", column=place.column)

    with pytest.raises(BadQuery) as caught:
        bind_places(parse("a owner:nobody", NOW), resolve)
    assert caught.value.column == 9


# ------------------------------------------------------------------------------------------------------ the document

TABLE = (Path(__file__).parents[2] / "docs" / "search.md").read_text()


def test_every_example_in_the_document_is_a_query_and_every_field_is_in_it() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("| `")]
    examples = [code for row in rows for code in re.findall(r"`([^`]+)`", row.split("|")[2])]
    assert len(examples) > 30
    for text in examples:
        parse(text, NOW)
    fields = {row.split("`")[1].rstrip(":") for row in rows if row.split("`")[1].endswith(":")}
    assert fields == set(FIELDS)
    limits = {int(n.replace(",", "")) for n in re.findall(r"\*\*([\d,]+)\*\*", TABLE)}
    assert limits == {MAX_QUERY, MAX_ITEMS, MAX_DEPTH}
