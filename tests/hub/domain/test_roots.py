"""Layouts, isolated names, and that nothing overlaps."""

import pytest

from hub.domain.roots import Laid, NotLaid, Territory, choose_layout, first_overlap, names_warning, nested
from protocol.api import RootKind
from protocol.messages import Finding
from protocol.names import Layout

PREFIX, BUCKET = Layout.PREFIX, Layout.BUCKET
YES, NO, UNKNOWN = Finding.YES, Finding.NO, Finding.UNKNOWN


def choose(
    kind: RootKind, isolates: Finding, *, asked: Layout | None = None, accept: bool = False, prefix: str = ""
) -> Laid | NotLaid:
    return choose_layout(kind, asked=asked, prefix=prefix, isolates_names=isolates, accept_visible_names=accept)


@pytest.mark.parametrize("isolates", [NO, UNKNOWN])
def test_a_private_root_gives_each_workspace_a_bucket_where_names_show(isolates: Finding) -> None:
    assert choose(RootKind.PRIVATE, isolates) == Laid(BUCKET)
    refused = choose(RootKind.PRIVATE, isolates, asked=PREFIX)
    assert isinstance(refused, NotLaid)
    assert "names in the whole bucket" in refused.reason
    assert "--accept-visible-names" in refused.todo


def test_its_owner_may_accept_visible_names() -> None:
    assert choose(RootKind.PRIVATE, NO, accept=True) == Laid(PREFIX)
    assert choose(RootKind.PRIVATE, NO, accept=True, asked=PREFIX, prefix="a/") == Laid(PREFIX)
    assert choose(RootKind.PRIVATE, NO, accept=True, asked=BUCKET) == Laid(BUCKET)
    assert choose(RootKind.UNMANAGED_PRIVATE, NO, accept=True) == Laid(PREFIX)


def test_where_names_are_kept_apart_folders_do() -> None:
    for kind in RootKind:
        assert choose(kind, YES, prefix="a/") == Laid(PREFIX)


@pytest.mark.parametrize("isolates", Finding)
def test_a_public_root_has_nothing_to_hide(isolates: Finding) -> None:
    assert choose(RootKind.PUBLIC, isolates) == Laid(PREFIX)
    assert choose(RootKind.UNMANAGED_PUBLIC, isolates) == Laid(PREFIX)
    assert choose(RootKind.PUBLIC, isolates, asked=BUCKET) == Laid(BUCKET)


def test_an_unmanaged_private_root_needs_its_owners_word_where_names_show() -> None:
    refused = choose(RootKind.UNMANAGED_PRIVATE, NO)
    assert isinstance(refused, NotLaid)
    assert "--accept-visible-names" in refused.todo


def test_an_unmanaged_root_cannot_have_buckets() -> None:
    for kind in (RootKind.UNMANAGED_PUBLIC, RootKind.UNMANAGED_PRIVATE):
        refused = choose(kind, YES, asked=BUCKET)
        assert isinstance(refused, NotLaid)
        assert "lie" in refused.reason


def test_a_bucket_root_has_no_prefix_and_the_way_out_is_told() -> None:
    silent = choose(RootKind.PRIVATE, NO, prefix="data/")
    assert isinstance(silent, NotLaid)
    assert "--accept-visible-names" in silent.todo
    asked = choose(RootKind.PRIVATE, YES, asked=BUCKET, prefix="data/")
    assert isinstance(asked, NotLaid)
    assert asked.todo == "Leave the prefix out."


@pytest.mark.parametrize(
    ("kind", "layout", "prefix", "isolates", "warns"),
    [
        (RootKind.PRIVATE, PREFIX, "", NO, True),
        (RootKind.PRIVATE, PREFIX, "", UNKNOWN, True),
        (RootKind.PRIVATE, PREFIX, "", YES, False),
        (RootKind.PRIVATE, BUCKET, "", NO, False),
        (RootKind.PUBLIC, PREFIX, "", NO, False),
        (RootKind.PUBLIC, PREFIX, "part/", NO, True),
    ],
)
def test_owners_are_warned_where_names_show(
    kind: RootKind, layout: Layout, prefix: str, isolates: Finding, warns: bool
) -> None:
    assert (names_warning(kind, layout, prefix, isolates) is not None) is warns


def root(layout: Layout, bucket: str, prefix: str = "") -> Territory:
    return Territory("r", layout, bucket, prefix)


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        (root(PREFIX, "lab", "a/"), root(PREFIX, "lab", "a/b/"), True),
        (root(PREFIX, "lab", "a/"), root(PREFIX, "lab", "a/"), True),
        (root(PREFIX, "lab"), root(PREFIX, "lab", "a/"), True),
        (root(PREFIX, "lab", "a/"), root(PREFIX, "lab", "ab/"), False),
        (root(PREFIX, "lab"), root(PREFIX, "lab2"), False),
        (root(BUCKET, "lab"), root(BUCKET, "lab"), True),
        (root(BUCKET, "lab"), root(BUCKET, "lab--x"), True),
        (root(BUCKET, "lab"), root(BUCKET, "lab-x"), False),
        (root(BUCKET, "lab"), root(BUCKET, "lab2"), False),
        (root(BUCKET, "lab"), root(PREFIX, "lab--alice--scans"), True),
        (root(BUCKET, "lab"), root(PREFIX, "lab"), False),
        (root(BUCKET, "lab"), root(PREFIX, "lab2"), False),
    ],
)
def test_roots_that_share_a_key_are_found_whichever_was_there_first(one: Territory, other: Territory, collide: bool) -> None:
    assert (first_overlap(one, [other]) is other) is collide
    assert (first_overlap(other, [one]) is one) is collide


def test_workspaces_never_nest() -> None:
    there = ["a/", "b/c/"]
    assert nested("a/x/", there) == "a/"
    assert nested("b/", there) == "b/c/"
    assert nested("ab/", there) is None
