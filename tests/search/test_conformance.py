"""What every engine does, whatever it is made of."""

from __future__ import annotations

import contextlib
import math

import pytest

from protocol.errors import BadCursor, BadQuery
from protocol.fields import MAX_TAGS, MAX_TEXT, MAX_VALUES, Fields
from search.document import Document, Gone
from search.engine import Asked, Engine, FacetKind, Sort
from search.query import Place, PlaceField, PlaceScope, bind_places, parse

NOW = 1_764_000_000_000_000
BIG = 2**53 - 1


def doc(path: str, revision: int = 1, **changed: int | str | Fields) -> Document:
    values: dict[str, int | str | Fields] = {
        "root": 1,
        "workspace": 7,
        "key": f"alice/ws/{path}",
        "size": 10,
        "mtime": 1_000,
        **changed,
    }
    return Document(path=path, revision=revision, **values)  # type: ignore[arg-type]  # mixed on purpose


async def fill(engine: Engine, *documents: Document) -> None:
    await engine.write(list(documents))
    await engine.commit(max(d.revision for d in documents))


async def find(engine: Engine, text: str, *, workspaces: frozenset[int] = frozenset({7}), **how: object) -> list[str]:
    asked = Asked(parse(text, NOW), workspaces, **how)  # type: ignore[arg-type]  # passed on as they are
    return [hit.document.path for hit in (await engine.search(asked)).hits]


PATHS = (
    "raw/sub-01/T1w.nii.gz",
    "raw/sub-02/IMG_2034-rawData.nii",
    "notes/Meeting 2024.txt",
    "notes/.cache/x.bin",
    "straße.TXT",
    "scans.txt",
    "my_scans.txt",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scans", {"scans.txt", "my_scans.txt"}),
        ("SCANS", {"scans.txt", "my_scans.txt"}),
        ("scan", set()),
        ("scan*", {"scans.txt"}),
        ("*scan*", {"scans.txt", "my_scans.txt"}),
        ("*can?.txt", {"scans.txt", "my_scans.txt"}),
        ("*.nii.gz", {"raw/sub-01/T1w.nii.gz"}),
        ("?can*", {"scans.txt"}),
        ("sub-01", {"raw/sub-01/T1w.nii.gz"}),
        ("t1w", {"raw/sub-01/T1w.nii.gz"}),
        ("img2034", {"raw/sub-02/IMG_2034-rawData.nii"}),
        ("rawdata", {"raw/sub-02/IMG_2034-rawData.nii"}),
        ("rawData", {"raw/sub-02/IMG_2034-rawData.nii"}),
        ("data raw", {"raw/sub-02/IMG_2034-rawData.nii"}),
        ('"data raw"', set()),
        ('"meeting 2024"', {"notes/Meeting 2024.txt"}),
        ("notes", {"notes/Meeting 2024.txt", "notes/.cache/x.bin"}),
        ("name:notes", set()),
        ("name:scans", {"scans.txt", "my_scans.txt"}),
        ("path:raw/*/t1*", {"raw/sub-01/T1w.nii.gz"}),
        ("path:sub-02", {"raw/sub-02/IMG_2034-rawData.nii"}),
        ("ext:gz", {"raw/sub-01/T1w.nii.gz"}),
        ("ext:nii.gz", {"raw/sub-01/T1w.nii.gz"}),
        ("ext:nii", {"raw/sub-02/IMG_2034-rawData.nii"}),
        ("ext:txt -scans", {"notes/Meeting 2024.txt", "straße.TXT"}),
        ("strasse", {"straße.TXT"}),
        ("is:hidden", {"notes/.cache/x.bin"}),
        ("NOT ext:txt NOT raw", {"notes/.cache/x.bin"}),
        ("meeting OR cache", {"notes/Meeting 2024.txt", "notes/.cache/x.bin"}),
        ("", set(PATHS)),
        ("-(raw OR notes)", {"straße.TXT", "scans.txt", "my_scans.txt"}),
        ("size>10", set()),
        ("size:10 modified:1970 scans.txt", {"scans.txt", "my_scans.txt"}),
    ],
)
async def test_a_query_finds_what_it_says(engine: Engine, text: str, expected: set[str]) -> None:
    await fill(engine, *(doc(path) for path in PATHS))
    assert set(await find(engine, text)) == expected


