"""Grants, the signed sets in which they travel, and receipts.

A *grant* opens one workspace to one subject. A *grant set* is everything one subject may do on one node: the hub signs
it, the agent keeps it and makes the storage server agree with it. A *receipt* says what became of a change.

Words: *epoch* counts the grant sets of one subject on one node; *lease* is how long an agent honours a set without
hearing from the hub; *expiry* belongs to grants and keys.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.errors import BadMessage, BadSignature
from protocol.names import MAX_ID, check_bucket, check_prefix

__all__ = [
    "Grant",
    "GrantSet",
    "Narrowing",
    "Permission",
    "ProbeProof",
    "Receipt",
    "ReceiptState",
    "SignedGrantSet",
    "Subject",
    "SubjectKind",
    "content_hash",
    "open_set",
    "sign_set",
]

Id = Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]
Second = Annotated[int, msgspec.Meta(ge=0, le=7_258_118_400)]
"""Unix time in whole seconds, 1970 to 2200."""
Microsecond = Annotated[int, msgspec.Meta(ge=0, le=7_258_118_400_000_000)]
"""Unix time in microseconds, 1970 to 2200."""

_SET_TAG: Final = b"wio grant set v1\0"
MAX_GRANTS: Final = 5000
"""Grants in one set: about 600 is what one person can use on one node (4-storage); the rest is room for shared sets."""


class Permission(enum.StrEnum):
    """What a grant allows. ``read`` < ``tidy`` < ``write`` < ``manage``; ``drop`` is writing without seeing.

    ``tidy`` is not given by people: it is what writing becomes while a quota is exceeded (read, delete, end uploads).
    """

    READ = "read"
    TIDY = "tidy"
    DROP = "drop"
    WRITE = "write"
    MANAGE = "manage"

    @property
    def reads(self) -> bool:
        """Whether it lets one list and read."""
        return self is not Permission.DROP

    @property
    def writes(self) -> bool:
        """Whether it lets one add to and change what is there."""
        return self in {Permission.WRITE, Permission.MANAGE}


class SubjectKind(enum.StrEnum):
    """Who a grant set is for."""

    PERSON = "person"
    GROUP = "group"
    EVERYONE = "everyone"
    LINK = "link"
    """One presigned link: a principal of its own, so that revoking it touches nothing else."""


class Subject(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Somebody, or a set of people, that a node grants something to. ``name`` is for people to read; ``id`` decides."""

    kind: SubjectKind
    id: Id
    name: Annotated[str, msgspec.Meta(max_length=80)]


class Grant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One workspace, opened. ``prefix`` is empty for a whole bucket and else ends in ``/``; ``expires`` in Unix seconds."""

    workspace: Id
    bucket: Annotated[str, msgspec.Meta(max_length=63)]
    prefix: Annotated[str, msgspec.Meta(max_length=1024)]
    permission: Permission
    expires: Second | None = None


class GrantSet(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Everything one subject may do on one node. ``groups`` are the ids of shared sets that count for a person too."""

    node: Id
    subject: Subject
    epoch: Annotated[int, msgspec.Meta(ge=1, le=MAX_ID)]
    grants: Annotated[tuple[Grant, ...], msgspec.Meta(max_length=MAX_GRANTS)]
    lease_end: Second
    groups: Annotated[tuple[Id, ...], msgspec.Meta(max_length=1000)] = ()
    under: Id = 0
    """Of a link: the person who made it. The node allows it what both this set and that person may do, at every moment."""


class SignedGrantSet(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A grant set as it travels and lies on disk: ``body`` is msgpack, ``signature`` the hub's, Ed25519, 64 bytes."""

    body: Annotated[bytes, msgspec.Meta(max_length=900_000)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Narrowing(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A key that may do less than its person: only these places, or only reading. Never widens anything."""

    places: Annotated[tuple[tuple[str, str], ...], msgspec.Meta(max_length=50)] = ()
    """(bucket, prefix) pairs; empty means everything the person has."""
    read_only: bool = False


class ReceiptState(enum.StrEnum):
    """What became of a change."""

    ENFORCED = "enforced"
    PENDING = "pending"
    REFUSED = "refused"


class ProbeProof(msgspec.Struct, frozen=True):
    """One request that the agent made with a key of the subject, and what the storage server answered."""

    what: str
    """For people: ``GET lab/scans/a.txt``."""
    status: int
    """HTTP status: 403 proves a refusal."""
    at: Microsecond
    expected: bool
    """Whether the answer is the one that proves the change."""


class Receipt(msgspec.Struct, frozen=True):
    """What became of a share or unshare on one node, for one subject."""

    id: str
    node: str
    subject: Subject
    epoch: int
    state: ReceiptState
    asked_at: Microsecond
    enforced_at: Microsecond | None = None
    keys_out: int = 0
    """Keys of this subject that were out at that time, as far as the agent knows."""
    proofs: tuple[ProbeProof, ...] = ()
    exposure_s: int | None = None
    """Pending: how many seconds a key that is out can go on working at most."""
    reason: str = ""


_ENCODE = msgspec.msgpack.Encoder()
_DECODE = msgspec.msgpack.Decoder(GrantSet)


def sign_set(key: Ed25519PrivateKey, grant_set: GrantSet) -> SignedGrantSet:
    """Sign a set with the hub's key."""
    body = _ENCODE.encode(grant_set)
    return SignedGrantSet(body, key.sign(_SET_TAG + body))


def open_set(key: Ed25519PublicKey, signed: SignedGrantSet) -> GrantSet:
    """Return the set inside if the hub signed it and every place in it may stand in a policy.

    Raises BadSignature, BadMessage (not a grant set) or BadName (a bucket or prefix that is not allowed).
    """
    try:
        key.verify(signed.signature, _SET_TAG + signed.body)
    except InvalidSignature as error:
        raise BadSignature("The hub's signature on a grant set does not verify.") from error
    try:
        grant_set = _DECODE.decode(signed.body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadMessage(f"A signed grant set cannot be read: {error}.") from error
    for grant in grant_set.grants:
        check_bucket(grant.bucket)
        check_prefix(grant.prefix)
    return grant_set


def content_hash(grant_set: GrantSet) -> bytes:
    """Return 32 bytes that are equal for two sets that allow the same, whatever their epoch and lease."""
    grants = tuple(sorted(grant_set.grants, key=lambda g: (g.bucket, g.prefix, g.permission, g.workspace, g.expires or 0)))
    subject, groups = grant_set.subject, tuple(sorted(grant_set.groups))
    content = (grant_set.node, subject.kind, subject.id, grants, groups, grant_set.under)
    return hashlib.sha256(_ENCODE.encode(content)).digest()
