"""Every wire message between hub and agent: tagged, frozen, bounded.

On the wire each message is a msgpack array whose first element is its tag. Tags are never reused. Unknown tags below 128
end the connection; at or above 128 they are skipped, so that a newer peer may add messages that may be ignored.
A request carries ``request`` (an id that its sender chose) and ``deadline_ms`` (how long its sender will wait); the answer
carries the same id. ``Done`` and ``Failed`` answer every request that has no answer of its own.

PROTOCOL_VERSION history
    1   2026-11-24   the first one; open until 0.1.0 is released
        2026-11-25   fields read out of objects (Change.FIELDS), quiet hours, Survey, Verify, Digests, Recheck, GiveUp,
                     RootState; presigned links (SignLink, LinkSigned, GrantSet.under, Report.longest_link_s)
"""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec

from protocol.errors import Problem
from protocol.fields import MAX_FIELDS
from protocol.grants import Id, Microsecond, Narrowing, Second, SignedGrantSet, Subject
from protocol.names import Layout

PROTOCOL_VERSION: Final = 1
OLDEST_VERSION: Final = 1
"""The oldest version this build accepts: one below its own, once there is one."""

MAX_FRAME: Final = 1024 * 1024
"""Bytes in one WebSocket message, signature and sequence included."""
MAX_ROWS: Final = 4000
"""Journal rows in one batch; the sender also keeps the frame under MAX_FRAME."""
BATCHES_OUT: Final = 8
"""Batches an agent may have sent and not yet seen acknowledged: what bounds the hub's memory, and the delay behind them."""
HEALTH_EVERY_S: Final = 5
"""An agent sends Health at least this often: a hub that hears nothing for three times as long takes it to be gone."""