async def test_nothing_is_found_before_commit_and_everything_after(engine: Engine) -> None:
    await engine.write([doc("a.txt")])
    assert await find(engine, "a") == []
    await engine.commit(1)
    assert await find(engine, "a") == ["a.txt"]
    assert await engine.position() == 1


async def test_what_one_may_not_read_is_neither_found_nor_counted(engine: Engine) -> None:
    read = [Fields(f"kind{n}", {"a.b": f"value{n}", "a.c": n}, {"tag": f"tag{n}"}, f"content{n}") for n in range(3)]
    await fill(
        engine,
        doc("mine.txt", workspace=7, fields=read[0]),
        doc("theirs.txt", workspace=BIG, fields=read[1]),
        doc("loose.txt", workspace=0, fields=read[2]),
    )
    facets = frozenset(FacetKind)
    page = await engine.search(Asked(parse("", NOW), frozenset({7}), facets=facets))
    assert ([h.document.path for h in page.hits], page.total, page.bytes) == (["mine.txt"], 1, 10)
    assert {kind: [t.value for t in tallies] for kind, tallies in page.facets.items()} == {
        FacetKind.EXTENSION: ["txt"],
        FacetKind.ROOT: ["1"],
        FacetKind.WORKSPACE: ["7"],
        FacetKind.TYPE: ["kind0"],
        FacetKind.TAG: ["tag=tag0"],
    }
    assert (await engine.search(Asked(parse("", NOW), frozenset(), facets=facets))).total == 0
    for theirs in (
        "type:kind1",
        "type:*1",
        "a.b:value1",
        "a.b:*1",
        "a.c>0",
        "tag:tag=tag1",
        "tag:*=*1",
        "value1",
        "text:content1",
    ):
        assert await find(engine, theirs) == [], theirs
        page = await engine.search(Asked(parse(theirs, NOW), frozenset({7}), facets=facets))
        assert (page.total, page.bytes, set(page.facets.values())) == (0, 0, {()})
    for any_of_them in ("type:*", "a.b:*", "a.c<9", "tag:tag", "is:read", "-is:unreadable", "-type:kind1"):
        assert await find(engine, any_of_them) == ["mine.txt"], any_of_them
    assert await find(engine, "NOT mine OR theirs", workspaces=frozenset({8})) == []
    assert [await engine.count(ids) for ids in ({7}, {7, BIG}, {8}, set[int]())] == [1, 2, 0, 0]


async def test_a_higher_revision_replaces_and_a_lower_one_is_ignored_in_whatever_order(engine: Engine) -> None:
    await engine.write([doc("a.txt", 5, size=5), doc("a.txt", 3, size=3), Gone(1, "alice/ws/b.txt", 6), doc("b.txt", 4)])
    await engine.commit(6)
    await engine.write([doc("a.txt", 5, size=50), doc("a.txt", 2, size=2), doc("b.txt", 4)])
    await engine.commit(6)
    page = await engine.search(Asked(parse("", NOW), frozenset({7})))
    assert [(h.document.path, h.document.size, h.document.revision) for h in page.hits] == [("a.txt", 5, 5)]
    await engine.write([doc("a.txt", 7, size=7, workspace=8)])
    await engine.commit(7)
    assert await engine.count({7}) == 0
    assert await engine.count({8}) == 1


async def test_revisions_above_the_position_stay_in_order_across_commits(engine: Engine) -> None:
    await engine.write([doc("a.txt", 9, size=9)])
    await engine.commit(2)
    await engine.write([doc("a.txt", 5, size=5)])
    await engine.commit(9)
    page = await engine.search(Asked(parse("", NOW), frozenset({7})))
    assert [h.document.size for h in page.hits] == [9]


async def test_a_file_that_is_gone_is_no_longer_found_and_may_come_back(engine: Engine) -> None:
    await fill(engine, doc("a.txt", 1), doc("b.txt", 2))
    await engine.write([Gone(1, "alice/ws/a.txt", 3), Gone(2, "alice/ws/b.txt", 4), Gone(1, "never there", 5)])
    await engine.commit(5)
    assert await find(engine, "") == ["b.txt"]
    await engine.write([doc("a.txt", 6)])
    await engine.commit(6)
    assert set(await find(engine, "")) == {"a.txt", "b.txt"}


