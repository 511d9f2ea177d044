"""Every call of the hub's API as a value: what is sent, and what the answer is read as. No I/O.

Both clients, waiting and asynchronous, run these same values, so a request is described once. ``decode`` turns whatever a
server answered into the promised type or an error of ``protocol.errors``; nothing else comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from protocol.api import (
    AccessEntry,
    AccessRequest,
    Alarm,
    AssertionIssued,
    AuditCheck,
    AuditEntry,
    Changes,
    Confirmed,
    Credentials,
    FileDetails,
    Group,
    GroupChange,
    Handover,
    Health,
    HubInfo,
    Invitation,
    Link,
    LinkMade,
    LinkRevoked,
    Listing,
    Login,
    NewAccount,
    NewAnswer,
    NewAssertion,
    NewCredentials,
    NewGroup,
    NewInvitation,
    NewLink,
    NewMember,
    NewQuota,
    NewRequest,
    NewRoot,
    NewShare,
    NewWorkspace,
    Node,
    Person,
    Quota,
    QuotaKind,
    Reacher,
    Root,
    RootChange,
    RootRetired,
    ScanStatus,
    SearchPage,
    Share,
    ShareChange,
    SignedIn,
    SurveyResult,
    Unreadable,
    Verification,
    Why,
    Workspace,
    WorkspaceChange,
    WorkspaceEnded,
)
from protocol.errors import BadMessage, BadName, HubUnreachable, Problem, WioError, error_of
from protocol.grants import Permission
from protocol.messages import IndexLevel
from protocol.names import shown

T = TypeVar("T")

BASE: Final = "/api/v1"
_GATEWAY_TROUBLE: Final = frozenset({502, 503, 504})
"""What a reverse proxy answers while the hub behind it is away."""
LONG_S: Final = 3_900.0
"""For what lists a whole root: the hub gives up after an hour."""
_SLACK_S: Final = 30.0
"""What an answer that waits for something may take longer than that."""
_REDIRECTS: Final = range(300, 400)
_GOOD: Final = range(200, 300)


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request to the hub. ``path`` is below ``/api/v1`` and quoted; ``query`` holds no unset values."""

    method: str
    path: str
    returns: type[T]
    body: msgspec.Struct | None = None
    query: tuple[tuple[str, str], ...] = ()
    wait_s: float | None = None
    """How long the hub may take to answer, where that is longer than anything else takes."""

    def __repr__(self) -> str:
        """Leave out the body: it may hold a password."""
        return f"Call({self.method} {self.path})"

    @property
    def content(self) -> bytes | None:
        """The body as JSON."""
        return None if self.body is None else msgspec.json.encode(self.body)


# ------------------------------------------------------------------------------------------------------ accounts


def register(email: str, username: str, password: str) -> Call[SignedIn]:
    """Make an account and sign in."""
    return Call("POST", "/accounts", SignedIn, NewAccount(email, username, password))


def login(email: str, password: str) -> Call[SignedIn]:
    """Sign in."""
    return Call("POST", "/sessions", SignedIn, Login(email, password))


def logout() -> Call[None]:
    """End this token."""
    return Call("DELETE", "/sessions/current", type(None))


def me() -> Call[Person]:
    """Ask who this token belongs to."""
    return Call("GET", "/me", Person)


def hub() -> Call[HubInfo]:
    """Ask which hub this is; needs no token."""
    return Call("GET", "/hub", HubInfo)


def health() -> Call[Health]:
    """Ask whether the hub can do its work; needs no token."""
    return Call("GET", "/health", Health)


# ------------------------------------------------------------------------------------------------------ nodes, roots


def invite(name: str | None = None, life_s: int = 600, *, replace: bool = False) -> Call[Invitation]:
    """Ask for a join string; ``replace``: for the place of a node of that name that has lost its keys."""
    return Call("POST", "/invitations", Invitation, NewInvitation(name, life_s, replace))


def nodes() -> Call[list[Node]]:
    """List the nodes this person may know of."""
    return Call("GET", "/nodes", list[Node])


