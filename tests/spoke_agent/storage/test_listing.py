"""Several buckets as one listing in order, against sorting everything at once."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from spoke_agent.storage.listing import joined, order_of

FRONTS = ("a", "a-b", "a.b", "ab", "alice--scans", "b")
KEYS = st.sampled_from(["x", "x/", "x/y", "x-y", "X", "é", "~", "0", "a/b", "b"])
TREES = st.dictionaries(st.sampled_from(FRONTS), st.sets(KEYS), max_size=6)
STARTS = st.sampled_from(
    ["", "a", "a/", "a/x", "a/x/", "a-", "a-b/", "a-b/x", "a/x/y", "ab", "alice", "alice--scans/x", "z", "-"]
)


def listed(keys: set[str], prefix: str, start_after: str) -> list[str]:
    """List one bucket as S3 does."""
    return sorted(key for key in keys if key.startswith(prefix) and key > start_after)


@given(TREES, STARTS, STARTS)
@example({"a": {"x"}, "a-b": {"x"}}, "", "")
def test_buckets_joined_list_what_one_big_bucket_would_list(tree: dict[str, set[str]], prefix: str, start_after: str) -> None:
    whole = {f"{front}/{key}" for front, keys in tree.items() for key in keys}
    found = []
    for front in sorted(tree, key=order_of):
        part = joined(front + "/", "", prefix, start_after)
        if part is not None:
            found += [f"{front}/{key}" for key in listed(tree[front], part.prefix, part.start_after)]
    assert found == listed(whole, prefix, start_after)


@given(st.sets(KEYS), st.sampled_from(["", "x", "x/", "z"]), STARTS | KEYS)
def test_a_folder_lists_as_a_bucket_of_its_own_without_its_own_marker(keys: set[str], prefix: str, start_after: str) -> None:
    bucket = {"root/" + key for key in keys} | {"root/", "root", "root-", "roo", "z"}
    part = joined("", "root/", prefix, start_after)
    found = [] if part is None else [key[5:] for key in listed(bucket, part.prefix, part.start_after)]
    assert found == listed(keys, prefix, start_after)