Text = Annotated[str, msgspec.Meta(max_length=500)]
Name = Annotated[str, msgspec.Meta(max_length=80)]
Url = Annotated[str, msgspec.Meta(max_length=500)]
Key = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
"""An object key in its root's own space; at most 1,024 bytes, which ``protocol.wire`` checks."""
Prefix = Annotated[str, msgspec.Meta(max_length=1024)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Nanosecond = Annotated[int, msgspec.Meta(ge=0, le=7_258_118_400_000_000_000)]
"""Unix time in nanoseconds, 1970 to 2200."""
Millis = Annotated[int, msgspec.Meta(ge=1, le=3_600_000)]
Request = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
PublicKey = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Nonce = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of everything below."""


# ---------------------------------------------------------------------------------------------------- handshake


class Hello(_Message, frozen=True, tag=1):
    """agent -> hub, first: which versions the agent speaks, who it is, a fresh nonce."""

    versions: Annotated[tuple[int, ...], msgspec.Meta(min_length=1, max_length=16)]
    node_key: PublicKey
    nonce: Nonce


class Challenge(_Message, frozen=True, tag=2):
    """hub -> agent: the version chosen, who the hub is, its nonce, its signature over the transcript so far."""

    version: int
    hub_key: PublicKey
    nonce: Nonce
    signature: Signature


class Wishes(_Message, frozen=True):
    """What the node's owner asked for when joining."""

    name: Name
    storage: Name
    """``minio`` or ``directory``."""


class Enrolment(_Message, frozen=True):
    """The part of a Proof that makes a new node: the public half of the join key, its signature, the owner's wishes."""

    join_key: PublicKey
    signature: Signature
    wishes: Wishes


class Proof(_Message, frozen=True, tag=3):
    """agent -> hub: the node's signature over the transcript; when enrolling also the join key's."""

    signature: Signature
    enrolment: Enrolment | None = None


class Cursor(_Message, frozen=True):
    """A position in a node's journal. ``running`` is the hash over all rows up to it (``protocol.digest``)."""

    generation: Count
    sequence: Count
    """How many rows of this generation the hub has; the next row it wants has this number."""
    running: Hash


class EpochState(_Message, frozen=True):
    """What the hub wants of one subject: the epoch and the content hash of its grant set."""

    subject: Subject
    epoch: Count
    content: Hash


class Welcome(_Message, frozen=True, tag=4):
    """hub -> agent: the session is open."""

    node: Id
    name: Name
    session: Hash
    cursor: Cursor
    epochs: Annotated[tuple[EpochState, ...], msgspec.Meta(max_length=5000)] = ()


class Refused(_Message, frozen=True, tag=5):
    """hub -> agent, not signed, instead of Challenge or Welcome: why not. Advice for people: nothing is undone on its word."""

    problem: Problem


# ---------------------------------------------------------------------------------------------------- hub -> agent


class IndexLevel(enum.StrEnum):
    """How much of a root the hub may know."""

    NONE = "none"
    NAMES = "names"
    METADATA = "metadata"
    CONTENT = "content"
    LOCAL = "local"


class RootConfig(_Message, frozen=True):
    """A root as its agent has to treat it. ``pace`` is objects per second while scanning, 0 for no limit."""

    root: Id
    name: Name
    bucket: Annotated[str, msgspec.Meta(max_length=63)]
    prefix: Prefix
    layout: Layout
    level: IndexLevel
    pace: Count = 0
    quiet: Annotated[str, msgspec.Meta(pattern=r"^\Z|^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d\Z")] = ""
    """``08:00-18:00``: hours, in the node's own local time, in which no scan runs; changes that are reported still are looked
    at. May span midnight. Empty: none."""


class SetGrants(_Message, frozen=True, tag=10):
    """Make the storage server agree with this set, prove it, answer GrantsApplied or GrantsRefused."""

    request: Request
    deadline_ms: Millis
    grant_set: SignedGrantSet


class Mint(_Message, frozen=True, tag=11):
    """Mint a key for ``subject``, sealed to ``client_key`` (X25519). Answered by Minted or Failed.

    ``epoch`` is the newest epoch of this subject that the hub knows: the agent refuses to mint on an older one.
    """

    request: Request
    deadline_ms: Millis
    subject: Subject
    epoch: Count
    client_key: PublicKey
    life_s: Annotated[int, msgspec.Meta(ge=1, le=31_536_000)]
    narrowing: Narrowing = Narrowing()


class Configure(_Message, frozen=True, tag=12):
    """All roots of this node. The agent keeps it; a lower revision is ignored. Answered by Done or Failed."""

    request: Request
    deadline_ms: Millis
    revision: Count
    roots: Annotated[tuple[RootConfig, ...], msgspec.Meta(max_length=1000)]


class Ack(_Message, frozen=True, tag=13):
    """Everything before ``cursor.sequence`` is in the hub's database."""

    cursor: Cursor


class Nak(_Message, frozen=True, tag=14):
    """The last Events did not fit ``cursor``: send from there, or start a new generation."""

    cursor: Cursor
    reason: Text


class Scan(_Message, frozen=True, tag=15):
    """Scan a root now: import when it was never scanned, else reconcile. Done when it has *begun*; then Progress."""

    request: Request
    deadline_ms: Millis
    root: Id


class CheckRoot(_Message, frozen=True, tag=16):
    """May this root be made here? Checks the ceiling and that its bucket is there. Answered by Done or Failed."""

    request: Request
    deadline_ms: Millis
    root: RootConfig


class PlaceWorkspace(_Message, frozen=True, tag=17):
    """May a workspace lie here, and is there room for it? With the bucket layout its bucket is made. Done or Failed."""

    request: Request
    deadline_ms: Millis
    root: Id
    prefix: Prefix
    """In the root's own space, ending in ``/``."""


class Evict(_Message, frozen=True, tag=18):
    """This node is no longer wanted. ``signature`` is the hub's over (tag, node id, time): ``identity.eviction``."""

    node: Id
    at: Second
    signature: Signature


class Explain(_Message, frozen=True, tag=19):
    """What does the storage server itself answer to this subject at this key? Answered by Explained or Failed."""

    request: Request
    deadline_ms: Millis
    subject: Subject
    root: Id
    key: Key


class Survey(_Message, frozen=True, tag=21):
    """Count what lies here, changing and remembering nothing: an import's dry run. Answered by Surveyed or Failed.

    The root need not be one of this node's yet.
    """

    request: Request
    deadline_ms: Millis
    root: RootConfig


class Verify(_Message, frozen=True, tag=22):
    """Walk a whole root, compare it with what the agent knows, and add everything up from nothing. Verified or Failed."""

    request: Request
    deadline_ms: Millis
    root: Id


class KeyRange(_Message, frozen=True):
    """The keys behind ``low`` (exclusive) up to ``high`` (inclusive; None: to the end), in the order of their UTF-8 bytes."""

    low: Prefix
    high: Annotated[str, msgspec.Meta(max_length=1024)] | None


class Digests(_Message, frozen=True, tag=23):
    """Add these parts of a root up, as the agent knows it: to find where the catalogue differs. Digested or Failed."""

    request: Request
    deadline_ms: Millis
    root: Id
    ranges: Annotated[tuple[KeyRange, ...], msgspec.Meta(min_length=1, max_length=256)]


class Recheck(_Message, frozen=True, tag=24):
    """Look at these keys, and at every key known in the range, and say what is there even if it is as it was. Done or Failed.

    Done when the rows that say so are in the journal. Where very much is known in the range, that is said without a look.
    """

    request: Request
    deadline_ms: Millis
    root: Id
    range: KeyRange
    keys: Annotated[tuple[Key, ...], msgspec.Meta(max_length=2000)]


class GiveUp(_Message, frozen=True, tag=25):
    """Nobody waits any more for the answer to this request: stop, if it is nothing but a question. Has no answer."""

    request: Request


# ---------------------------------------------------------------------------------------------------- agent -> hub


class Finding(enum.StrEnum):
    """The outcome of one probe."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class ProbeLine(_Message, frozen=True):
    """One line of the probe table: a capability (stable word), what was found, a sentence for people."""

    capability: Name
    found: Finding
    detail: Text


class SignLink(_Message, frozen=True, tag=26):
    """Presign one request for ``subject`` (a link), sealed to ``client_key`` (X25519). Answered by LinkSigned or Failed.

    No key leaves the node: the agent mints one of the link's own principal, signs with it and forgets it. The link opens
    ``GET`` (or, with ``put``, ``PUT``) of this one key until ``life_s`` is over or the link's grants are gone.
    """

    request: Request
    deadline_ms: Millis
    subject: Subject
    epoch: Count
    client_key: PublicKey
    life_s: Annotated[int, msgspec.Meta(ge=1, le=604_800)]
    """SigV4 allows seven days."""
    bucket: Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    put: bool = False


class Report(_Message, frozen=True, tag=40):
    """What the agent is and what its server can do; sent after every Welcome and when it changes."""

    agent_version: Name
    storage: Name
    server: Text
    endpoints: Annotated[tuple[Url, ...], msgspec.Meta(min_length=1, max_length=8)]
    """Where people reach the storage server; the first one is the best."""
    region: Name
    isolates_names: Finding
    probes: Annotated[tuple[ProbeLine, ...], msgspec.Meta(max_length=64)]
    ceiling: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)] = ()
    """The owner's limits, one sentence each."""
    longest_key_s: Annotated[int, msgspec.Meta(ge=900, le=31_536_000)] = 43_200
    longest_link_s: Annotated[int, msgspec.Meta(ge=0, le=604_800)] = 604_800
    """How long a presigned link lives at most; 0: the owner wants none."""


class WireProof(_Message, frozen=True):
    """``grants.ProbeProof`` on the wire."""

    what: Text
    status: Annotated[int, msgspec.Meta(ge=0, le=999)]
    at: Microsecond
    expected: bool


class GrantsApplied(_Message, frozen=True, tag=41):
    """The storage server agrees with this epoch."""

    request: Request
    subject: Subject
    epoch: Count
    at: Microsecond
    """When the server had confirmed the last write."""
    keys_out: Count
    proofs: Annotated[tuple[WireProof, ...], msgspec.Meta(max_length=16)]


class Refusal(_Message, frozen=True):
    """One grant that the agent does not carry out, and why."""

    workspace: Id
    problem: Problem


class GrantsRefused(_Message, frozen=True, tag=42):
    """Nothing of this epoch was widened. ``refusals`` name single grants above the ceiling; ``problem`` the whole."""

    request: Request
    subject: Subject
    epoch: Count
    problem: Problem
    refusals: Annotated[tuple[Refusal, ...], msgspec.Meta(max_length=200)] = ()


class SealedCredential(_Message, frozen=True):
    """A key that only the client can open (``protocol.sealing``), signed by the node."""

    sealed: Annotated[bytes, msgspec.Meta(max_length=8192)]
    signature: Signature
    expires: Second


class Minted(_Message, frozen=True, tag=43):
    """The answer to Mint."""

    request: Request
    credential: SealedCredential


class LinkSigned(_Message, frozen=True, tag=58):
    """The answer to SignLink: a ``sealing.ClearLink``, sealed; ``credential.expires`` is when the link ends by itself."""

    request: Request
    credential: SealedCredential


class Change(enum.IntEnum):
    """What a journal row says."""

    PUT = 1
    DELETE = 2
    FIELDS = 3
    """What was read out of the object that has this size, mtime and etag; changes nothing else."""


class Row(_Message, frozen=True):
    """One journal row. Its sequence is the batch's ``first`` plus its position. ``etag`` without quotes."""

    change: Change
    root: Id
    key: Key
    size: Count = 0
    mtime: Nanosecond = 0
    etag: Annotated[str, msgspec.Meta(max_length=200)] = ""
    actor: Id = 0
    """The user id of whoever did it, as far as the server said; 0 for unknown."""
    fields: Annotated[bytes, msgspec.Meta(max_length=MAX_FIELDS)] = b""
    """``protocol.fields``, packed; empty unless ``change`` is FIELDS."""


class Events(_Message, frozen=True, tag=45):
    """Journal rows ``first`` … of ``generation``, in order; ``running`` is the hash after the last of them."""

    generation: Count
    first: Count
    rows: Annotated[tuple[Row, ...], msgspec.Meta(max_length=MAX_ROWS)]
    running: Hash


class ScanState(enum.StrEnum):
    """Where a scan stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Progress(_Message, frozen=True, tag=47):
    """How far a scan is. At its end ``digest`` is the root's (``protocol.digest``) at journal position ``sequence``."""

    root: Id
    state: ScanState
    objects: Count
    bytes: Count
    started_at: Microsecond
    at: Microsecond
    sequence: Count = 0
    digest: Count = 0
    problem: Problem | None = None
    generation: Count = 0
    """The journal's generation that ``sequence`` counts in; 0 before the end."""


class RootActivity(enum.StrEnum):
    """What the agent does with a root at the moment."""

    IDLE = "idle"
    SCANNING = "scanning"
    WAITING = "waiting"
    """A scan is due, but another root has its turn, or it is the root's quiet hours."""
    MISSING = "missing"
    """It is not there, or it is another one than it was: nothing of it is taken to be gone."""
    FAILING = "failing"
    """Looking at it fails; it is tried again."""


class RootState(_Message, frozen=True):
    """How fresh the agent's view of one root is. Times in Unix microseconds, 0 for never."""

    root: Id
    activity: RootActivity
    scanned_at: Microsecond
    """When the last completed scan began: everything up to then is known, whatever was or was not reported."""
    next_scan_at: Microsecond
    dirty: Count
    """Places not yet looked at."""
    unread: Count = 0
    """Objects whose fields are still to be read out."""
    unreadable: Count = 0
    """Objects that could not be read: ``protocol.fields`` says why."""


class Health(_Message, frozen=True, tag=50):
    """How the agent is, every few seconds and when it changes."""

    at: Microsecond
    pending_rows: Count
    """Journal rows the hub has not acknowledged."""
    dirty: Count
    """Hints not yet looked at."""
    paused: bool
    warnings: Annotated[tuple[Text, ...], msgspec.Meta(max_length=32)] = ()
    roots: Annotated[tuple[RootState, ...], msgspec.Meta(max_length=1000)] = ()


class Explained(_Message, frozen=True, tag=51):
    """The answer to Explain: what the server answered to a probe key, and through which policy that went."""

    request: Request
    epoch: Count
    policy: Text
    keys_out: Count
    proof: WireProof | None = None


class Access(_Message, frozen=True):
    """Attributed access, compacted: so many calls of one kind by one person on one key within one minute."""

    root: Id
    key: Key
    actor: Id
    operation: Name
    """S3's name: GetObject, PutObject, DeleteObject …"""
    first_at: Microsecond
    last_at: Microsecond
    count: Count
    refused: Count
    """How many of them the server answered with 403."""


class Accesses(_Message, frozen=True, tag=52):
    """Attributed accesses; losing some costs history only, so they are not journalled."""

    rows: Annotated[tuple[Access, ...], msgspec.Meta(max_length=1000)]


class Epochs(_Message, frozen=True, tag=53):
    """What the agent enforces now: right after every Welcome, before anything is minted. The hub sends what differs."""

    states: Annotated[tuple[EpochState, ...], msgspec.Meta(max_length=5000)]
    last: bool = True
    """False where more of them follow."""


class OutUntil(_Message, frozen=True):
    """Until when keys of a person may be out that the agent minted by itself, under the hub's assertion."""

    subject: Subject
    until: Second


class KeysOut(_Message, frozen=True, tag=54):
    """Keys are out that the hub did not ask for: it sends these persons' changes at once from here on, until then."""

    keys: Annotated[tuple[OutUntil, ...], msgspec.Meta(max_length=1000)]


class Counted(_Message, frozen=True):
    """So many objects and bytes of one kind: of one extension, or with one oddity in their names."""

    what: Text
    objects: Count
    bytes: Count = 0
    samples: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=1100)], ...], msgspec.Meta(max_length=20)] = ()
    """A few of the keys, safe to print."""