def node(name: str) -> Call[Node]:
    """Look at one node."""
    return Call("GET", f"/nodes/{_part(name)}", Node)


def evict(name: str) -> Call[None]:
    """Remove a node from the hub."""
    return Call("DELETE", f"/nodes/{_part(name)}", type(None))


def confirm_node(name: str) -> Call[Confirmed]:
    """Say that the grants of this hub are right, after it came back from a backup: its node then follows them again."""
    return Call("POST", f"/nodes/{_part(name)}/confirm", Confirmed)


def alarms() -> Call[list[Alarm]]:
    """List what is wrong with this person's nodes; an administrator sees all."""
    return Call("GET", "/alarms", list[Alarm])


def create_root(root: NewRoot) -> Call[Root]:
    """Make a root."""
    return Call("POST", "/roots", Root, root)


def roots() -> Call[list[Root]]:
    """List the roots this person may know of."""
    return Call("GET", "/roots", list[Root])


def root(node: str, name: str) -> Call[Root]:
    """Look at one root."""
    return Call("GET", f"/roots/{_part(node)}/{_part(name)}", Root)


def scan(node: str, name: str) -> Call[ScanStatus]:
    """Begin to import or reconcile a root."""
    return Call("POST", f"/roots/{_part(node)}/{_part(name)}/scan", ScanStatus)


def scan_status(node: str, name: str) -> Call[ScanStatus]:
    """Ask how far the last scan of a root is."""
    return Call("GET", f"/roots/{_part(node)}/{_part(name)}/scan", ScanStatus)


def survey_root(node: str, name: str) -> Call[SurveyResult]:
    """Count what an import of a root would bring; takes as long as listing it."""
    return Call("POST", f"/roots/{_part(node)}/{_part(name)}/survey", SurveyResult, wait_s=LONG_S)


def survey_node(node: str, root: NewRoot) -> Call[SurveyResult]:
    """Count what an import would bring where no root is yet; takes as long as listing it."""
    return Call("POST", f"/nodes/{_part(node)}/survey", SurveyResult, root, wait_s=LONG_S)


def verify_root(node: str, name: str) -> Call[Verification]:
    """Compare storage, node and catalogue from nothing; takes as long as listing the root."""
    return Call("POST", f"/roots/{_part(node)}/{_part(name)}/verify", Verification, wait_s=LONG_S)


def change_root(
    node: str,
    name: str,
    *,
    level: IndexLevel | UnsetType = UNSET,
    pace: int | UnsetType = UNSET,
    quiet: str | UnsetType = UNSET,
    creators: Sequence[str] | UnsetType = UNSET,
    managers: Sequence[str] | UnsetType = UNSET,
) -> Call[Root]:
    """Change a root; what is left out stays.

    ``pace`` in objects per second while scanning, 0 for no limit; ``quiet``, ``08:00-18:00``: hours, by the node's clock, in
    which no scan runs, empty for none. ``creators`` (user names, ``@group``, ``public``) and
    ``managers`` (user names, ``@group``) replace the whole list.
    """
    change = RootChange(level=level, pace=pace, quiet=quiet, creators=_whole(creators), managers=_whole(managers))
    return Call("PATCH", f"/roots/{_part(node)}/{_part(name)}", Root, change)


def retire_root(node: str, name: str) -> Call[RootRetired]:
    """Take a root and its workspaces out of wio; every file stays where it lies."""
    return Call("DELETE", f"/roots/{_part(node)}/{_part(name)}", RootRetired)


# ------------------------------------------------------------------------------------------------------ workspaces


def create_workspace(
    name: str, *, root: str | None = None, public: bool = False, description: str = "", folder: str | None = None
) -> Call[Workspace]:
    """Make a workspace."""
    return Call("POST", "/workspaces", Workspace, NewWorkspace(name, root, public, description, folder))


def workspaces(which: str = "all") -> Call[list[Workspace]]:
    """List workspaces: ``mine``, ``shared`` (by others with this person), ``public`` or ``all``."""
    return Call("GET", "/workspaces", list[Workspace], query=(("which", which),))


