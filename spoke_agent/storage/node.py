"""The one interface behind which a storage server lies: what the rest of the agent knows of it.

Two kinds of node serve it: ``minio`` (MinIO family) and ``posix`` (a plain directory). One suite of integration tests runs
against both. Nothing above this layer knows policies, buckets' innards or admin calls; nothing in this layer knows the
hub, the ceiling or the journal.

Every method may raise StorageUnreachable (retry helps) or StorageRefused (it does not).
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from protocol.grants import Grant, Narrowing, Permission
from protocol.messages import Finding, ProbeLine, RootConfig
from protocol.names import Place


class HolderKind(enum.StrEnum):
    """What carries access on the server."""

    PERSON = "person"
    """Somebody's parent: a storage user of wio's own, from which keys are minted."""
    SHARED = "shared"
    """Access that many persons have at once (everyone, a group): written once."""


class Holder(msgspec.Struct, frozen=True):
    """Something that carries access on the server. ``name`` is random and never used again after removal."""

    kind: HolderKind
    name: str


class Credential(msgspec.Struct, frozen=True):
    """A key as a storage server knows it. Never logged, never stored: ``repr`` shows the access key only."""

    access_key: str
    secret_key: str
    session_token: str
    expires: int
    """Unix seconds."""

    def __repr__(self) -> str:
        return f"Credential({self.access_key})"


class Answered(msgspec.Struct, frozen=True):
    """What the server answered to one probe request."""

    what: str
    """For people: ``GET lab/scans/a.txt``."""
    status: int
    at: int
    """Unix microseconds, when the request was *sent*."""


class Weight(msgspec.Struct, frozen=True):
    """What a holder's access costs at every request: patterns the server compares, and policies they are dealt out to."""

    patterns: int
    policies: int


class Entry(msgspec.Struct, frozen=True):
    """One object as a look at the storage found it.

    ``key`` in the root's own space, ``mtime`` in Unix nanoseconds, ``etag`` without quotes.
    """

    key: str
    size: int
    mtime: int
    etag: str


class Hint(msgspec.Struct, frozen=True):
    """Somebody said that something changed here. Never believed, only looked at.

    ``key`` is a whole key, or with ``folder`` a prefix (empty: the whole root) under which anything may have changed.
    """

    root: int
    key: str
    folder: bool = False
    actor: str = ""
    """The name of the person's Holder, where the server said it."""


class Call(msgspec.Struct, frozen=True):
    """One S3 call that the server reported: who (a Holder's name, and the key they used) did what with which answer."""

    root: int
    key: str
    holder: str
    operation: str
    status: int
    at: int
    """Unix microseconds."""
    access_key: str = ""


class ServerFacts(msgspec.Struct, frozen=True):
    """What a probe found out about the server."""

    server: str
    isolates_names: Finding
    probes: tuple[ProbeLine, ...]


@runtime_checkable
class Warns(Protocol):
    """A storage node that has something to tell its owner while it runs."""

    on_warning: Callable[[str, str | None], None]
    """Called with a part's name and a sentence; None: that part is well again."""


