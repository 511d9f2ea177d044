"""The people's side of the contract: what the hub's JSON API takes and gives, as the client library reads it.

Everything is under ``/api/v1``. Times are Unix microseconds. A ``path`` is ``workspace/…`` (one's own) or
``owner/workspace/…``; in an address ``me`` may stand for ``{owner}``. ``who`` is a user name, ``@group`` or ``public``. An
error is ``protocol.errors.Problem`` with the status of its class. A token goes into ``Authorization: Bearer``.

    POST   /accounts                    NewAccount      -> SignedIn         register
    POST   /sessions                    Login           -> SignedIn         login
    DELETE /sessions/current                                                logout
    GET    /me                                          -> Person
    GET    /hub                                         -> HubInfo          no token needed
    POST   /invitations                 NewInvitation   -> Invitation
    GET    /nodes                                       -> list[Node]
    GET    /nodes/{node}                                -> Node
    DELETE /nodes/{node}                                                    evict
    POST   /roots                       NewRoot         -> Root
    GET    /roots                                       -> list[Root]
    GET    /roots/{node}/{root}                         -> Root
    POST   /roots/{node}/{root}/scan                    -> ScanStatus       import or reconcile; begins it
    GET    /roots/{node}/{root}/scan                    -> ScanStatus
    POST   /roots/{node}/{root}/survey                  -> SurveyResult     import's dry run; changes nothing, takes its time
    POST   /nodes/{node}/survey         NewRoot         -> SurveyResult     the same where no root is yet
    POST   /roots/{node}/{root}/verify                  -> Verification     storage, node and catalogue compared from nothing
    POST   /workspaces                  NewWorkspace    -> Workspace
    GET    /workspaces?which=           mine|shared|public|all -> list[Workspace]   public: also those with a description
    GET    /workspaces/{owner}/{name}                   -> Workspace
    GET    /workspaces/{owner}/{name}/shares            -> list[Share]
    PUT    /workspaces/{owner}/{name}/shares/{who}      NewShare -> ShareChange
    DELETE /workspaces/{owner}/{name}/shares/{who}      -> ShareChange
    POST   /credentials                 NewCredentials  -> Credentials
    POST   /assertions                  NewAssertion    -> AssertionIssued  for a node's own loopback endpoint
    GET    /files?path=&after=&limit=                   -> Listing          folders and files from the catalogue
    GET    /search?q=&sort=&limit=&cursor=&facets=      -> SearchPage
    GET    /changes?path=&after=&limit=&wait=           -> Changes          what changed after a position; waits for it
    GET    /audit?limit=&before=&workspace=&format=     -> list[AuditEntry]; format=jsonl: one a line, oldest first, all of it
    GET    /audit/check                                 -> AuditCheck       is the chain whole?
    GET    /access?path=&at=                            -> list[Reacher]    who can, or could, reach a workspace
    GET    /accesses?path=&who=&limit=&before=          -> list[AccessEntry] who read or wrote, from the server's own log
    GET    /why?who=&path=                              -> Why
    POST   /groups                      NewGroup        -> Group
    GET    /groups                                      -> list[Group]
    GET    /groups/{group}                              -> Group
    DELETE /groups/{group}                              -> GroupChange
    PUT    /groups/{group}/members/{user}  NewMember    -> GroupChange
    DELETE /groups/{group}/members/{user}               -> GroupChange
    PATCH  /roots/{node}/{root}         RootChange      -> Root
    DELETE /roots/{node}/{root}                         -> RootRetired      its data stays where it is
    PATCH  /workspaces/{owner}/{name}   WorkspaceChange -> Workspace
    POST   /workspaces/{owner}/{name}/handover  Handover -> Workspace
    DELETE /workspaces/{owner}/{name}                   -> WorkspaceEnded   its data stays where it is
    POST   /requests                    NewRequest      -> AccessRequest
    GET    /requests                                    -> list[AccessRequest]  mine, and those I may answer
    POST   /requests/{id}/answer        NewAnswer       -> AccessRequest
    GET    /quotas                                      -> list[Quota]      those that concern this person
    PUT    /quotas                      NewQuota        -> Quota
    DELETE /quotas/{id}
    POST   /nodes/{node}/confirm                        -> Confirmed        after a hub came back from a backup
    GET    /health                                      -> Health           no token needed
    GET    /alarms                                      -> list[Alarm]      of the nodes one owns; all, for an administrator
    GET    /file?path=                                  -> FileDetails      one file, with what was read out of it
    POST   /links                       NewLink         -> LinkMade         one file, presigned by its node
    GET    /links?path=                                 -> list[Link]       one's own; of a workspace one manages: everybody's
    DELETE /links/{id}                                  -> LinkRevoked
    GET    /unreadable?node=&root=&after=&limit=        -> list[Unreadable] files that could not be read, and why; for the owner
"""