def workspace(name: str) -> Call[Workspace]:
    """Look at one workspace, ``name`` or ``owner/name``."""
    return Call("GET", f"/workspaces/{_workspace(name)}", Workspace)


def shares(workspace: str) -> Call[list[Share]]:
    """List who a workspace is shared with."""
    return Call("GET", f"/workspaces/{_workspace(workspace)}/shares", list[Share])


def share(workspace: str, who: str, permission: Permission = Permission.READ, *, until: int | None = None) -> Call[ShareChange]:
    """Share a workspace with a person, ``@group`` or ``public``; ``until`` in Unix microseconds."""
    address = f"/workspaces/{_workspace(workspace)}/shares/{_part(who)}"
    return Call("PUT", address, ShareChange, NewShare(permission, until))


def unshare(workspace: str, who: str) -> Call[ShareChange]:
    """Take a share back."""
    return Call("DELETE", f"/workspaces/{_workspace(workspace)}/shares/{_part(who)}", ShareChange)


def change_workspace(
    workspace: str,
    *,
    description: str | UnsetType = UNSET,
    name: str | UnsetType = UNSET,
    archived: bool | UnsetType = UNSET,
) -> Call[Workspace]:
    """Change a workspace; what is left out stays. ``name`` is its label alone: no file is renamed or moved."""
    return Call("PATCH", f"/workspaces/{_workspace(workspace)}", Workspace, WorkspaceChange(description, name, archived))


def hand_over(workspace: str, to: str, *, keep: Permission | None = None) -> Call[Workspace]:
    """Give a workspace to somebody else; ``keep`` is what its former owner may still do."""
    return Call("POST", f"/workspaces/{_workspace(workspace)}/handover", Workspace, Handover(to, keep))


def delete_workspace(workspace: str) -> Call[WorkspaceEnded]:
    """Take a workspace out of wio; every file stays where it lies."""
    return Call("DELETE", f"/workspaces/{_workspace(workspace)}", WorkspaceEnded)


def request_access(workspace: str, permission: Permission = Permission.READ, message: str = "") -> Call[AccessRequest]:
    """Ask for access to somebody's workspace, ``owner/name``."""
    address = workspace.rstrip("/")
    _workspace(address)
    if "/" not in address:
        raise BadName(f"{shown(workspace)} would be one of your own.", todo="Write owner/name.")
    return Call("POST", "/requests", AccessRequest, NewRequest(address, permission, message))


def requests() -> Call[list[AccessRequest]]:
    """List one's own requests for access, and those one may answer."""
    return Call("GET", "/requests", list[AccessRequest])


def answer(request: int, yes: bool, *, until: int | None = None) -> Call[AccessRequest]:
    """Answer a request; yes shares the workspace with whoever asked. ``until`` in Unix microseconds."""
    return Call("POST", f"/requests/{request}/answer", AccessRequest, NewAnswer(yes, until))


# ------------------------------------------------------------------------------------------------------ groups, quotas


def groups() -> Call[list[Group]]:
    """List the groups of this hub."""
    return Call("GET", "/groups", list[Group])


def group(name: str) -> Call[Group]:
    """Look at one group, ``name`` or ``@name``."""
    return Call("GET", f"/groups/{_group(name)}", Group)


def create_group(name: str, description: str = "") -> Call[Group]:
    """Make a group; its maker owns it and is in it."""
    return Call("POST", "/groups", Group, NewGroup(name.removeprefix("@"), description))


def delete_group(name: str) -> Call[GroupChange]:
    """Delete a group: what it was given ends for its members at once."""
    return Call("DELETE", f"/groups/{_group(name)}", GroupChange)


def add_member(group: str, user: str, *, manager: bool = False) -> Call[GroupChange]:
    """Take somebody into a group, or change whether they may change who is in it."""
    return Call("PUT", f"/groups/{_group(group)}/members/{_part(user)}", GroupChange, NewMember(manager))


def remove_member(group: str, user: str) -> Call[GroupChange]:
    """Take somebody out of a group: keys that are out lose what the group was given."""
    return Call("DELETE", f"/groups/{_group(group)}/members/{_part(user)}", GroupChange)


