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

from protocol.api import (
    AuditEntry,
    Credentials,
    Health,
    HubInfo,
    Invitation,
    Listing,
    Login,
    NewAccount,
    NewCredentials,
    NewInvitation,
    NewRoot,
    NewShare,
    NewWorkspace,
    Node,
    Person,
    Root,
    ScanStatus,
    SearchPage,
    Share,
    ShareChange,
    SignedIn,
    Workspace,
)
from protocol.errors import BadMessage, BadName, HubUnreachable, Problem, WioError, error_of
from protocol.grants import Permission
from protocol.names import shown

T = TypeVar("T")

BASE: Final = "/api/v1"
_GATEWAY_TROUBLE: Final = frozenset({502, 503, 504})
"""What a reverse proxy answers while the hub behind it is away."""
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


def invite(name: str | None = None, life_s: int = 600) -> Call[Invitation]:
    """Ask for a join string."""
    return Call("POST", "/invitations", Invitation, NewInvitation(name, life_s))


def nodes() -> Call[list[Node]]:
    """List the nodes this person may know of."""
    return Call("GET", "/nodes", list[Node])


def node(name: str) -> Call[Node]:
    """Look at one node."""
    return Call("GET", f"/nodes/{_part(name)}", Node)


def evict(name: str) -> Call[None]:
    """Remove a node from the hub."""
    return Call("DELETE", f"/nodes/{_part(name)}", type(None))


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


# ------------------------------------------------------------------------------------------------------ keys, files


def credentials(asked: NewCredentials) -> Call[Credentials]:
    """Ask for storage keys, one per node; ``wio.credentials`` opens them."""
    return Call("POST", "/credentials", Credentials, asked)


def files(path: str, *, after: str | None = None, limit: int | None = None) -> Call[Listing]:
    """List one level of a workspace from the index."""
    return Call("GET", "/files", Listing, query=_query(path=path, after=after, limit=limit))


def search(
    query: str, *, sort: str | None = None, limit: int | None = None, cursor: str | None = None, facets: Sequence[str] = ()
) -> Call[SearchPage]:
    """Search; ``cursor`` continues an answer."""
    asked = _query(q=query, sort=sort, limit=limit, cursor=cursor, facets=",".join(facets) or None)
    return Call("GET", "/search", SearchPage, query=asked)


def audit(*, limit: int | None = None, before: int | None = None) -> Call[list[AuditEntry]]:
    """Read the audit trail, newest first, as far as this person may."""
    return Call("GET", "/audit", list[AuditEntry], query=_query(limit=limit, before=before))


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


# ------------------------------------------------------------------------------------------------------ addresses


def _workspace(name: str) -> str:
    """Turn ``name`` or ``owner/name`` into the part of an address that names a workspace."""
    parts = name.rstrip("/").split("/")
    owner, own = (["me", *parts] if len(parts) == 1 else parts)[:2]
    if len(parts) > 2 or not owner or not own:  # noqa: PLR2004  - owner and name
        raise BadName(f"{shown(name)} is not a workspace.", todo="Write name for one of your own, or owner/name.")
    return f"{_part(owner)}/{_part(own)}"


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