class Surveyed(_Message, frozen=True, tag=55):
    """The answer to Survey."""

    request: Request
    objects: Count
    bytes: Count
    extensions: Annotated[tuple[Counted, ...], msgspec.Meta(max_length=100)]
    odd: Annotated[tuple[Counted, ...], msgspec.Meta(max_length=20)]
    took_ms: Count
    estimate_ms: Count
    """How long an import of it will take, about."""


class Sum(_Message, frozen=True):
    """So many objects, their bytes, and their digest (``protocol.digest``)."""

    objects: Count
    bytes: Count
    digest: Count


class Verified(_Message, frozen=True, tag=56):
    """The answer to Verify: three sums that should be one, and what differs between storage and the agent's knowledge."""

    request: Request
    storage: Sum
    """Walked and counted just now."""
    kept: Sum
    """As the agent keeps it from change to change."""
    recounted: Sum
    """The same, worked out from everything the agent knows: equal to ``kept``, or there is a fault in wio."""
    generation: Count
    sequence: Count
    """The journal position of ``kept`` and ``recounted``."""
    unknown: Counted
    """In storage, not known."""
    gone: Counted
    """Known, not in storage."""
    other: Counted
    """In both, with another size, time or etag."""


class Digested(_Message, frozen=True, tag=57):
    """The answer to Digests: a sum for each range, all at one journal position."""

    request: Request
    generation: Count
    sequence: Count
    sums: Annotated[tuple[Sum, ...], msgspec.Meta(max_length=256)]


