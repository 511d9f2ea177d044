"""Grant sets: signed by the hub, read strictly, compared by what they allow."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadMessage, BadName, BadSignature
from protocol.grants import (
    _SET_TAG,
    Grant,
    GrantSet,
    Permission,
    SignedGrantSet,
    Subject,
    SubjectKind,
    content_hash,
    open_set,
    sign_set,
)
from protocol.identity import new_key
from tests.protocol.parties import HUB_KEY
from tests.protocol.record_vectors import SET

BROKEN_TEXT = msgspec.Raw(b"\xa2\xff\xfe")
"""A text in msgpack that is not UTF-8."""
HUB = HUB_KEY.public_key()


def test_a_signed_set_opens_to_what_was_signed() -> None:
    assert open_set(HUB, sign_set(HUB_KEY, SET)) == SET


def test_another_hubs_set_and_a_changed_set_do_not_open() -> None:
    signed = sign_set(HUB_KEY, SET)
    for bad in (
        sign_set(new_key(b"\x09" * 32), SET),
        SignedGrantSet(signed.body[:-1] + bytes([signed.body[-1] ^ 1]), signed.signature),
        SignedGrantSet(signed.body, HUB_KEY.sign(signed.body)),  # signed, but not as a grant set
    ):
        with pytest.raises(BadSignature):
            open_set(HUB, bad)


def signed_raw(raw: object) -> SignedGrantSet:
    body = msgspec.msgpack.encode(raw)
    return SignedGrantSet(body, HUB_KEY.sign(_SET_TAG + body))


@pytest.mark.parametrize(
    "raw",
    [
        "text",
        b"",
        [],
        [7, ["person", 12, BROKEN_TEXT], 1, [], 1],
        [7, ["person", 12, "bob"], 0, [], 1],  # epochs begin at 1
        [7, ["person", 12, "bob"], 2**53, [], 1],
        [7, ["robot", 12, "bob"], 1, [], 1],
        [7, ["person", -1, "bob"], 1, [], 1],
        [7, ["person", 12, "bob"], 1, [[1, "lab", "a/", "everything"]], 1],
        [7, ["person", 12, "bob"], 1, [[1, "lab", "a/", "read", -1]], 1],
        [7, ["person", 12, "bob"], 1, [], 253_402_300_799],
        [7, ["person", 12, "bob"], 1, [], 1, [], "more"],
        [7, ["person", 12, "bob"], 1, [[1, "lab", "a/", "read"]] * 5001, 1],
        [7, ["person", 12, "bob"], 1, [], 1, [1] * 1001],
    ],
)
def test_a_signed_body_that_is_no_grant_set_is_refused(raw: object) -> None:
    with pytest.raises(BadMessage):
        open_set(HUB, signed_raw(raw))


@pytest.mark.parametrize(
    ("bucket", "prefix"),
    [
        ("*", "a/"),
        ("lab", "*"),
        ("lab", "?ob/"),
        ("lab", "${aws:username}/"),
        ("lab", "a"),
        ("lab", "/"),
        ("lab", "a//b/"),
        ("lab", "../"),
        ("lab", "a\\/"),
        ("lab", "a\n/"),
        ("LAB", "a/"),
        ("lab", "é" * 600 + "/"),
    ],
)
def test_a_place_that_a_policy_would_read_as_syntax_is_refused_even_when_signed(bucket: str, prefix: str) -> None:
    with pytest.raises(BadName):
        open_set(HUB, signed_raw([7, ["person", 12, "bob"], 1, [[1, bucket, prefix, "read"]], 1]))


GRANTS = st.builds(
    Grant,
    st.integers(1, 3),
    st.sampled_from(["lab", "pub"]),
    st.sampled_from(["", "a/"]),
    st.sampled_from(Permission),
    st.none() | st.integers(1, 3),
)


@given(
    st.lists(GRANTS, max_size=5, unique=True),
    st.randoms(use_true_random=False),
    st.lists(st.integers(1, 5), max_size=3, unique=True),
)
def test_content_does_not_depend_on_order_epoch_lease_or_name(grants: list[Grant], random: object, groups: list[int]) -> None:
    one = GrantSet(7, Subject(SubjectKind.PERSON, 12, "bob"), 1, tuple(grants), 10, tuple(groups))
    random.shuffle(grants)  # type: ignore[attr-defined]  # a random.Random
    two = GrantSet(7, Subject(SubjectKind.PERSON, 12, "robert"), 9, tuple(grants), 99, tuple(reversed(groups)))
    assert content_hash(one) == content_hash(two)


def test_content_differs_wherever_something_else_is_allowed() -> None:
    grant = Grant(1, "lab", "a/", Permission.READ, None)
    sets = [
        GrantSet(7, Subject(SubjectKind.PERSON, 12, "bob"), 1, grants, 10, groups)
        for grants, groups in (
            ((), ()),
            ((grant,), ()),
            ((grant, grant), ()),
            ((msgspec.structs.replace(grant, permission=Permission.WRITE),), ()),
            ((msgspec.structs.replace(grant, prefix="ab/"),), ()),
            ((msgspec.structs.replace(grant, bucket="pub"),), ()),
            ((msgspec.structs.replace(grant, workspace=2),), ()),
            ((msgspec.structs.replace(grant, expires=5),), ()),
            ((grant,), (3,)),
        )
    ]
    sets += [
        msgspec.structs.replace(sets[1], node=8),
        msgspec.structs.replace(sets[1], subject=Subject(SubjectKind.GROUP, 12, "bob")),
    ]
    sets += [msgspec.structs.replace(sets[1], subject=Subject(SubjectKind.PERSON, 13, "bob"))]
    for one, other in itertools.combinations(sets, 2):
        assert content_hash(one) != content_hash(other)


def test_what_each_permission_allows() -> None:
    assert {p: (p.reads, p.writes) for p in Permission} == {
        Permission.READ: (True, False),
        Permission.TIDY: (True, False),
        Permission.DROP: (False, False),
        Permission.WRITE: (True, True),
        Permission.MANAGE: (True, True),
    }