def quotas() -> Call[list[Quota]]:
    """List the quotas that concern this person, and how they stand."""
    return Call("GET", "/quotas", list[Quota])


def set_quota(kind: QuotaKind, of: str, *, soft: int | None = None, hard: int | None = None) -> Call[Quota]:
    """Set a quota, or replace it; bytes. ``of``: ``user``, ``user@node/root``, ``node/root`` or ``owner/workspace``."""
    return Call("PUT", "/quotas", Quota, NewQuota(kind, of, soft, hard))


def delete_quota(quota: int) -> Call[None]:
    """Remove a quota, by its id."""
    return Call("DELETE", f"/quotas/{quota}", type(None))


# ------------------------------------------------------------------------------------------------------ keys, files


def credentials(asked: NewCredentials) -> Call[Credentials]:
    """Ask for storage keys, one per node; ``wio.credentials`` opens them."""
    return Call("POST", "/credentials", Credentials, asked)


def make_link(asked: NewLink) -> Call[LinkMade]:
    """Have a node presign one file; ``wio.links`` opens the answer."""
    return Call("POST", "/links", LinkMade, asked)


def links(path: str | None = None) -> Call[list[Link]]:
    """List the links that work: one's own, or those below a path."""
    return Call("GET", "/links", list[Link], query=_query(path=path))


def revoke_link(link: int) -> Call[LinkRevoked]:
    """End a link."""
    return Call("DELETE", f"/links/{link}", LinkRevoked)


def files(path: str, *, after: str | None = None, limit: int | None = None) -> Call[Listing]:
    """List one level of a workspace from the index."""
    return Call("GET", "/files", Listing, query=_query(path=path, after=after, limit=limit))


def file(path: str) -> Call[FileDetails]:
    """Show one file, with what was read out of it."""
    return Call("GET", "/file", FileDetails, query=_query(path=path))


def unreadable(node: str, root: str, *, after: str | None = None, limit: int | None = None) -> Call[list[Unreadable]]:
    """List files of a root that could not be read, and why; ``after`` is the key that the page before ended with."""
    asked = _query(node=node, root=root, after=after, limit=limit)
    return Call("GET", "/unreadable", list[Unreadable], query=asked)


def search(
    query: str, *, sort: str | None = None, limit: int | None = None, cursor: str | None = None, facets: Sequence[str] = ()
) -> Call[SearchPage]:
    """Search; ``cursor`` continues an answer."""
    asked = _query(q=query, sort=sort, limit=limit, cursor=cursor, facets=",".join(facets) or None)
    return Call("GET", "/search", SearchPage, query=asked)


def changes(path: str | None = None, *, after: str | None = None, limit: int | None = None, wait: int = 25) -> Call[Changes]:
    """Ask what changed after a position, waiting up to ``wait`` seconds for it; without ``after``, which position is now."""
    asked = _query(path=path, after=after, limit=limit, wait=wait)
    return Call("GET", "/changes", Changes, query=asked, wait_s=wait + _SLACK_S)


# ------------------------------------------------------------------------------------------------------ why, audit


def why(who: str, path: str) -> Call[Why]:
    """Ask whether somebody may reach a path, and for every reason; the storage server itself is asked, too."""
    return Call("GET", "/why", Why, query=_query(who=who, path=path))


def access(workspace: str, at: int | None = None) -> Call[list[Reacher]]:
    """List who can reach a workspace, or could at a moment, in Unix microseconds."""
    return Call("GET", "/access", list[Reacher], query=_query(path=workspace, at=at))


def accesses(
    path: str, *, who: str | None = None, limit: int | None = None, before: int | None = None
) -> Call[list[AccessEntry]]:
    """List who read or wrote below a path, newest first, as the storage server reported it."""
    return Call("GET", "/accesses", list[AccessEntry], query=_query(path=path, who=who, limit=limit, before=before))