class Done(_Message, frozen=True, tag=60):
    """A request was carried out."""

    request: Request


class Failed(_Message, frozen=True, tag=61):
    """A request was not carried out; either side may send it."""

    request: Request
    problem: Problem


# 20 Query, 46 Page, 48 Hits are kept for searching roots whose index stays on the node.

HubMessage = (
    SetGrants
    | Mint
    | Configure
    | Ack
    | Nak
    | Scan
    | CheckRoot
    | PlaceWorkspace
    | Evict
    | Explain
    | Survey
    | Verify
    | Digests
    | Recheck
    | GiveUp
    | SignLink
    | Failed
)
"""What a hub may send once the session is open."""

AgentMessage = (
    Report
    | GrantsApplied
    | GrantsRefused
    | Minted
    | Events
    | Progress
    | Health
    | Explained
    | Accesses
    | Epochs
    | KeysOut
    | Surveyed
    | Verified
    | Digested
    | LinkSigned
    | Done
    | Failed
)
"""What an agent may send once the session is open."""

Asking = (
    SetGrants | Mint | Configure | Scan | CheckRoot | PlaceWorkspace | Explain | Survey | Verify | Digests | Recheck | SignLink
)
"""Requests a hub makes."""

Answer = GrantsApplied | GrantsRefused | Minted | Explained | Surveyed | Verified | Digested | LinkSigned | Done | Failed
"""What answers them."""
