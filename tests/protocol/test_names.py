"""Names and keys: what a policy, a shell or a screen would read as syntax never gets into a name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadName
from protocol.names import (
    MAX_NAME,
    RESERVED,
    Layout,
    Place,
    check_bucket,
    check_key,
    check_name,
    check_prefix,
    in_root,
    locate,
    overlaps,
    shown,
    workspace_prefix,
)

ODD = [
    "", ".", "..", "-", "a/b", "a//b", "%2e", "*", "?ob", "${aws:username}", "{a}", "a\\b", "a\0", "a\n", "a b", " a",
    "a ", "a\t",
    "é", "e\u0301", "\u202eexe", "\u200b", "\x1b[31m", "<script>", "=cmd()", "'a'", '"a"', "a;b", "a&b", "a|b", "`a`",
    "A", "Bob",
    "a-", "-a", "a.", ".a", "_a", "a--b", "a..b", "\u0661", "\uff41", "\ud800", "a\n\n", "x" * 41,
]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_anything_could_read_as_syntax_is_refused(name: str) -> None:
    with pytest.raises(BadName) as caught:
        check_name(name, "workspace")
    message = caught.value.message
    assert message.isprintable()
    assert message.startswith("workspace name ")
    message.encode()


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_word_of_wios_own_is_refused(name: str) -> None:
    with pytest.raises(BadName, match="own"):
        check_name(name, "user")


@pytest.mark.parametrize("name", ["a", "0", "bob", "sub-01", "a.b_c-d", "x" * MAX_NAME, "public2", "a-_-b", "a_-b"])
def test_a_plain_name_is_taken(name: str) -> None:
    assert check_name(name, "user") == name


@pytest.mark.parametrize("bucket", ["lab", "a-b", "a.b", "0a0", "x" * 63, "lab--alice--scans"])
def test_a_bucket_that_s3_allows_is_taken(bucket: str) -> None:
    assert check_bucket(bucket) == bucket


@pytest.mark.parametrize(
    "bucket", ["", "ab", "x" * 64, "Lab", "a_b", "a..b", "-ab", "ab-", ".ab", "ab.", "a*b", "a/b", "lab\n", "löb", "a b"]
)
def test_a_bucket_that_s3_does_not_allow_is_refused(bucket: str) -> None:
    with pytest.raises(BadName):
        check_bucket(bucket)


@pytest.mark.parametrize("prefix", ["", "a/", "a/b/", "Ä ö/", "a b/<x>/", "=cmd()/", "...x/", "é" * 511 + "/", "日本/"])
def test_a_plain_folder_is_taken(prefix: str) -> None:
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize(
    "prefix",
    [
        "a",
        "/",
        "/a/",
        "a//",
        "a//b/",
        "./",
        "../",
        "a/../",
        "a/./",
        "*/",
        "?ob/",
        "${x}/",
        "a\\b/",
        "{a}/",
        "a\0/",
        "a\n/",
        "a\x7f/",
        "a\x1b/",
        "é" * 512 + "/",
        "\ud800/",
    ],
)
def test_a_folder_with_policy_syntax_or_odd_parts_is_refused(prefix: str) -> None:
    with pytest.raises(BadName) as caught:
        check_prefix(prefix)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("key", ["a", "a/b", "*", "../x", "a//b", "\u202e", "a\n", " ", "é" * 512, "😀" * 256])
def test_any_key_that_s3_can_hold_is_carried(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "a\0", "é" * 513, "\ud800"])
def test_a_key_that_s3_cannot_hold_is_refused(key: str) -> None:
    with pytest.raises(BadName):
        check_key(key)


@given(st.text(max_size=300))
def test_whatever_is_shown_is_safe_to_print_and_bounded(text: str) -> None:
    safe = shown(text)
    assert safe.isprintable()
    assert len(safe) <= 123
    safe.encode()


def test_long_text_is_shown_cut_off() -> None:
    assert shown("x" * 200) == f"“{'x' * 120}…”"
    assert shown("x" * 120) == f"“{'x' * 120}”"


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("", "a/", True),
        ("a/", "a/", True),
        ("a/", "a/b/", True),
        ("a/b/", "a/", True),
        ("a/", "ab/", False),
        ("a/b/", "a/c/", False),
    ],
)
def test_two_prefixes_overlap_when_one_holds_the_other(one: str, other: str, shared: bool) -> None:
    assert overlaps(one, other) is shared


KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
PARTS = st.from_regex(r"[a-z0-9]{1,5}--[a-z0-9]{1,5}", fullmatch=True)


@given(KEYS, st.sampled_from(["", "raw/", "a/b/"]))
def test_a_key_of_a_root_in_one_bucket_goes_to_the_server_and_back(key: str, prefix: str) -> None:
    place = locate(Layout.PREFIX, "lab", prefix, key)
    assert place == Place("lab", prefix + key)
    assert in_root(Layout.PREFIX, "lab", prefix, place) == key


@given(PARTS, KEYS)
def test_a_key_of_a_root_of_buckets_goes_to_the_server_and_back(part: str, key: str) -> None:
    place = locate(Layout.BUCKET, "lab", "", f"{part}/{key}")
    assert place == Place(f"lab--{part}", key)
    assert in_root(Layout.BUCKET, "lab", "", place) == f"{part}/{key}"


def test_what_lies_outside_of_a_root_is_not_in_it() -> None:
    assert in_root(Layout.PREFIX, "lab", "raw/", Place("lab", "rawer/a")) is None
    assert in_root(Layout.PREFIX, "lab", "raw/", Place("lab2", "raw/a")) is None
    assert in_root(Layout.BUCKET, "lab", "", Place("lab", "a")) is None
    assert in_root(Layout.BUCKET, "lab", "", Place("lab2--a--b", "a")) is None
    with pytest.raises(BadName):
        locate(Layout.BUCKET, "lab", "", "no-bucket-named")


def test_a_workspace_lies_under_its_owners_name() -> None:
    assert workspace_prefix(Layout.PREFIX, "lab", "alice", "scans_1") == "alice/scans_1/"
    assert workspace_prefix(Layout.BUCKET, "lab", "alice", "scans") == "alice--scans/"
    for bucket, workspace in (("lab", "scans_1"), ("b" * 40, "w" * 30)):
        with pytest.raises(BadName, match="S3 does not allow") as caught:
            workspace_prefix(Layout.BUCKET, bucket, "alice", workspace)
        assert caught.value.todo
