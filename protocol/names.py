"""Names and keys: what is allowed, and why.

A name ends up in a storage policy, a shell, a URL, a bucket name and on a person's screen. What any of those reads as
syntax is not allowed in a name. Keys of objects are not ours to choose: any key that S3 can hold is carried and found,
and only shown with care.

Ids are random 53-bit integers: exact in JavaScript, fast in an index, and never used twice, not even by a database that
was restored from yesterday.
"""

from __future__ import annotations

import enum
import re
from typing import Final, NamedTuple, NewType

from protocol.errors import BadName

UserId = NewType("UserId", int)
GroupId = NewType("GroupId", int)
NodeId = NewType("NodeId", int)
RootId = NewType("RootId", int)
WorkspaceId = NewType("WorkspaceId", int)
GrantId = NewType("GrantId", int)

MAX_ID: Final = 2**53 - 1
"""The largest id: the largest integer that JSON carries exactly to a browser."""

MAX_KEY_BYTES: Final = 1024
"""S3's limit for an object key, in UTF-8 bytes."""

MAX_NAME: Final = 40
"""Users, groups, nodes, roots and workspaces: short enough for a bucket name made of two of them."""

MAX_BUCKET: Final = 63
"""S3's limit for a bucket name."""

SEPARATOR: Final = "--"
"""Stands between the parts of a bucket made for a workspace; never allowed inside a name, so the parts stay apart."""

RESERVED: Final = frozenset({"public", "everyone", "me", "wio", "admin", "root", "system", "meta"})
"""Words that commands or servers read as something else."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\Z")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
_POLICY_SYNTAX = re.compile(r"[*?$\\{}\x00-\x1f\x7f]")


class Layout(enum.StrEnum):
    """How a root lays out its workspaces."""

    PREFIX = "prefix"
    """Every workspace is a folder of the root's bucket."""
    BUCKET = "bucket"
    """Every workspace is a bucket of its own, closed in every way (4-storage: names are not isolated within a bucket)."""


class Place(NamedTuple):
    """A position on a storage server: ``key`` may be a whole key, or a prefix that is empty or ends in ``/``."""

    bucket: str
    key: str


def check_name(name: str, what: str) -> str:
    """Return ``name`` if it may name a ``what`` (user, group, node, root, workspace); else raise BadName."""
    if not 1 <= len(name) <= MAX_NAME:
        raise BadName(f"{what} name {shown(name)} has {len(name)} characters; 1 to {MAX_NAME} are allowed.")
    if not _NAME.match(name):
        raise BadName(
            f"{what} name {shown(name)} is not allowed.",
            todo="Use lower-case letters, digits and . _ - inside; begin and end with a letter or digit.",
        )
    if SEPARATOR in name or ".." in name:
        raise BadName(f"{what} name {shown(name)} holds -- or .., which is not allowed.", todo="Use a single - or .")
    if name in RESERVED:
        raise BadName(f"{what} name {name} is a word of wio's own.", todo="Choose another name.")
    return name


def check_bucket(bucket: str) -> str:
    """Return ``bucket`` if S3 allows it as a bucket name; else raise BadName."""
    if not _BUCKET.match(bucket) or ".." in bucket:
        raise BadName(f"{shown(bucket)} is not a bucket name.", todo="3 to 63 lower-case letters, digits, - and single dots.")
    return bucket


def check_prefix(prefix: str) -> str:
    r"""Return ``prefix`` if it may stand in a policy: empty, or ``a/b/`` with plain segments; else raise BadName.

    Anything that a policy reads as syntax is refused: ``* ? $ \ { }`` and control characters (measured: ``?ob`` matches
    ``bob``). A prefix always ends in ``/``: ``p1`` would reach ``p10``.
    """
    if prefix == "":
        return prefix
    if _POLICY_SYNTAX.search(prefix):
        raise BadName(f"folder {shown(prefix)} holds a character that a storage policy reads as syntax (* ? $ \\ {{ }}).")
    if not prefix.endswith("/"):
        raise BadName(f"folder {shown(prefix)} does not end in a slash.")
    if any(segment in {"", ".", ".."} for segment in prefix[:-1].split("/")):
        raise BadName(f"folder {shown(prefix)} holds an empty, . or .. part.")
    return _check_size(prefix, "folder")


def check_key(key: str) -> str:
    """Return ``key`` if S3 can hold it: 1 to 1,024 bytes of UTF-8 without NUL; else raise BadName."""
    if key == "" or "\0" in key:
        raise BadName(f"key {shown(key)} is empty or holds NUL.")
    return _check_size(key, "key")


def _check_size(text: str, what: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise BadName(f"{what} {shown(text)} is not valid Unicode.") from error
    if size > MAX_KEY_BYTES:
        raise BadName(f"{what} {shown(text)} has {size} bytes; {MAX_KEY_BYTES} are allowed.")
    return text


def shown(text: str, limit: int = 120) -> str:
    """Return ``text`` quoted and safe to print anywhere: no control, bidi or invisible characters get through."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    safe = safe.encode("utf-8", "backslashreplace").decode()
    return f"“{safe[:limit]}{'…' if len(safe) > limit else ''}”"


def overlaps(one: str, other: str) -> bool:
    """Say whether two prefixes of one root share any key."""
    return one.startswith(other) or other.startswith(one)


def locate(layout: Layout, bucket: str, root_prefix: str, key: str) -> Place:
    """Turn a key in a root's own space into its position on the server.

    With the prefix layout the root's space is everything under ``bucket/root_prefix``. With the bucket layout its first
    part names one of the root's buckets: ``alice--scans/a.txt`` lies in bucket ``{bucket}--alice--scans`` at ``a.txt``.
    """
    if layout is Layout.PREFIX:
        return Place(bucket, root_prefix + key)
    part, slash, rest = key.partition("/")
    if not slash:
        raise BadName(f"key {shown(key)} names no bucket of root {bucket}.")
    return Place(bucket + SEPARATOR + part, rest)


def in_root(layout: Layout, bucket: str, root_prefix: str, place: Place) -> str | None:
    """Turn a position on the server into the key in the root's own space; None where it lies outside the root."""
    if layout is Layout.PREFIX:
        inside = place.bucket == bucket and place.key.startswith(root_prefix)
        return place.key[len(root_prefix) :] if inside else None
    start = bucket + SEPARATOR
    return f"{place.bucket[len(start) :]}/{place.key}" if place.bucket.startswith(start) else None


def workspace_prefix(layout: Layout, bucket: str, username: str, workspace: str) -> str:
    """Return where a new workspace of a managed root lies, in the root's space; raise BadName if it cannot lie there."""
    if layout is Layout.PREFIX:
        return f"{username}/{workspace}/"
    part = f"{username}{SEPARATOR}{workspace}"
    whole = bucket + SEPARATOR + part
    if "_" in part or len(whole) > MAX_BUCKET:
        raise BadName(
            f"workspace {workspace} of {username} would be bucket {whole}, which S3 does not allow.",
            todo=f"Choose a name without _ so that the whole has at most {MAX_BUCKET} characters.",
        )
    check_bucket(whole)
    return part + "/"
