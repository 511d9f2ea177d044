"""What sets of grants open, held against the plainest way of working it out."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from protocol.grants import Grant, Permission
from spoke_agent.access.reach import intersect, living, missing, narrower, touches

FOLDERS = ["", "a/", "a/b/", "a/b/c/", "b/", "ab/"]
CAN = {
    Permission.READ: {"read"},
    Permission.TIDY: {"read", "change"},
    Permission.DROP: {"put"},
    Permission.WRITE: {"read", "put", "change"},
    Permission.MANAGE: {"read", "put", "change", "manage"},
}
GRANTS = st.lists(
    st.builds(
        Grant,
        st.integers(1, 3),
        st.sampled_from(["lab", "nas"]),
        st.sampled_from(FOLDERS),
        st.sampled_from(list(Permission)),
        st.sampled_from([None, 10, 20]),
    ),
    max_size=6,
)


def opened(grants: list[Grant] | tuple[Grant, ...], bucket: str, folder: str, now: int) -> set[str]:
    found: set[str] = set()
    for grant in grants:
        if grant.bucket == bucket and folder.startswith(grant.prefix) and (grant.expires is None or grant.expires > now):
            found |= CAN[grant.permission]
    return found


PLACES = list(itertools.product(["lab", "nas"], FOLDERS, [0, 15]))


@given(GRANTS, GRANTS)
def test_an_intersection_opens_nothing_that_both_do_not_open(one: list[Grant], other: list[Grant]) -> None:
    both = intersect(one, other)
    for bucket, folder, now in PLACES:
        assert opened(both, bucket, folder, now) <= opened(one, bucket, folder, now) & opened(other, bucket, folder, now)


@given(GRANTS)
def test_an_intersection_with_itself_is_itself(one: list[Grant]) -> None:
    both = intersect(one, one)
    for bucket, folder, now in PLACES:
        assert opened(both, bucket, folder, now) == opened(one, bucket, folder, now)


@given(GRANTS, GRANTS)
def test_what_is_missing_is_exactly_where_a_grant_opens_more(wanted: list[Grant], there: list[Grant]) -> None:
    found = {(one.place.bucket, one.place.key): one.permission for one in missing(wanted, there)}
    forever = [Grant(g.workspace, g.bucket, g.prefix, g.permission) for g in there]
    for grant in wanted:
        lacks = (CAN[grant.permission] - {"manage"}) - opened(forever, grant.bucket, grant.prefix, 0)
        if lacks:
            assert (grant.bucket, grant.prefix) in found
    for (bucket, folder), permission in found.items():
        assert CAN[permission] - opened(forever, bucket, folder, 0)


def test_narrower_is_what_both_allow() -> None:
    for one, other in itertools.product(Permission, Permission):
        both = CAN[one] & CAN[other]
        found = narrower(one, other)
        assert (CAN[found] if found is not None else set()) == both


def test_grants_end_at_their_second() -> None:
    grant = Grant(1, "lab", "a/", Permission.READ, 10)
    assert (living([grant], 9), living([grant], 10)) == ((grant,), ())


def test_a_place_is_touched_from_above_and_from_below() -> None:
    grants = [Grant(1, "lab", "a/b/", Permission.READ)]
    assert [touches(grants, "lab", folder) for folder in FOLDERS] == [True, True, True, True, False, False]
    assert not touches(grants, "nas", "a/b/")
