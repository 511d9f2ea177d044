r"""Grants -> policy documents of the MinIO family. Pure: values in, values out.

One person has one compiled policy, rewritten in place; past ``MAX_PATTERNS`` patterns a second, third … (4-storage has what
that costs). Every document refuses admin calls, old versions and governance bypass, whatever else is attached beside it: a
key could else make itself a permanent one. A person without grants has these refusals alone: nothing is allowed that no
statement allows, and a Deny of all of S3 would also shut what *everyone* may do.

Conditions are no boundary on these servers (4-storage): the one on ``s3:prefix`` is a courtesy. What holds are resource
patterns that end in ``/*``, in buckets and folders whose names hold nothing that a policy reads as syntax.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from protocol.errors import BadInput, StorageRefused
from protocol.grants import Grant, Narrowing, Permission
from protocol.names import check_bucket, check_prefix

MAX_PATTERNS: Final = 150
"""Patterns in one policy: 0.6 ms a GET, against 4.3 ms for a thousand in ten policies (4-storage)."""
MAX_BYTES: Final = 20_000
"""Bytes of one minified policy; the server's limit is 20,480."""
MAX_POLICIES: Final = 8
"""Policies of one holder. Four of them (some 600 patterns) are comfortable; beyond these there is no sense in going on."""
MAX_SESSION_BYTES: Final = 2_048
"""Bytes of the policy that narrows one key: the server's limit."""


class Access(enum.StrEnum):
    """What a policy can tell apart. ``manage`` is the hub's word: on the server it is ``write``."""

    READ = "read"
    TIDY = "tidy"
    DROP = "drop"
    WRITE = "write"


class Pattern(NamedTuple):
    """One place opened: everything below ``bucket/prefix``. ``prefix`` is empty or ends in ``/``."""

    bucket: str
    prefix: str
    access: Access


Patterns: TypeAlias = frozenset[Pattern]