from __future__ import annotations

import enum

import msgspec

from protocol.grants import Permission, Receipt
from protocol.messages import IndexLevel, ProbeLine, RootActivity, ScanState
from protocol.names import Layout


class _In(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what people send."""


class _Out(msgspec.Struct, frozen=True):
    """Base of what they get; a newer hub may add fields."""


# ------------------------------------------------------------------------------------------------------ accounts


class NewAccount(_In, frozen=True):
    """Register. A password has 10 characters at least."""

    email: str
    username: str
    password: str


class Login(_In, frozen=True):
    """Sign in."""

    email: str
    password: str


class Person(_Out, frozen=True):
    """Somebody with an account."""

    id: int
    username: str
    email: str
    admin: bool
    created_at: int


class SignedIn(_Out, frozen=True):
    """The one time the token is shown; the hub keeps a hash of it."""

    token: str
    expires_at: int
    person: Person


class HubInfo(_Out, frozen=True):
    """Which hub this is. ``key`` is its Ed25519 public key, base64url without padding."""

    name: str
    version: str
    key: str
    registration: str
    """``open`` or ``closed``."""


class Health(_Out, frozen=True):
    """Whether the hub can do its work; ``parts`` says which part cannot."""

    ok: bool
    parts: dict[str, str]


# ------------------------------------------------------------------------------------------------------ nodes, roots


class NewInvitation(_In, frozen=True):
    """Ask for a join string. ``name`` is what the node will be called; the owner may choose it when joining instead.

    ``replace``: it is there already, but its agent has lost its keys; whoever joins with this string takes its place.
    """

    name: str | None = None
    life_s: int = 600
    replace: bool = False


class Invitation(_Out, frozen=True):
    """A join string, shown once, and the line to run beside the storage server."""

    join_string: str
    expires_at: int
    command: str


class NodeState(enum.StrEnum):
    """Whether a node's agent is there."""

    ONLINE = "online"
    OFFLINE = "offline"
    EVICTED = "evicted"


class Node(_Out, frozen=True):
    """A storage server and its agent. ``key`` is the node's Ed25519 public key, base64url: a client may pin it."""

    id: int
    name: str
    owner: str
    state: NodeState
    key: str
    storage: str
    server: str
    agent_version: str
    endpoints: tuple[str, ...]
    region: str
    isolates_names: str
    probes: tuple[ProbeLine, ...]
    ceiling: tuple[str, ...]
    warnings: tuple[str, ...]
    pending_rows: int
    seen_at: int | None
    joined_at: int
    age_s: float | None = None
    """How old the hub's view of it is: since it last said that nothing was pending."""
    roots: tuple[RootView, ...] = ()
    """Its roots at a glance; for its owner."""
    alarms: tuple[Alarm, ...] = ()


class RootKind(enum.StrEnum):
    """Who sees a root's workspaces, and whether wio chooses where they lie."""

    PUBLIC = "public"
    PRIVATE = "private"
    UNMANAGED_PUBLIC = "unmanaged-public"
    UNMANAGED_PRIVATE = "unmanaged-private"

    @property
    def public(self) -> bool:
        """Whether everyone may read what lies in it."""
        return self in {RootKind.PUBLIC, RootKind.UNMANAGED_PUBLIC}

    @property
    def managed(self) -> bool:
        """Whether wio chooses where a workspace lies; else existing folders become workspaces where they are."""
        return self in {RootKind.PUBLIC, RootKind.PRIVATE}


class NewRoot(_In, frozen=True):
    """Make a root. ``layout`` unset: the safe one for this server (see 4-storage's rule on isolated names)."""

    node: str
    name: str
    kind: RootKind
    bucket: str
    prefix: str = ""
    layout: Layout | None = None
    accept_visible_names: bool = False
    level: IndexLevel = IndexLevel.NAMES
    pace: int = 0
    """Objects per second while scanning; 0 for no limit."""
    quiet: str = ""
    """``08:00-18:00``: hours, in the node's local time, in which no scan runs."""


class Root(_Out, frozen=True):
    """A bucket prefix inside which wio manages everything."""

    id: int
    node: str
    name: str
    owner: str
    kind: RootKind
    bucket: str
    prefix: str
    layout: Layout
    level: IndexLevel
    objects: int
    bytes: int
    digest: str
    """``protocol.digest`` of the root's content as the catalogue has it, 16 hexadecimal digits."""
    warnings: tuple[str, ...]
    created_at: int
    creators: tuple[str, ...] = ()
    """Who may make workspaces here beside its owner: user names, ``@group``, ``public`` for everyone."""
    managers: tuple[str, ...] = ()
    """Who may change it beside its owner: user names, ``@group``."""
    pace: int = 0
    quiet: str = ""
    view: RootView | None = None
    """How fresh the hub's view of it is."""


class ScanStatus(_Out, frozen=True):
    """How far the last scan of a root is."""

    root: str
    state: ScanState | None
    """None: never scanned."""
    objects: int
    bytes: int
    started_at: int
    at: int
    searchable: int
    """Objects of this root that a search finds by now."""
    problem: str = ""


class RootView(_Out, frozen=True):
    """How old the hub's view of one root is, and why. Times in Unix microseconds, None for never or unknown."""

    root: str
    """``node/root``."""
    activity: RootActivity | None
    """What the agent does with it; None: it has not said."""
    age_s: float | None
    """Since the node last said that nothing of this root was pending."""
    scanned_at: int | None
    """Everything up to then is known, whatever was or was not reported."""
    next_scan_at: int | None
    dirty: int = 0
    unread: int = 0
    """Objects whose fields are still to be read out."""
    unreadable: int = 0
    drifted: bool = False
    """The last comparison of digests found a difference that is not repaired yet."""
    problem: str = ""


class Count(_Out, frozen=True):
    """So many objects and bytes of one kind; ``samples`` are a few of their keys, safe to print."""

    what: str
    objects: int
    bytes: int = 0
    samples: tuple[str, ...] = ()


class SurveyResult(_Out, frozen=True):
    """What an import would bring."""

    bucket: str
    prefix: str
    objects: int
    bytes: int
    extensions: tuple[Count, ...]
    odd: tuple[Count, ...]
    """What is odd about names, sizes or times: how often."""
    took_s: float
    estimate_s: float
    """How long the import will take, about."""


class Total(_Out, frozen=True):
    """So many objects, their bytes, and their digest (16 hexadecimal digits)."""

    objects: int
    bytes: int
    digest: str


class Verification(_Out, frozen=True):
    """Storage, the node's knowledge of it, and the hub's catalogue, each added up from nothing."""

    root: str
    storage: Total
    node: Total
    catalogue: Total
    """Recounted from every entry."""
    kept: Total
    """What the hub keeps from change to change: equal to ``catalogue``, or there is a fault in wio."""
    equal: bool
    """All four are one, and no key differs."""
    differences: tuple[Count, ...]
    """Between storage and the node: ``unknown``, ``gone``, ``other``; empty kinds left out."""
    busy: bool
    """Changes were under way, so that the catalogue and the node could not be compared at one position."""
    took_s: float


class AlarmKind(enum.StrEnum):
    """What is wrong with a node."""

    OFFLINE = "offline"
    BEHIND = "behind"
    """Changes wait too long: at the node, or on their way here."""
    UNSCANNED = "unscanned"
    """No scan has come to its end for too long."""
    MISSING = "missing"
    DRIFTED = "drifted"
    WARNING = "warning"
    """The agent itself warns."""


class Alarm(_Out, frozen=True):
    """Something the owner of a node should look at. ``since`` in Unix microseconds."""

    kind: AlarmKind
    node: str
    root: str
    """``node/root``, or empty where it is about the whole node."""
    since: int
    message: str
    todo: str


# ------------------------------------------------------------------------------------------------------ workspaces


class NewWorkspace(_In, frozen=True):
    """Make a workspace.

    ``root`` is ``node/root`` or, where it is the only one of that name, ``root``; unset: the only one a person may use.
    ``folder`` names an existing folder, in unmanaged roots only.
    """

    name: str
    root: str | None = None
    public: bool = False
    description: str = ""
    folder: str | None = None


class Workspace(_Out, frozen=True):
    """A folder in a root; the unit of permission."""

    id: int
    owner: str
    name: str
    node: str
    root: str
    bucket: str
    prefix: str
    """Where its objects lie on the node: bucket and key prefix, for people's own tools."""
    description: str
    public: bool
    permission: Permission | None
    """What the asking person may do; None when only the description is visible."""
    objects: int
    bytes: int
    created_at: int
    archived_at: int | None = None
    warnings: tuple[str, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    """What a change of it did on its node; empty where it is only shown."""


class NewShare(_In, frozen=True):
    """Share. ``until`` in Unix microseconds."""

    permission: Permission = Permission.READ
    until: int | None = None


class Share(_Out, frozen=True):
    """One grant on a workspace. ``applied`` tells whether its node agrees by now; ``reason`` why not."""

    who: str
    permission: Permission
    since: int
    until: int | None
    by: str
    applied: bool
    reason: str = ""


class ShareChange(_Out, frozen=True):
    """What a share or unshare did. ``before`` is the permission there was; ``receipts`` say what became of it."""

    workspace: str
    who: str
    before: Permission | None
    after: Permission | None
    since: int | None
    receipts: tuple[Receipt, ...]
    links: tuple[Receipt, ...] = ()
    """Of each presigned link that ended with a share that was taken back."""


# ------------------------------------------------------------------------------------------------------ keys


class NewCredentials(_In, frozen=True):
    """Ask for keys that reach all these paths: one key per node. ``client_key`` is X25519, base64url."""

    client_key: str
    paths: tuple[str, ...]
    life_s: int = 3600
    read_only: bool = False
    narrow: bool = False
    """False: the key reaches everything this person has on that node (one key serves all). True: only ``paths``."""


class Opened(_Out, frozen=True):
    """Where one asked path lies."""

    path: str
    workspace: str
    """``owner/name``."""
    bucket: str
    prefix: str
    """The workspace's own prefix on the node, empty or ending in ``/``."""
    key: str
    """Where the asked path itself lies: ``prefix`` and the rest of the path."""
    permission: Permission


class NodeCredential(_Out, frozen=True):
    """One key, sealed by the node for the client (``protocol.sealing``); base64url throughout."""

    node: str
    node_id: int
    node_key: str
    subject: int
    request: int
    sealed: str
    signature: str
    expires_at: int
    """Unix seconds."""
    endpoint: str
    region: str
    opens: tuple[Opened, ...]


class NewLink(_In, frozen=True):
    """Ask for a presigned link to one file. ``client_key`` is X25519, base64url; ``put``: for uploading it."""

    client_key: str
    path: str
    life_s: int = 86_400
    put: bool = False


class Link(_Out, frozen=True):
    """A link that somebody made. The hub knows neither its address nor its signature."""

    id: int
    by: str
    path: str
    node: str
    put: bool
    created_at: int
    expires_at: int
    revoked_at: int | None = None


class LinkMade(_Out, frozen=True):
    """A new link; ``sealed`` and ``signature`` hold a ``protocol.sealing.ClearLink`` for the client, base64url."""

    link: Link
    node_id: int
    node_key: str
    request: int
    sealed: str
    signature: str
    expires_at: int
    """Unix seconds."""


class LinkRevoked(_Out, frozen=True):
    """A link that is dead, or will be when its node is back: the receipt says which."""

    link: Link
    receipt: Receipt


class NewAssertion(_In, frozen=True):
    """Ask for the hub's word for one node, with which tools on its machine get keys there, also while the hub is away."""

    node: str
    life_s: int = 43_200


class AssertionIssued(_Out, frozen=True):
    """``assertion`` is one line for a file (0600) that ``AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`` names."""

    node: str
    node_id: int
    assertion: str
    expires_at: int
    """Unix microseconds."""


class Credentials(_Out, frozen=True):
    """The answer: one entry per node."""

    keys: tuple[NodeCredential, ...]
    warnings: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------ files, search


class FileEntry(_Out, frozen=True):
    """A file, or a folder with what is below it. ``path`` is ``owner/workspace/…``."""

    path: str
    size: int
    modified_at: int | None
    etag: str = ""
    folder: bool = False
    objects: int = 1


class FileDetails(_Out, frozen=True):
    """One file, and what was read out of it. ``kind`` is what ``type:`` finds; empty where nothing was read."""

    path: str
    size: int
    modified_at: int
    etag: str
    node: str
    kind: str = ""
    values: dict[str, str | int | float | bool] = {}
    tags: dict[str, str] = {}
    text: str = ""
    """The beginning of its text, at index level ``content``."""
    problem: str = ""


class Unreadable(_Out, frozen=True):
    """A file that could not be read, or not as a whole, and why. ``key`` in the root's own space."""

    root: str
    key: str
    kind: str
    problem: str


class NodeView(_Out, frozen=True):
    """How old an answer's view of one node is. ``age_s``: since the node last said that nothing was pending."""

    node: str
    state: NodeState
    age_s: float | None
    pending_rows: int
    scanning: bool
    behind: tuple[str, ...] = ()
    """Roots of it (``node/root``) that are not up to date, of those the answer is about."""
    seen_at: int | None = None
    """When its agent last said how it is, Unix microseconds."""


class Listing(_Out, frozen=True):
    """One level of a workspace; ``after`` continues it."""

    path: str
    entries: tuple[FileEntry, ...]
    after: str | None
    nodes: tuple[NodeView, ...]


class FileChange(_Out, frozen=True):
    """One file that was written (``gone`` false) or is no more. ``modified_at`` as the storage says; None for what is gone."""

    path: str
    gone: bool
    size: int
    modified_at: int | None
    etag: str
    node: str


class Changes(_Out, frozen=True):
    """What changed, in the order in which the hub learnt it. ``after`` is the position to go on from; ``more``: at once."""

    changes: tuple[FileChange, ...]
    after: str
    more: bool


class Hit(_Out, frozen=True):
    """One found file."""

    path: str
    size: int
    modified_at: int
    node: str
    owner: str
    score: float


class FacetCount(_Out, frozen=True):
    """So many files, so many bytes, under one value of a facet."""

    value: str
    count: int
    bytes: int


class SearchPage(_Out, frozen=True):
    """One page of an answer; ``total`` counts only what this person may read."""

    hits: tuple[Hit, ...]
    total: int
    bytes: int
    facets: dict[str, tuple[FacetCount, ...]]
    cursor: str | None
    nodes: tuple[NodeView, ...]
    took_ms: float


# ------------------------------------------------------------------------------------------------------ groups


class NewGroup(_In, frozen=True):
    """Make a group; its maker owns it and is in it."""

    name: str
    description: str = ""


class Member(_Out, frozen=True):
    """Somebody in a group. ``manager``: may change who is in it."""

    username: str
    manager: bool
    since: int


class Group(_Out, frozen=True):
    """People who are given something together, as ``@name``. ``members`` is empty for those outside it."""

    id: int
    name: str
    description: str
    owner: str
    members: tuple[Member, ...]
    created_at: int


class NewMember(_In, frozen=True):
    """Take somebody in, or change whether they manage the group."""

    manager: bool = False


class GroupChange(_Out, frozen=True):
    """What a change of a group did on the nodes, one receipt per node and person whose keys are out."""

    group: str
    receipts: tuple[Receipt, ...]


# ------------------------------------------------------------------------------------------------------ changes


class RootChange(_In, frozen=True):
    """Change a root; what is left out stays. ``creators`` and ``managers`` replace the whole list."""

    level: IndexLevel | msgspec.UnsetType = msgspec.UNSET
    pace: int | msgspec.UnsetType = msgspec.UNSET
    quiet: str | msgspec.UnsetType = msgspec.UNSET
    creators: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    managers: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class RootRetired(_Out, frozen=True):
    """A root that is no more: its workspaces are gone from wio, every file stays where it lies."""

    root: str
    workspaces: int
    receipts: tuple[Receipt, ...]


class WorkspaceChange(_In, frozen=True):
    """Change a workspace; what is left out stays. ``name`` is its label: the data is never renamed or moved."""

    description: str | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    archived: bool | msgspec.UnsetType = msgspec.UNSET
    """Archived: everybody, its owner too, can only read it."""


class Handover(_In, frozen=True):
    """Give a workspace to somebody else, who then owns it. ``keep`` is what its former owner may still do, None: nothing."""

    to: str
    keep: Permission | None = None


class WorkspaceEnded(_Out, frozen=True):
    """A workspace that is no more; its files stay where they lie: ``bucket`` and ``prefix``."""

    workspace: str
    bucket: str
    prefix: str
    receipts: tuple[Receipt, ...]


class NewRequest(_In, frozen=True):
    """Ask for access to somebody's workspace, ``owner/name``, whose description one can see."""

    workspace: str
    permission: Permission = Permission.READ
    message: str = ""


class AccessRequest(_Out, frozen=True):
    """A request for access. ``granted`` is None while nobody has answered."""

    id: int
    workspace: str
    who: str
    permission: Permission
    message: str
    created_at: int
    answered_at: int | None
    granted: bool | None
    answered_by: str | None


class NewAnswer(_In, frozen=True):
    """Answer a request: yes shares the workspace with whoever asked."""

    yes: bool
    until: int | None = None


class Confirmed(_Out, frozen=True):
    """How many grant sets a person with the right has confirmed after the hub came back from a backup."""

    node: str
    sets: int


# ------------------------------------------------------------------------------------------------------ quotas


class QuotaKind(enum.StrEnum):
    """What a quota counts."""

    USER = "user"
    """Everything in the workspaces a person owns."""
    USER_ROOT = "user-root"
    """The same, in one root."""
    ROOT = "root"
    """Everything in a root."""
    WORKSPACE = "workspace"


class NewQuota(_In, frozen=True):
    """Set a quota, or change it. ``of`` is a user name, ``user@node/root``, ``node/root`` or ``owner/workspace``. Bytes."""

    kind: QuotaKind
    of: str
    soft: int | None = None
    hard: int | None = None


class Quota(_Out, frozen=True):
    """A quota and how it stands. ``caveats`` says what the count does not see. Bytes."""

    id: int
    kind: QuotaKind
    of: str
    soft: int | None
    hard: int | None
    used: int
    over_since: int | None
    caveats: tuple[str, ...]
    warnings: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------ why, audit


class WhyStep(_Out, frozen=True):
    """One link of the chain from a person to a policy: ``what`` is a stable word, ``holds`` whether it lets them through."""

    what: str
    holds: bool
    detail: str


class Why(_Out, frozen=True):
    """Whether somebody may reach a path, the whole chain, and what the storage server itself answers to a real probe."""

    who: str
    path: str
    allowed: bool
    permission: Permission | None
    because: str
    steps: tuple[WhyStep, ...]
    server_said: str
    """What a probe with a key of this person was answered just now; empty where none could be made."""
    agrees: bool | None
    """Whether the server's answer is the one that the chain says; None where none could be made."""
    todo: str = ""


class Reacher(_Out, frozen=True):
    """Somebody who could reach a workspace during some time. ``through``: ``owner``, ``@group``, ``public`` or empty."""

    who: str
    permission: str
    through: str
    since: int
    until: int | None


class AccessEntry(_Out, frozen=True):
    """So many calls of one kind by one person on one file, within a minute; as the storage server reported them."""

    id: int
    who: str
    path: str
    operation: str
    first_at: int
    last_at: int
    count: int
    refused: int


class AuditCheck(_Out, frozen=True):
    """Whether every line of the audit trail is as it was written. ``broken_at`` is the first that is not, or is missing."""

    whole: bool
    lines: int
    """Lines that were checked and are right."""
    broken_at: int | None
    unchained: int = 0
    """Lines of before there was a chain: nothing can be said about them."""
    head: str = ""
    """The chain of the newest line, hexadecimal: whoever keeps it elsewhere can tell later that nothing before it changed."""


class AuditEntry(_Out, frozen=True):
    """Who did what to what, when."""

    id: int
    at: int
    actor: str
    action: str
    target: str
    detail: str