async def test_the_same_key_in_two_roots_is_two_files(engine: Engine) -> None:
    await fill(engine, doc("a.txt", root=1, key="k"), doc("a.txt", root=2, key="k"))
    assert await engine.count({7}) == 2


async def test_large_ids_sizes_and_times_come_back_exact(engine: Engine) -> None:
    odd = doc("a.txt", 2**53 - 3, root=BIG, workspace=BIG - 1, size=2**63 - 1, mtime=7_258_118_399_999_999_999)
    await fill(engine, odd, msg := doc("b.txt", 2**53 - 2, root=BIG - 1, workspace=BIG - 2, size=2**63 - 2))
    page = await engine.search(Asked(parse("", NOW), frozenset({BIG - 1}), facets=frozenset({FacetKind.ROOT})))
    assert page.hits[0].document == odd
    assert page.facets[FacetKind.ROOT][0].value == str(BIG)
    page = await engine.search(Asked(parse(f"size:{2**63 - 2}", NOW), frozenset({BIG - 1, BIG - 2})))
    assert [h.document for h in page.hits] == [msg]
    assert await engine.position() == 2**53 - 2


async def test_relevance_puts_the_name_itself_before_names_before_folders_and_newer_first(engine: Engine) -> None:
    await fill(
        engine,
        doc("scan/a.txt", mtime=9_000),
        doc("old_scan.txt", mtime=1_000),
        doc("new_scan.txt", mtime=2_000),
        doc("scan.txt", mtime=1),
        doc("x/Scan", mtime=2),
    )
    assert await find(engine, "scan") == ["x/Scan", "scan.txt", "new_scan.txt", "old_scan.txt", "scan/a.txt"]
    scores = [h.score for h in (await engine.search(Asked(parse("scan", NOW), frozenset({7})))).hits]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("sort", Sort)
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_join_without_gap_or_repeat_through_ties(engine: Engine, sort: Sort, limit: int) -> None:
    documents = [
        doc(
            f"{'scan' if n % 3 else 'x'}/{'scan' if n % 2 else 'y'}{n % 4}.txt",
            key=f"k{n * 7919 % 1000}",
            size=n % 3,
            mtime=n % 2,
            root=1 + n % 2,
        )
        for n in range(40)
    ]
    await fill(engine, *documents)
    asked = Asked(parse("scan OR y3", NOW), frozenset({7}), sort=sort, limit=1000)
    whole = (await engine.search(asked)).hits
    joined: list[object] = []
    after = None
    for _ in range(100):
        page = await engine.search(Asked(asked.query, asked.workspaces, sort=sort, limit=limit, after=after))
        assert page.total == len(whole)
        if not page.hits:
            break
        joined += page.hits
        after = page.hits[-1].position
    assert joined == list(whole)
    assert len({(h.document.root, h.document.key) for h in whole}) == len(whole)


async def test_paging_goes_on_rightly_when_files_appear_and_vanish_meanwhile(engine: Engine) -> None:
    await fill(engine, *(doc(f"{n}.txt", mtime=n) for n in range(10)))
    first = await engine.search(Asked(parse("", NOW), frozenset({7}), sort=Sort.OLDEST, limit=5))
    await engine.write([Gone(1, "alice/ws/4.txt", 2), doc("0b.txt", 3, mtime=0), doc("4b.txt", 4, mtime=4)])
    await engine.commit(4)
    rest = await find(engine, "", sort=Sort.OLDEST, after=first.hits[-1].position)
    assert rest == ["4b.txt", "5.txt", "6.txt", "7.txt", "8.txt", "9.txt"]