def audit(*, limit: int | None = None, before: int | None = None, workspace: str | None = None) -> Call[list[AuditEntry]]:
    """Read the audit trail, newest first, as far as this person may; ``workspace`` leaves out all that is not about it."""
    return Call("GET", "/audit", list[AuditEntry], query=_query(limit=limit, before=before, workspace=workspace))


def audit_lines(*, workspace: str | None = None) -> Call[AuditEntry]:
    """Read the whole audit trail, as far as this person may: one JSON text a line, oldest first."""
    return Call("GET", "/audit", AuditEntry, query=_query(format="jsonl", workspace=workspace))


def vouch(node: str, life_s: int) -> Call[AssertionIssued]:
    """Ask for the hub's word for one node, with which tools on its machine get keys there; ``life_s`` 900 to 604,800."""
    return Call("POST", "/assertions", AssertionIssued, NewAssertion(node, life_s))


def audit_check() -> Call[AuditCheck]:
    """Ask whether every line of the audit trail is as it was written."""
    return Call("GET", "/audit/check", AuditCheck)


# ------------------------------------------------------------------------------------------------------ answers


def decode(call: Call[T], hub_url: str, status: int, body: bytes, *, content_type: str = "", location: str = "") -> T:
    """Return the answer as what the call promises, or raise the error that it is."""
    if status in _GOOD:
        return _answer(call, hub_url, body)
    raise _error(hub_url, status, body, content_type, location)


def _answer(call: Call[T], hub_url: str, body: bytes) -> T:
    returns: Any = call.returns
    if returns is type(None):
        return None  # type: ignore[return-value]  # T is None here, which no type checker can see
    try:
        return msgspec.json.decode(body, type=call.returns)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        problem = _problem(body)  # 202: accepted, but not yet enforced
        if problem is not None:
            raise error_of(problem) from error
        raise BadMessage(
            f"The hub at {hub_url} gave an answer to {call.method} {call.path} that this wio cannot read: {error}.",
            todo="Hub and wio are of different versions; update the older one.",
        ) from error


def _error(hub_url: str, status: int, body: bytes, content_type: str, location: str) -> WioError:
    problem = _problem(body)
    if problem is not None:
        return error_of(problem)
    if status in _GATEWAY_TROUBLE:
        return HubUnreachable(
            f"The hub at {hub_url} is away: a server in front of it answered {status}.", todo="Try again in a moment."
        )
    if status in _REDIRECTS and location:
        return HubUnreachable(f"{hub_url} sends on to {shown(location)}.", todo="Use that address: wio login --hub URL.")
    kind = content_type.partition(";")[0] or "nothing"
    return HubUnreachable(
        f"What answers at {hub_url} is not a wio hub: it said {status} with {shown(kind)}.",
        todo="Check the address: wio login --hub URL.",
    )


def _problem(body: bytes) -> Problem | None:
    try:
        return msgspec.json.decode(body, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def good(status: int) -> bool:
    """Say whether a status means that the answer is what was asked for."""
    return status in _GOOD


# ------------------------------------------------------------------------------------------------------ addresses


def _workspace(name: str) -> str:
    """Turn ``name`` or ``owner/name`` into the part of an address that names a workspace."""
    parts = name.rstrip("/").split("/")
    owner, own = (["me", *parts] if len(parts) == 1 else parts)[:2]
    if len(parts) > 2 or not owner or not own:  # noqa: PLR2004  - owner and name
        raise BadName(f"{shown(name)} is not a workspace.", todo="Write name for one of your own, or owner/name.")
    return f"{_part(owner)}/{_part(own)}"


def _group(name: str) -> str:
    return _part(name.removeprefix("@"))


def _part(text: str) -> str:
    """Quote one part of an address; raise BadName for what a server would read as no part, or as a step up."""
    if text in {"", ".", ".."}:
        raise BadName(f"{shown(text)} is not a name.")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise BadName(f"{shown(text)} is not valid Unicode.") from error


def _query(**values: str | int | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in values.items() if value is not None)


def _whole(names: Sequence[str] | UnsetType) -> tuple[str, ...] | UnsetType:
    return UNSET if isinstance(names, UnsetType) else tuple(names)
