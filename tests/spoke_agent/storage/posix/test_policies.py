"""What a policy of a bucket says: read as the gateway reads it, by a few rules of its own."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest

from protocol.errors import BadName, StorageRefused
from protocol.grants import Grant, Narrowing, Permission
from spoke_agent.storage.posix.policies import MAX_PATTERNS, check_number, document, fingerprint, opened

READ, DROP, WRITE, TIDY, MANAGE = Permission.READ, Permission.DROP, Permission.WRITE, Permission.TIDY, Permission.MANAGE


def grant(prefix: str = "", permission: Permission = READ, bucket: str = "lab") -> Grant:
    return Grant(1, bucket, prefix, permission)


def allows(policy: bytes, account: str, action: str, resource: str, prefix: str | None = None) -> bool:
    """Decide as the gateway does: the first Deny that matches wins, and without an Allow there is nothing."""
    allowed = False
    for one in json.loads(policy)["Statement"]:
        if one["Principal"] != "*" and account not in one["Principal"]:
            continue
        if not any(fnmatchcase(f"s3:{action}", each) for each in one["Action"]):
            continue
        if not any(fnmatchcase(f"arn:aws:s3:::{resource}", each.replace("[", "[[]")) for each in one["Resource"]):
            continue
        values: Any = one.get("Condition", {}).get("StringLike", {}).get("s3:prefix")
        if values is not None and not (prefix is not None and any(fnmatchcase(prefix, value) for value in values)):
            continue
        if one["Effect"] == "Deny":
            return False
        allowed = True
    return allowed


def test_each_account_may_do_what_it_was_granted_and_nothing_else() -> None:
    policy = document(
        "lab",
        {
            "R": opened([grant("a/")], None),
            "W": opened([grant("a/", WRITE)], None),
            "D": opened([grant("a/", DROP)], None),
            "T": opened([grant("a/", TIDY)], None),
            "M": opened([grant("", MANAGE)], None),
            "E": opened([grant("a/", bucket="else")], None),
        },
    )
    actions = ("GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload")
    may = {account: "".join("yn"[not allows(policy, account, action, "lab/a/x")] for action in actions) for account in "RWDTME"}
    assert may == {"R": "ynnn", "W": "yyyy", "D": "nyny", "T": "ynyy", "M": "yyyy", "E": "nnnn"}
    assert [allows(policy, account, "GetObject", "lab/ab/x") for account in "RWDTME"] == [False] * 4 + [True, False]
    assert [allows(policy, account, "ListBucket", "lab", "a/") for account in "RWDTME"] == [
        True,
        True,
        False,
        True,
        True,
        False,
    ]
    for prefix in ("", "a", "b/", None):
        assert not allows(policy, "R", "ListBucket", "lab", prefix)
    assert allows(policy, "M", "ListBucket", "lab", None)
    assert not any(allows(policy, account, "GetObject", "lab/a/x") for account in ("", "*", "r", "RW"))
    for action in ("PutBucketPolicy", "PutBucketAcl", "GetBucketPolicy", "DeleteBucket", "ListBucketMultipartUploads"):
        assert not any(allows(policy, account, action, "lab") for account in "RWDTME")


def test_the_gateway_s_own_names_are_refused_to_everybody() -> None:
    policy = document("lab", {"M": opened([grant("", MANAGE)], None)}, ["a/link"])
    for key in ("meta", "meta/acl", "meta/x/y", ".sgwtmp", ".sgwtmp/multipart/x", "a/link", "a/link/below"):
        for action in ("GetObject", "PutObject", "DeleteObject"):
            assert not allows(policy, "M", action, f"lab/{key}"), key
    for key in ("a/meta/etag", "a/b/meta/acl", "a/meta/X-Amz-Meta", "a/meta/etag/x"):
        assert not allows(policy, "M", "PutObject", f"lab/{key}"), key
    for key in ("metadata/acl", "a/meta/notes.txt", "a/metal/etag", "a/linked"):
        assert allows(policy, "M", "PutObject", f"lab/{key}"), key


def test_what_the_same_accounts_may_do_is_one_statement_however_many_places_it_names() -> None:
    many = opened([grant(f"w{number:03}/", WRITE) for number in range(200)], None)
    statements = json.loads(document("lab", {"A": many, "B": many}))["Statement"]
    assert len(statements) == 2 + 3
    assert len(document("lab", {})) < 5000
    assert json.loads(document("lab", {}))["Statement"][0]["Effect"] == "Deny"


def test_the_same_access_has_the_same_bytes_and_the_same_fingerprint() -> None:
    one, other = [grant("a/"), grant("b/", WRITE)], [grant("b/", MANAGE), grant("a/")]
    assert document("lab", {"A": opened(one, None)}) == document("lab", {"A": opened(other, None)})
    assert fingerprint(one) == fingerprint(other) != fingerprint(one[:1]) != fingerprint(one[:1], strange=["lab"])


@pytest.mark.parametrize(
    ("narrowing", "opens"),
    [
        (Narrowing(), {"lab/a/ write", "lab/b/ read", "lab/c/ drop"}),
        (Narrowing(read_only=True), {"lab/a/ read", "lab/b/ read"}),
        (Narrowing((("lab", "a/"),)), {"lab/a/ write"}),
        (Narrowing((("lab", "a/deep/"), ("lab", "b/"))), {"lab/a/deep/ write", "lab/b/ read"}),
        (Narrowing((("lab", ""),), read_only=True), {"lab/a/ read", "lab/b/ read"}),
        (Narrowing((("else", "a/"),)), set()),
        (Narrowing((("lab", "x/"),)), set()),
    ],
)
def test_a_narrowing_only_takes_away(narrowing: Narrowing, opens: set[str]) -> None:
    grants = [grant("a/", MANAGE), grant("b/"), grant("c/", DROP)]
    assert {f"{one.bucket}/{one.prefix} {one.access}" for one in opened(grants, narrowing)} == opens


@pytest.mark.parametrize("prefix", ["*", "a", "a/*/", "../", "a/../b/", "/", "a//", "${aws:username}/"])
def test_a_place_that_may_not_stand_in_a_policy_never_does(prefix: str) -> None:
    with pytest.raises(BadName):
        opened([grant(prefix)], None)
    with pytest.raises(BadName):
        opened([grant("a/")], Narrowing((("lab", prefix),)))


def test_more_places_than_a_request_can_be_compared_with_are_refused() -> None:
    assert check_number([grant(f"{number}/") for number in range(MAX_PATTERNS)]) == MAX_PATTERNS
    with pytest.raises(StorageRefused, match="2001 places"):
        check_number([grant(f"{number}/") for number in range(MAX_PATTERNS + 1)])
