"""What accounts may do -> the policy of one bucket of the gateway. Pure: values in, values out.

A bucket has one policy for everybody: the gateway reads and parses all of it at every request (13 ms for a thousand
statements, 4-storage), so what the same accounts may do with the same right is one statement, however many folders it names.
Here the condition on ``s3:prefix`` is a boundary: this gateway takes it from where it lists, and nothing else (4-storage).

The gateway keeps what it knows of an object beside the tree, below a folder ``meta`` named after the object: whoever could
write an object of such a name would write over it. Those names are refused to everybody, in every bucket.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from protocol.errors import StorageRefused
from protocol.grants import Grant, Narrowing
from protocol.names import check_bucket, check_prefix
from spoke_agent.storage.policy import Access, Pattern, Patterns, patterns

MAX_PATTERNS: Final = 2_000
"""Places of one holder. Beyond it every request of everybody in that bucket takes some 10 ms longer."""

_ARN: Final = "arn:aws:s3:::"
_READ: Final = ("s3:GetObject",)
_END: Final = ("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
_ACTIONS: Final = {
    Access.READ: _READ,
    Access.TIDY: (*_READ, "s3:DeleteObject", *_END),
    Access.DROP: ("s3:PutObject", *_END),
    Access.WRITE: (*_READ, "s3:DeleteObject", "s3:PutObject", *_END),
}
_WRITING: Final = ("s3:PutObject", "s3:DeleteObject")
_OWN_FOLDERS: Final = ("meta", ".sgwtmp")
"""What the gateway keeps at the top of a bucket: its own notes (beside the tree), uploads under way (in the tree)."""
ATTRIBUTES: Final = (
    "acl",
    "bucket-lock",
    "cache-control",
    "checksums",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "cors",
    "delete-marker",
    "etag",
    "expires",
    "metadata",
    "mp-metadata",
    "object-legal-hold",
    "object-retention",
    "objname",
    "ownership",
    "part-crc64nvme",
    "policy",
    "version-id",
    "versioning",
    "website",
    "website-redirect-location",
    "X-Amz-Meta",
    "X-Amz-Tagging",
)
"""The names under which the gateway notes something of an object, in a folder ``meta`` below the object's own."""


def opened(grants: Iterable[Grant], narrowing: Narrowing | None) -> Patterns:
    """Return what a key opens whose holder has these grants. Raises BadName for a place that may not stand in a policy."""
    whole = patterns(grants)
    if narrowing is None:
        return whole
    if narrowing.read_only:
        whole = frozenset(Pattern(one.bucket, one.prefix, Access.READ) for one in whole if one.access is not Access.DROP)
    if not narrowing.places:
        return whole
    places = [(check_bucket(bucket), check_prefix(prefix)) for bucket, prefix in narrowing.places]
    return frozenset(found for one in whole for place in places if (found := _within(one, place)) is not None)


def _within(one: Pattern, place: tuple[str, str]) -> Pattern | None:
    bucket, prefix = place
    if one.bucket != bucket:
        return None
    if one.prefix.startswith(prefix):
        return one
    return Pattern(bucket, prefix, one.access) if prefix.startswith(one.prefix) else None


def check_number(grants: Iterable[Grant]) -> int:
    """Return how many places these grants open. Raises StorageRefused past ``MAX_PATTERNS``, BadName."""
    number = len(patterns(grants))
    if number > MAX_PATTERNS:
        raise StorageRefused(
            f"{number} places for one person are more than the {MAX_PATTERNS} that this gateway is asked to compare.",
            todo="Share a folder above them instead of each one.",
        )
    return number


def document(bucket: str, accounts: Mapping[str, Patterns], refused: Iterable[str] = ()) -> bytes:
    """Write the policy of a bucket: what each account (by its access key) may do there. The same values give the same bytes.

    ``refused`` are keys that nobody gets at, nor at anything below them. What in them reads as a wildcard refuses more.
    """
    by_place: dict[tuple[Access, str], list[str]] = {}
    listing: dict[str, list[str]] = {}
    anywhere: list[str] = []
    for account in sorted(accounts):
        here = sorted(one for one in accounts[account] if one.bucket == bucket)
        if here:
            anywhere.append(account)
        for one in here:
            by_place.setdefault((one.access, one.prefix), []).append(account)
        for prefix in sorted({one.prefix for one in here if one.access is not Access.DROP}):
            listing.setdefault(prefix, []).append(account)
    statements = [*_objects(bucket, by_place), *_lists(bucket, listing)]
    if anywhere:
        statements.append(_allow(anywhere, ("s3:GetBucketLocation",), [_ARN + bucket]))
    text = json.dumps({"Version": "2012-10-17", "Statement": [*_refusals(bucket, refused), *statements]}, separators=(",", ":"))
    return text.encode()


def _objects(bucket: str, by_place: Mapping[tuple[Access, str], Sequence[str]]) -> list[dict[str, object]]:
    together: dict[tuple[Access, tuple[str, ...]], list[str]] = {}
    for (access, prefix), accounts in by_place.items():
        together.setdefault((access, tuple(accounts)), []).append(prefix)
    return [
        _allow(accounts, _ACTIONS[access], [f"{_ARN}{bucket}/{prefix}*" for prefix in sorted(prefixes)])
        for (access, accounts), prefixes in sorted(together.items())
    ]


def _lists(bucket: str, listing: Mapping[str, Sequence[str]]) -> list[dict[str, object]]:
    together: dict[tuple[str, ...], list[str]] = {}
    for prefix, accounts in listing.items():
        together.setdefault(tuple(accounts), []).append(prefix)
    found = []
    for accounts, prefixes in sorted(together.items()):
        statement = _allow(accounts, ("s3:ListBucket",), [_ARN + bucket])
        if "" not in prefixes:
            values = [value for prefix in sorted(prefixes) for value in (prefix, f"{prefix}*")]
            statement["Condition"] = {"StringLike": {"s3:prefix": values}}
        found.append(statement)
    return found


def _refusals(bucket: str, refused: Iterable[str]) -> list[dict[str, object]]:
    own = [f"{_ARN}{bucket}/{name}{end}" for name in (*_OWN_FOLDERS, *sorted(refused)) for end in ("", "/*")]
    notes = [f"{_ARN}{bucket}/*/meta/{name}{end}" for name in ATTRIBUTES for end in ("", "/*")]
    return [
        {"Effect": "Deny", "Principal": "*", "Action": ["s3:*"], "Resource": own},
        {"Effect": "Deny", "Principal": "*", "Action": list(_WRITING), "Resource": notes},
    ]


def _allow(accounts: Sequence[str], actions: Sequence[str], resources: Sequence[str]) -> dict[str, object]:
    return {
        "Effect": "Allow",
        "Principal": list(accounts),  # as {"AWS": …} the gateway reads it at the fourth attempt, and a request takes longer
        "Action": list(actions),
        "Resource": list(resources),
    }


def fingerprint(grants: Iterable[Grant], *, strange: Iterable[str] = ()) -> str:
    """Return a hash of what grants open; ``strange`` is what makes it another access than any that wio gives."""
    atoms = [f"{one.access} {one.bucket}/{one.prefix}" for one in sorted(patterns(grants))]
    return hashlib.sha256(json.dumps([atoms, sorted(strange)]).encode()).hexdigest()