_READ: Final = ("s3:GetObject",)
_END: Final = ("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
_DROP: Final = ("s3:PutObject", *_END)
_ACTIONS: Final = {
    Access.READ: _READ,
    Access.TIDY: (*_READ, "s3:DeleteObject", *_END),
    Access.DROP: _DROP,
    Access.WRITE: (*_READ, "s3:DeleteObject", *_DROP),
}
_WIDER: Final = {one: tuple(other for other in _ACTIONS if {*_ACTIONS[one]} <= {*_ACTIONS[other]}) for one in _ACTIONS}
"""Which accesses allow everything that one does, itself among them. All but dropping list, and writing lists too."""
_LIST: Final = "s3:ListBucket"
_LOCATE: Final = "s3:GetBucketLocation"
_ARN: Final = "arn:aws:s3:::"

_REFUSALS: Final[tuple[dict[str, object], ...]] = (
    {"Effect": "Deny", "Action": ["admin:*"]},
    {"Effect": "Deny", "Action": ["s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"], "Resource": [f"{_ARN}*"]},
    # Deleting many objects in one request, these servers do not refuse a name with .. in it: they judge it as it is spelled,
    # below a person's folder, and delete what it leads to, anywhere in the bucket (measured).
    {"Effect": "Deny", "Action": ["s3:*"], "Resource": [f"{_ARN}*/../*", f"{_ARN}*/.."]},
)

_ACCESS: Final = {
    Permission.READ: Access.READ,
    Permission.TIDY: Access.TIDY,
    Permission.DROP: Access.DROP,
    Permission.WRITE: Access.WRITE,
    Permission.MANAGE: Access.WRITE,
}


def patterns(grants: Iterable[Grant]) -> Patterns:
    """Return the fewest patterns that allow exactly what the grants allow.

    Raises BadName for a bucket or prefix that may not stand in a policy: the last check before it does.
    """
    wanted = {Pattern(check_bucket(grant.bucket), check_prefix(grant.prefix), _ACCESS[grant.permission]) for grant in grants}
    return frozenset(one for one in wanted if not any(other in wanted for other in _above(one)))


def _above(one: Pattern) -> Iterable[Pattern]:
    """Return all patterns that would make this one needless: its folder or one above it, with the same access or more."""
    ends = [0, *(i + 1 for i, letter in enumerate(one.prefix) if letter == "/")]
    for end, access in itertools.product(ends, _WIDER[one.access]):
        other = Pattern(one.bucket, one.prefix[:end], access)
        if other != one:
            yield other


def arrange(wanted: Patterns, before: Sequence[Patterns] = ()) -> tuple[Patterns, ...]:
    """Deal patterns out to policies, at least one; what is in a policy now stays there, so that nothing ever moves.

    ``before`` is what the policies hold now. Raises StorageRefused past ``MAX_POLICIES``.
    """
    needed = _deal(sorted(wanted), [])
    kept = [_Room() for _ in before[: 2 * len(needed)]]
    for room, old in zip(kept, before, strict=False):
        for one in sorted(old & wanted):
            room.put(one)
    placed = frozenset().union(*(room.patterns for room in kept))
    rooms = _deal(sorted(wanted - placed), kept)
    while len(rooms) > 1 and not rooms[-1].patterns:
        rooms.pop()
    if len(rooms) > MAX_POLICIES:
        rooms = needed
    if len(rooms) > MAX_POLICIES:
        raise StorageRefused(
            f"{len(wanted)} places for one person are more than {MAX_POLICIES} policies of the storage server can hold.",
            todo="Share a folder above them instead of each one.",
        )
    return tuple(frozenset(room.patterns) for room in rooms)


class _Room:
    """A policy being filled."""

    def __init__(self) -> None:
        self.patterns: set[Pattern] = set()
        self._buckets: set[str] = set()
        self._bytes = len(document(frozenset())) + 400

    def takes(self, one: Pattern) -> bool:
        return len(self.patterns) < MAX_PATTERNS and self._bytes + self._weight(one) <= MAX_BYTES

    def put(self, one: Pattern) -> None:
        self._bytes += self._weight(one)
        self.patterns.add(one)
        self._buckets.add(one.bucket)

    def _weight(self, one: Pattern) -> int:
        """Bytes this pattern adds at most: its resource, its two prefixes, and the bucket's own statements if it is new."""
        text = len(json.dumps(one.prefix, ensure_ascii=False).encode())
        bucket = 0 if one.bucket in self._buckets else 200 + 3 * len(one.bucket)
        return 3 * text + len(one.bucket) + 32 + bucket


def _deal(places: Sequence[Pattern], rooms: list[_Room]) -> list[_Room]:
    first = 0
    rooms = rooms or [_Room()]
    for one in places:
        while first < len(rooms) and not rooms[first].takes(one):
            first += 1
        if first == len(rooms):
            rooms.append(_Room())
        rooms[first].put(one)
    return rooms


def document(opened: Patterns) -> bytes:
    """Write one policy, minified. The same patterns give the same bytes."""
    return _json([*_statements(sorted(opened)), *_REFUSALS])


def _statements(opened: Sequence[Pattern]) -> list[dict[str, object]]:
    statements: list[dict[str, object]] = []
    for access, actions in _ACTIONS.items():
        resources = [f"{_ARN}{one.bucket}/{one.prefix}*" for one in opened if one.access is access]
        if resources:
            statements.append({"Effect": "Allow", "Action": list(actions), "Resource": resources})
    buckets = sorted({one.bucket for one in opened})
    if buckets:
        statements.append({"Effect": "Allow", "Action": [_LOCATE], "Resource": [_ARN + bucket for bucket in buckets]})
    listed: dict[str, set[str]] = {}
    for one in opened:
        if one.access is not Access.DROP:
            listed.setdefault(one.bucket, set()).add(one.prefix)
    whole = [_ARN + bucket for bucket, prefixes in listed.items() if "" in prefixes]
    if whole:
        statements.append({"Effect": "Allow", "Action": [_LIST], "Resource": whole})
    for bucket, prefixes in listed.items():
        # Said even where the whole bucket may be listed: then what policies say together does not depend on their number.
        values = [value for prefix in sorted(prefixes - {""}) for value in (prefix, f"{prefix}*")]
        if values:
            condition = {"StringLike": {"s3:prefix": values}}
            statements.append({"Effect": "Allow", "Action": [_LIST], "Resource": [_ARN + bucket], "Condition": condition})
    return statements


def narrowed(narrowing: Narrowing) -> bytes | None:
    """Write the policy that narrows one key; None where nothing is narrowed. It allows nothing by itself.

    Raises BadName for a place that may not stand in a policy, BadInput if there are more than the server takes.
    """
    access = Access.READ if narrowing.read_only else Access.WRITE
    if narrowing.places:
        places = {Pattern(check_bucket(bucket), check_prefix(prefix), access) for bucket, prefix in narrowing.places}
        statements = _statements(sorted(places))
    elif narrowing.read_only:
        statements = [{"Effect": "Allow", "Action": [*_READ, _LIST, _LOCATE], "Resource": [f"{_ARN}*"]}]
    else:
        return None
    text = _json(statements)
    if len(text) > MAX_SESSION_BYTES:
        raise BadInput(
            f"A key cannot be narrowed to {len(narrowing.places)} places: their names are too long together.",
            todo="Name fewer places, or a folder above them.",
        )
    return text


def _json(statements: Sequence[dict[str, object]]) -> bytes:
    whole = {"Version": "2012-10-17", "Statement": statements}
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()


def fingerprint(documents: Iterable[bytes]) -> str:
    """Return a hash of what policies say together, however it is dealt out among them and in whatever order.

    For comparing what a server has with what it should have. A document that is not a policy has a hash of its own.
    """
    atoms = sorted(set(itertools.chain.from_iterable(_atoms(text) for text in documents)))
    return hashlib.sha256(json.dumps(atoms).encode()).hexdigest()


def _atoms(text: bytes) -> list[str]:
    """Take a policy apart into the smallest things it says."""
    try:
        parsed = json.loads(text)
        return [atom for statement in parsed["Statement"] for atom in _statement_atoms(statement)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"unreadable {hashlib.sha256(text).hexdigest()}"]


def _statement_atoms(statement: dict[str, object]) -> Iterable[str]:
    rest = {name: value for name, value in statement.items() if name not in {"Action", "Resource", "Condition"}}
    actions, resources = _listed(statement.get("Action")), _listed(statement.get("Resource"))
    for action, resource, condition in itertools.product(actions, resources, _conditions(statement.get("Condition"))):
        yield json.dumps([rest, action, resource, condition], sort_keys=True)


def _conditions(condition: object) -> list[object]:
    """Split a condition of one key into its values, any of which satisfies it; leave any other as it is."""
    match condition:
        case {"StringLike": {"s3:prefix": list(values), **other}, **others} if not other and not others:
            return values
        case _:
            return [condition]


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