class StorageNode(Protocol):
    """A storage server, as its agent uses it. Safe for concurrent use; calls about one holder are the caller's to order."""

    kind: str

    # -------------------------------------------------------------------------------------------------- life

    async def open(self) -> None:
        """Connect. Does not change the server."""

    async def close(self) -> None:
        """Let go of connections."""

    async def probe(self) -> ServerFacts:
        """Try on the server what wio needs, with throwaway objects of its own, and leave nothing behind."""

    async def started(self) -> int | None:
        """Return when the server was last started, in Unix microseconds, or up to a second later: it may count in seconds.

        None where it does not say. Costs next to nothing: it is asked every few seconds.
        """

    # -------------------------------------------------------------------------------------------------- places

    async def check_root(self, root: RootConfig) -> str:
        """Return the root's identity (an opaque string that changes if it is another one); raise RootMissing."""

    async def make_bucket(self, bucket: str) -> None:
        """Make a bucket for a workspace (bucket layout); fine if it is there and ours."""

    # -------------------------------------------------------------------------------------------------- access

    async def create(self, holder: Holder, grants: Sequence[Grant], shared: Sequence[Holder]) -> None:
        """Make a new holder with this access. A person also has what the ``shared`` holders carry, now and later."""

    async def set_access(self, holder: Holder, grants: Sequence[Grant]) -> None:
        """Make the holder's own access exactly this, at once, for every key that is out.

        When this returns, the server has confirmed it. On the way there never more is open than before and after together.
        """

    async def set_shared(self, holder: Holder, shared: Sequence[Holder]) -> None:
        """Change which shared holders count for a person."""

    async def get_access(self, holder: Holder) -> str | None:
        """Return a fingerprint of what the server *actually* allows the holder; None where the holder is not there.

        For comparing with ``fingerprint``: a server restored from its backup must not revive old grants.
        """

    def fingerprint(self, grants: Sequence[Grant]) -> str:
        """Return what ``get_access`` returns where the holder's access is exactly ``grants``."""

    def weigh(self, grants: Sequence[Grant]) -> Weight:
        """Return what a holder with exactly these grants costs. Raises StorageRefused where the server cannot hold them."""

    async def remove(self, holder: Holder) -> None:
        """Remove the holder; its keys are dead when this returns. Fine if it is not there."""

    async def mint(self, holder: Holder, *, life_s: int, narrowing: Narrowing | None) -> Credential:
        """Mint a key of this person that lives ``life_s`` seconds (900 at least on MinIO)."""

    async def attempt(self, credential: Credential, permission: Permission, place: Place, sample: str | None) -> Answered:
        """Try, with a key, what ``permission`` allows at a place, without changing anything there.

        ``sample`` is a key known to exist below the place, if the caller knows one. The request chosen is one whose
        answer differs between allowed and refused: 403 means refused, anything else of 2xx or 404 allowed.
        """

    async def end_uploads(self, places: Sequence[Place], *, begun_before: int) -> int:
        """End multipart uploads in these places that began before Unix microsecond ``begun_before``; return how many.

        They take room that no total counts. What the server does not list is left to the server's own cleaning.
        """

    # -------------------------------------------------------------------------------------------------- index

    def scan(self, root: RootConfig, *, start_after: str = "", prefix: str = "") -> AsyncIterator[list[Entry]]:
        """List a root (or below ``prefix``) in order of the keys' UTF-8 bytes, a page at a time.

        Raises StorageRefused if the server's answer is out of order or repeats itself.
        """

    async def ranges(self, root: RootConfig, prefix: str = "") -> list[str]:
        """Return prefixes (in order) that split the root for parallel scanning; [""] where there is no good split."""

    async def look(self, root: RootConfig, key: str) -> Entry | None:
        """Look at one key with the precision that ``scan`` has; None if it is not there."""

    async def read(self, root: RootConfig, key: str, etag: str, start: int, length: int) -> bytes:
        """Read ``length`` bytes of an object from byte ``start`` on; fewer, or none, where it ends before.

        Raises Conflict where the object is gone, or is not the one with this etag any more (an empty one is not checked),
        NotAllowed where the agent itself may not read it.
        """

    async def tags(self, root: RootConfig, key: str) -> dict[str, str]:
        """Return the storage's own tags of an object; none where this kind of storage has none, or the object is gone.

        Raises NotAllowed where the agent itself may not see them.
        """

    async def watch(
        self,
        roots: Callable[[], Sequence[RootConfig]],
        hint: Callable[[Hint], None],
        call: Callable[[Call], None],
    ) -> None:
        """Report hints and calls until cancelled. May lose some: reconcile repairs."""

    # -------------------------------------------------------------------------------------------------- leaving

    async def remove_orphans(self, keep: Collection[Holder]) -> list[str]:
        """Remove this node's holders that are none of ``keep`` (a lost state directory); one sentence per thing removed."""

    async def leave(self) -> list[str]:
        """Remove everything wio made on this server and nothing else; return one sentence per thing removed."""