@pytest.mark.parametrize(
    "after",
    [
        (),
        (1,),
        (1, 2),
        ("a", 1, "k"),
        (1, "a", "k"),
        (1, 1, 1),
        (-1, 1, "k"),
        (True, 1, "k"),
        (2**64, 1, "k"),
        (1, -1, "k"),
        (1, 1, "\ud800"),
        (1.5, 1, "k"),
    ],
)
@pytest.mark.parametrize("sort", [Sort.NEWEST, Sort.RELEVANCE])
async def test_a_forged_position_is_refused(engine: Engine, after: tuple[object, ...], sort: Sort) -> None:
    with pytest.raises(BadCursor):
        await find(engine, "", sort=sort, after=after)
    with pytest.raises(BadCursor):
        await find(engine, "", sort=Sort.RELEVANCE, after=(9, 1, 1, "k"))


async def test_facets_count_files_and_bytes_of_everything_found_largest_first(engine: Engine) -> None:
    await fill(engine, *(doc(f"{n}.{'nii' if n % 3 else 'txt'}", size=n, workspace=7 + n % 2) for n in range(9)), doc("README"))
    asked = Asked(parse("", NOW), frozenset({7, 8}), limit=1, facets=frozenset({FacetKind.EXTENSION}), facet_size=2)
    page = await engine.search(asked)
    assert [(t.value, t.count, t.bytes) for t in page.facets[FacetKind.EXTENSION]] == [("nii", 6, 27), ("txt", 3, 9)]
    assert (page.total, page.bytes, len(page.hits)) == (10, 46, 1)


async def test_places_work_inside_not_and_or_with_a_path_below_them(engine: Engine) -> None:
    await fill(
        engine,
        doc("sub-01/a.txt", workspace=7),
        doc("sub-010/a.txt", workspace=7),
        doc("Sub-01/a.txt", workspace=7),
        doc("sub-01", workspace=7, key="x"),
        doc("sub-01/b.txt", workspace=8),
    )

    def resolve(place: Place) -> frozenset[int] | PlaceScope:
        if place.field is PlaceField.IN:
            return PlaceScope(frozenset({7}), place.value.partition("/")[2])
        return frozenset({8}) if place.value == "bob" else frozenset()

    async def found(text: str) -> set[tuple[int, str]]:
        query = bind_places(parse(text, NOW), resolve)
        page = await engine.search(Asked(query, frozenset({7, 8})))
        return {(h.document.workspace, h.document.path) for h in page.hits}

    assert await found("in:scans/sub-01/") == {(7, "sub-01/a.txt"), (7, "sub-01")}
    assert await found("in:scans -in:scans/sub-01") == {(7, "sub-010/a.txt"), (7, "Sub-01/a.txt")}
    assert await found("owner:bob OR path:sub-010*") == {(8, "sub-01/b.txt"), (7, "sub-010/a.txt")}
    assert await found("owner:nobody") == set()


async def test_an_unbound_place_is_a_fault_of_the_caller(engine: Engine) -> None:
    with pytest.raises(ValueError, match="owner"):
        await find(engine, "owner:bob")


async def test_clear_forgets_everything_and_the_same_revisions_can_be_written_again(engine: Engine) -> None:
    await fill(engine, doc("a.txt", 5))
    await engine.write([doc("b.txt", 6)])
    await engine.clear()
    assert (await engine.position(), await find(engine, "")) == (0, [])
    await fill(engine, doc("b.txt", 6))
    assert await find(engine, "") == ["b.txt"]


async def test_stats_say_how_much_there_is(engine: Engine) -> None:
    assert (await engine.stats()).documents == 0
    await fill(engine, doc("a.txt", 3), doc("b.txt", 4))
    stats = await engine.stats()
    assert (stats.documents, stats.position) == (2, 4)
    assert stats.bytes_on_disk > 0


async def test_a_wild_pattern_either_works_or_says_so(engine: Engine) -> None:
    await fill(engine, doc("ab" * 100))
    for pattern in ("*a" * 450 + "*", "?" * 900, "a?" * 400, "*" + "?*" * 400):
        with contextlib.suppress(BadQuery):
            await find(engine, pattern)
    assert await find(engine, "ab*ab") == ["ab" * 100]


