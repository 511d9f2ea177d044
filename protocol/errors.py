"""Every error wio tells a person about, as one tree.

    WioError
    ├── BadInput            what was asked for cannot be: 400, exit 2
    │   ├── BadName         a user, workspace, root, bucket name, prefix or key that is not allowed
    │   ├── BadQuery        a search that cannot be read; carries the column
    │   ├── BadLifetime     a key, link or grant that would live too short, too long or backwards
    │   ├── BadEndpoint     an address that may not be used as a storage endpoint
    │   ├── BadCursor       a page cursor that this hub did not make
    │   ├── BadJoinString   truncated, mistyped, expired, for another hub
    │   └── BadSetting      a setting, ceiling file or option that cannot be used
    ├── NotSignedIn         no token, or one that is no longer good: 401, exit 4
    │   └── WrongPassword   mail address and password do not belong together: 401, exit 4
    ├── NotAllowed          known, but refused by a rule: 403, exit 4
    │   ├── NoGrant         nobody gave this person that permission
    │   ├── OverCeiling     the node's owner does not allow it, whatever the hub says
    │   ├── OverQuota       nothing can be added there now
    │   └── Evicted         this node was removed from the hub
    ├── NotFound            404, exit 3
    │   ├── UnknownUser  UnknownGroup  UnknownNode  UnknownRoot  UnknownWorkspace  UnknownShare  UnknownPath
    ├── Conflict            409, exit 1
    │   ├── NameTaken       the name is in use
    │   ├── Overlap         workspaces and roots never nest or overlap
    │   ├── JoinStringUsed  a join string works once
    │   └── AlreadyJoined   this server, or this state directory, already belongs to a node
    ├── TooMany             rate limited; retry helps: 429, exit 1
    ├── Unreachable         503, exit 5, retry helps
    │   ├── HubUnreachable  NodeOffline  StorageUnreachable  DeadlinePassed
    ├── Pending             accepted, not yet enforced: 202, exit 6
    ├── StorageRefused      the storage server said no to the agent: 502, exit 1
    │   ├── RootMissing     the root's bucket or directory is gone or is another one now
    │   └── DiskFull        no space left where something had to be written; retry helps once there is
    ├── LinkBroken          the connection between hub and agent ends; retry may help
    │   ├── BadMessage      a frame or message outside the limits of the protocol
    │   ├── BadSignature    a frame, proof, grant set or credential whose signature does not verify
    │   ├── BadSequence     a frame repeated, skipped or out of order
    │   ├── VersionMismatch no protocol version in common
    │   ├── HubKeyMismatch  the hub's key is not the pinned one
    │   └── UnknownPeer     the hub does not know this node's key
    └── Internal            a fault of wio's own: 500, exit 1; the log has the rest

A code is stable for ever and unique. Messages are whole sentences: what happened, to what; ``todo`` says what to do next.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import msgspec

__all__ = [
    "AlreadyJoined",
    "BadCursor",
    "BadEndpoint",
    "BadInput",
    "BadJoinString",
    "BadLifetime",
    "BadMessage",
    "BadName",
    "BadQuery",
    "BadSequence",
    "BadSetting",
    "BadSignature",
    "Conflict",
    "DeadlinePassed",
    "DiskFull",
    "Evicted",
    "HubKeyMismatch",
    "HubUnreachable",
    "Internal",
    "JoinStringUsed",
    "LinkBroken",
    "NameTaken",
    "NoGrant",
    "NodeOffline",
    "NotAllowed",
    "NotFound",
    "NotSignedIn",
    "OverCeiling",
    "OverQuota",
    "Overlap",
    "Pending",
    "Problem",
    "RootMissing",
    "StorageRefused",
    "StorageUnreachable",
    "TooMany",
    "UnknownGroup",
    "UnknownNode",
    "UnknownPath",
    "UnknownPeer",
    "UnknownRoot",
    "UnknownShare",
    "UnknownUser",
    "UnknownWorkspace",
    "Unreachable",
    "VersionMismatch",
    "WioError",
    "WrongPassword",
    "error_of",
]


MAX_SENTENCE: Final = 2000
"""Characters of a message or todo that travel; the rest is cut off where the error becomes a value."""

_Sentence = Annotated[str, msgspec.Meta(max_length=MAX_SENTENCE)]


class Problem(msgspec.Struct, frozen=True):
    """The form in which an error travels, over HTTP as JSON and over the link as msgpack."""

    code: Annotated[str, msgspec.Meta(max_length=80)]
    message: _Sentence
    todo: _Sentence = ""
    retry: bool = False
    column: int | None = None


class WioError(Exception):
    """Base of the tree. ``str(error)`` is the whole sentence; ``todo`` may be empty."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retry: ClassVar[bool] = False

    def __init__(self, message: str, *, todo: str = "", column: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.todo = todo
        self.column = column

    @property
    def problem(self) -> Problem:
        """This error as a value."""
        return Problem(self.code, self.message[:MAX_SENTENCE], self.todo[:MAX_SENTENCE], self.retry, self.column)


class BadInput(WioError):
    """What was asked for cannot be."""

    code = "bad-input"
    status = 400
    exit_code = 2


class BadName(BadInput):
    """A name, prefix or key that is not allowed."""

    code = "bad-name"


class BadQuery(BadInput):
    """A search that cannot be read; ``column`` counts characters from 1."""

    code = "bad-query"


class BadLifetime(BadInput):
    """A life that is too short, too long or backwards."""

    code = "bad-lifetime"


class BadEndpoint(BadInput):
    """An address that may not be used as a storage endpoint."""

    code = "bad-endpoint"


class BadCursor(BadInput):
    """A page cursor that this hub did not make."""

    code = "bad-cursor"


class BadSetting(BadInput):
    """A setting that cannot be used."""

    code = "bad-setting"


class BadJoinString(BadInput):
    """A join string that is truncated, mistyped, expired or for another hub."""

    code = "bad-join-string"


class NotSignedIn(WioError):
    """No token, or one that is no longer good."""

    code = "not-signed-in"
    status = 401
    exit_code = 4


class WrongPassword(NotSignedIn):
    """Mail address and password do not belong together."""

    code = "wrong-password"


class NotAllowed(WioError):
    """Known, but refused by a rule."""

    code = "not-allowed"
    status = 403
    exit_code = 4


class NoGrant(NotAllowed):
    """Nobody gave this person that permission."""

    code = "no-grant"


class OverCeiling(NotAllowed):
    """The node's owner does not allow it, whatever the hub says."""

    code = "over-ceiling"


class OverQuota(NotAllowed):
    """A quota is exceeded: nothing can be added there now."""

    code = "over-quota"


class Evicted(NotAllowed):
    """This node was removed from the hub."""

    code = "evicted"


class NotFound(WioError):
    """There is no such thing, or none that this person may know of."""

    code = "not-found"
    status = 404
    exit_code = 3


class UnknownUser(NotFound):
    """No such person."""

    code = "unknown-user"


class UnknownGroup(NotFound):
    """No such group."""

    code = "unknown-group"


class UnknownNode(NotFound):
    """No such node."""

    code = "unknown-node"


class UnknownRoot(NotFound):
    """No such root."""

    code = "unknown-root"


class UnknownWorkspace(NotFound):
    """No such workspace, or none that this person may know of."""

    code = "unknown-workspace"


class UnknownShare(NotFound):
    """That workspace is not shared with that person."""

    code = "unknown-share"


class UnknownPath(NotFound):
    """Nothing lies at that path."""

    code = "unknown-path"


class Conflict(WioError):
    """It collides with something that is there."""

    code = "conflict"
    status = 409


class NameTaken(Conflict):
    """The name is in use."""

    code = "name-taken"


class Overlap(Conflict):
    """Workspaces and roots never nest or overlap."""

    code = "overlap"


class JoinStringUsed(Conflict):
    """A join string works once."""

    code = "join-string-used"


class AlreadyJoined(Conflict):
    """This server, or this state directory, already belongs to a node."""

    code = "already-joined"


class TooMany(WioError):
    """Too many tries in a short time."""

    code = "too-many"
    status = 429
    retry = True


class Unreachable(WioError):
    """A part that is needed does not answer."""

    code = "unreachable"
    status = 503
    exit_code = 5
    retry = True


class HubUnreachable(Unreachable):
    """The hub does not answer."""

    code = "hub-unreachable"


class NodeOffline(Unreachable):
    """The node's agent is not connected."""

    code = "node-offline"


class StorageUnreachable(Unreachable):
    """The storage server does not answer its agent."""

    code = "storage-unreachable"


class DeadlinePassed(Unreachable):
    """An answer did not come in time."""

    code = "deadline-passed"


class Pending(WioError):
    """Accepted, but not yet enforced."""

    code = "pending"
    status = 202
    exit_code = 6
    retry = True


class StorageRefused(WioError):
    """The storage server said no to the agent."""

    code = "storage-refused"
    status = 502


class RootMissing(StorageRefused):
    """The root's bucket or directory is gone, or is another one now."""

    code = "root-missing"


class DiskFull(StorageRefused):
    """No space left where something had to be written."""

    code = "disk-full"
    status = 507
    retry = True


class LinkBroken(WioError):
    """The connection between hub and agent ends."""

    code = "link-broken"
    status = 502
    retry = True


class BadMessage(LinkBroken):
    """A frame or message outside the limits of the protocol."""

    code = "bad-message"
    retry = False


class BadSignature(LinkBroken):
    """A signature that does not verify."""

    code = "bad-signature"
    retry = False


class BadSequence(LinkBroken):
    """A frame repeated, skipped or out of order."""

    code = "bad-sequence"


class VersionMismatch(LinkBroken):
    """No protocol version in common."""

    code = "version-mismatch"
    retry = False


class HubKeyMismatch(LinkBroken):
    """The hub's key is not the pinned one."""

    code = "hub-key-mismatch"
    retry = False


class UnknownPeer(LinkBroken):
    """The hub does not know this node's key."""

    code = "unknown-peer"
    retry = False


class Internal(WioError):
    """A fault of wio's own."""

    code = "internal"


def _tree(base: type[WioError]) -> dict[str, type[WioError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found |= _tree(child)
    return found


_BY_CODE = _tree(WioError)


def error_of(problem: Problem) -> WioError:
    """Give back the error a problem came from; a code of a newer peer becomes the base class."""
    kind = _BY_CODE.get(problem.code, WioError)
    return kind(problem.message, todo=problem.todo, column=problem.column)