async def test_odd_names_are_found_by_pattern_and_come_back_unchanged(engine: Engine) -> None:
    odd = [
        "a b\tc\n.txt",
        "x.*+?^$(){}[]|\\#&~-y",
        "é\u0301.txt",
        "\u202eexe.txt",
        "😀.png",
        "dir/",
        "\x01\x02",
        "z" * 500,
        "=cmd()",
        ".",
        "café.md",
    ]
    await fill(engine, *(doc(name, key=f"k/{name}") for name in odd))
    assert set(await find(engine, "")) == set(odd)
    for pattern, name in (
        ('name:"a b*"', odd[0]),
        ("*\\#*", odd[1]),
        ("*+?^$*", odd[1]),
        ("?.png", "😀.png"),
        ("*z*", "z" * 500),
        ("=cmd*", None),
        ("cafe\u0301*", "café.md"),
    ):
        found = await find(engine, pattern)
        assert name is None or name in found, pattern
    assert await find(engine, 'name:"a?b*"') == [odd[0]]
    assert await find(engine, 'name:"a  b*"') == []


READ = {
    "a.dcm": Fields(
        "dicom",
        {
            "dicom.modality": "MR",
            "dicom.series": "T1w head scan, MPRAGE",
            "dicom.rows": 256,
            "dicom.spacing": 0.5,
            "dicom.x": "3",
            "dicom.y": "rawData",
        },
        {"Project": "Alpha", "state": ""},
    ),
    "b.png": Fields("image", {"image.width": 4000, "image.scale": -1.5, "image.alpha": True, "image.mode": "RGB true"}),
    "c.png": Fields("Image", {"image.width": 4000.0, "image.scale": -2, "image.alpha": False}, problem="It ends too early."),
    "d.txt": Fields("text", {}, {"project": "beta=1"}, "The head of rawData.\nInformed  consent was given; see T1w/README."),
    "e.bin": Fields(),
    "T1w.nii": None,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type:image", "bc"),
        ("TYPE:Image", "bc"),
        ("type:*", "abcd"),
        ("type:?icom", "a"),
        ("-type:*", "eT"),
        ("is:read", "abde"),
        ("is:unreadable", "c"),
        ("-is:read -is:unreadable", "T"),
        ("tag:project", "ad"),
        ("tag:project=alpha", "a"),
        ("tag:PROJECT=beta=1", "d"),
        ("tag:proj*", "ad"),
        ("tag:*=*a*", "ad"),
        ("tag:state=", "a"),
        ("tag:alpha", ""),
        ("dicom.modality:mr", "a"),
        ("dicom.modality:m", ""),
        ("dicom.modality:m*", "a"),
        ('dicom.series:"head scan"', "a"),
        ('dicom.series:"scan head"', ""),
        ("dicom.series:t1w", "a"),
        ("dicom.series:*head*", "a"),
        ("dicom.series:head*", ""),
        ("dicom.y:rawdata", "a"),
        ("dicom.y:data", "a"),
        ("dicom.rows:256", "a"),
        ("dicom.rows:256.0", "a"),
        ("dicom.rows>256", ""),
        ("dicom.rows>=256", "a"),
        ("dicom.spacing<1", "a"),
        ("dicom.spacing:0.5", "a"),
        ("dicom.x:3", "a"),
        ("dicom.x:>=3", ""),
        ("dicom.x:1..5", ""),
        ("dicom.row>=0", ""),
        ("image.width:4000", "bc"),
        ("image.width>3999.5", "bc"),
        ("image.width:..3999", ""),
        ("image.scale<-1.5", "c"),
        ("image.scale:-2..-1", "bc"),
        ("image.scale<=0", "bc"),
        ("image.alpha:true", "b"),
        ("image.alpha:false", "c"),
        ("image.alpha>=0", ""),
        ("image.mode:true", "b"),
        ("image.mode:*", "b"),
        ("image.nothing:*", ""),
        ("text:consent", "d"),
        ('text:"informed consent"', "d"),
        ('text:"consent informed"', ""),
        ("text:rawdata", "d"),
        ("text:head", "d"),
        ("text:alpha", ""),
        ("head", "ad"),
        ("alpha", "a"),
        ("state", "a"),
        ("beta", "d"),
        ('"alpha state"', ""),
        ('"mr t1w"', ""),
        ("path:head", ""),
        ("name:consent", ""),
        ("head -t1w", ""),
        ("-head", "bceT"),
        ("image", ""),
        ("4000", ""),
    ],
)
async def test_what_was_read_out_of_a_file_finds_it(engine: Engine, text: str, expected: str) -> None:
    await fill(engine, *(doc(path, fields=read) if read is not None else doc(path) for path, read in READ.items()))
    assert sorted(path[0] for path in await find(engine, text)) == sorted(expected)


async def test_what_is_found_in_a_name_comes_before_what_is_found_only_inside(engine: Engine) -> None:
    await fill(
        engine,
        doc("new.txt", mtime=9_000, fields=Fields(text="about a scan")),
        doc("newer.txt", mtime=9_500, fields=Fields(values={"a.b": "scan"})),
        doc("scan/a.txt", mtime=3),
        doc("old_scan.txt", mtime=2, fields=Fields(text="scan")),
        doc("scan.txt", mtime=1),
    )
    assert await find(engine, "scan") == ["scan.txt", "old_scan.txt", "scan/a.txt", "newer.txt", "new.txt"]
    assert await find(engine, "scan ext:txt text:scan") == ["new.txt", "old_scan.txt"]


async def test_what_was_read_out_goes_with_the_content_it_belongs_to(engine: Engine) -> None:
    await fill(engine, doc("a.txt", 1, fields=Fields("text", {"a.b": 1}, {"t": "old"}, "before")))
    await fill(engine, doc("a.txt", 2, fields=Fields("text", {"a.b": 2}, {"t": "new"}, "after")))
    for old in ("a.b:1", "tag:t=old", "before", "text:before"):
        assert await find(engine, old) == [], old
    for new in ("a.b:2", "tag:t=new", "after", "text:after"):
        assert await find(engine, new) == ["a.txt"], new
    await fill(engine, doc("a.txt", 3))
    assert await find(engine, "type:* OR a.b:* OR tag:* OR is:read OR after") == []
    assert await find(engine, "") == ["a.txt"]


async def test_facets_count_kinds_and_tags_of_what_was_read(engine: Engine) -> None:
    await fill(engine, *(doc(path, size=3, fields=read) if read is not None else doc(path) for path, read in READ.items()))
    asked = Asked(parse("", NOW), frozenset({7}), facets=frozenset({FacetKind.TYPE, FacetKind.TAG}))
    facets = (await engine.search(asked)).facets
    assert [(t.value, t.count, t.bytes) for t in facets[FacetKind.TYPE]] == [("image", 2, 6), ("dicom", 1, 3), ("text", 1, 3)]
    assert [(t.value, t.count) for t in facets[FacetKind.TAG]] == [("Project=Alpha", 1), ("project=beta=1", 1), ("state=", 1)]


async def test_a_document_comes_back_without_what_was_read_out(engine: Engine) -> None:
    await fill(engine, doc("a.txt", fields=Fields("text", {"a.b": 1}, {"t": "v"}, "x" * 10_000)))
    page = await engine.search(Asked(parse("", NOW), frozenset({7})))
    assert [hit.document for hit in page.hits] == [doc("a.txt")]


async def test_as_much_as_can_be_read_out_of_a_file_is_taken(engine: Engine) -> None:
    wide = "\U00020000"  # four bytes
    most = Fields(
        "k" * 20,
        {f"a.n{n}": (wide * 500 if n % 2 else n) for n in range(MAX_VALUES)},
        {f"{n}{wide * 126}": wide * 256 for n in range(MAX_TAGS)},
        wide * (MAX_TEXT - 10) + " at end\u2003x",
    )
    odd = Fields(
        values={"a.b": math.nan, "a.c": math.inf, "a.d": 2**64 - 1, "a.e": "\u2003", "a.f": ""}, tags={"": "", "a b": "\n"}
    )
    await fill(engine, doc("most.txt", fields=most), doc("odd.txt", fields=odd))
    for text in ("a.n2:2", f"a.n1:{wide}*", "a.n199:*", "tag:9*", 'text:"at end x"', "at"):
        assert await find(engine, text) == ["most.txt"], text
    for text in ("a.b:*", "a.d:18446744073709551615", 'a.e:"?"', "a.f:*", 'tag:"a?b"', 'tag:"a b=?"', "tag:="):
        assert await find(engine, text) == ["odd.txt"], text
    assert await find(engine, "a.b>0 OR a.c>0 OR a.b<=0") == []
