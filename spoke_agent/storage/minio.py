"""A MinIO-family server as a StorageNode: wires the parts that know how (4-storage has the facts they are built on)."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Final

from protocol.grants import Grant, Narrowing, Permission
from protocol.messages import RootConfig
from protocol.names import Place, check_bucket, shown
from spoke_agent.storage import policy
from spoke_agent.storage.admin import Admin
from spoke_agent.storage.connection import Connection
from spoke_agent.storage.node import Answered, Call, Credential, Entry, Hint, Holder, ServerFacts, Weight
from spoke_agent.storage.parents import Parents
from spoke_agent.storage.placing import Naming, audit_token
from spoke_agent.storage.probe import Probe
from spoke_agent.storage.receiver import Reader
from spoke_agent.storage.roots import Roots
from spoke_agent.storage.s3 import S3
from spoke_agent.storage.sigv4 import Key
from spoke_agent.storage.stream import Listening, Stream

_NO_UPLOAD: Final = "bm8tc3VjaC11cGxvYWQ"
"""The id of an upload that nobody began."""
_READING: Final = ("HEAD", "HEAD", ())
_ADDING: Final = ("PUT", "PUT", (("partNumber", "1"), ("uploadId", _NO_UPLOAD)))
_TRIALS: Final[dict[Permission, tuple[str, str, tuple[tuple[str, str], ...]]]] = {
    Permission.READ: _READING,
    Permission.TIDY: ("ABORT", "DELETE", (("uploadId", _NO_UPLOAD),)),
    Permission.DROP: _ADDING,
    Permission.WRITE: _ADDING,
    Permission.MANAGE: _ADDING,
}
"""How each permission is tried: in words, and as a request."""


class MinioNode:
    """A server of the MinIO family. ``key`` is the agent's own user, ``master`` the node's master key, ``node`` its name.

    ``clock`` gives Unix microseconds, ``pause`` waits seconds, ``chance`` gives that many random bytes.
    """

    kind = "minio"

    def __init__(
        self,
        url: str,
        *,
        key: Key,
        master: bytes,
        node: str,
        clock: Callable[[], int],
        pause: Callable[[float], Awaitable[None]],
        chance: Callable[[int], bytes],
        region: str = "us-east-1",
        listening: Listening = Listening(),  # noqa: B008 - frozen
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._connection = Connection(url, region=region, clock=clock, trust=trust)
        self._admin = Admin(self._connection, key)
        self._s3 = S3(self._connection, key)
        self._naming = Naming(node)
        self._parents = Parents(self._connection, self._admin, self._naming, master)
        self._roots = Roots(self._s3, self._admin)
        self._stream = Stream(self._admin, self._s3, target=self._naming.target, token=audit_token(master), listening=listening)
        self._listening = listening
        self._clock = clock
        self._pause = pause
        self._chance = chance
        self._says_uptime = False
        """Whether this server says how long it has run: all do but in their first second, as far as is known."""

    # -------------------------------------------------------------------------------------------------- life

    async def open(self) -> None:
        """Connect. Does not change the server."""
        await self._connection.open()

    async def close(self) -> None:
        """Let go of connections."""
        await self._connection.close()

    async def probe(self) -> ServerFacts:
        """Try on the server what wio needs, with a throwaway bucket and user; leave nothing behind."""
        probe = Probe(
            self._parents,
            self._connection,
            self._naming,
            admin=self._admin,
            s3=self._s3,
            host=self._listening.host,
            chance=self._chance,
        )
        return await probe.run()

    async def started(self) -> int | None:
        """Return when the server (of several the youngest) was last started, in Unix microseconds, or up to a second later.

        None where it does not say.
        """
        uptime_s = (await self._admin.info()).uptime_s
        self._says_uptime = self._says_uptime or uptime_s > 0
        return self._clock() - uptime_s * 1_000_000 if self._says_uptime else None

    # -------------------------------------------------------------------------------------------------- places

    async def check_root(self, root: RootConfig) -> str:
        """Return the root's identity; raise RootMissing."""
        return await self._roots.check_root(root)

    async def make_bucket(self, bucket: str) -> None:
        """Make a bucket for a workspace (bucket layout); fine if it is there and ours."""
        await self._s3.make_bucket(check_bucket(bucket))

    # -------------------------------------------------------------------------------------------------- access

    async def create(self, holder: Holder, grants: Sequence[Grant], shared: Sequence[Holder]) -> None:
        """Make a new holder with this access."""
        await self._parents.create(holder, grants, shared)

    async def set_access(self, holder: Holder, grants: Sequence[Grant]) -> None:
        """Make the holder's own access exactly this, at once, for every key that is out."""
        await self._parents.set_access(holder, grants)

    async def set_shared(self, holder: Holder, shared: Sequence[Holder]) -> None:
        """Change which shared holders count for a person."""
        await self._parents.set_shared(holder, shared)

    async def get_access(self, holder: Holder) -> str | None:
        """Return a fingerprint of what the server actually allows the holder; None where it is not there."""
        return await self._parents.get_access(holder)

    def fingerprint(self, grants: Sequence[Grant]) -> str:
        """Return what ``get_access`` returns where the holder's access is exactly ``grants``."""
        return policy.fingerprint(policy.document(part) for part in policy.arrange(policy.patterns(grants)))

    def weigh(self, grants: Sequence[Grant]) -> Weight:
        """Return what a holder with exactly these grants costs."""
        wanted = policy.patterns(grants)
        return Weight(len(wanted), len(policy.arrange(wanted)))

    async def remove(self, holder: Holder) -> None:
        """Remove the holder; its keys are dead when this returns. Fine if it is not there."""
        await self._parents.remove(holder)

    async def mint(self, holder: Holder, *, life_s: int, narrowing: Narrowing | None) -> Credential:
        """Mint a key of this person that lives ``life_s`` seconds; raises BadLifetime below 900."""
        return await self._parents.mint(holder, life_s=life_s, narrowing=narrowing)

    async def attempt(self, credential: Credential, permission: Permission, place: Place, sample: str | None) -> Answered:
        """Try with a key what ``permission`` allows at a place, without changing anything there.

        Reading: HEAD of the sample, or of a key that is not there (404 where reading and listing are allowed). Adding:
        a part, without a byte, of an upload that nobody began (404 where PutObject is allowed). Tidying: ending such an upload
        (204 where allowed). 403 is the refusal of each.
        """
        key = Key(credential.access_key, credential.secret_key, credential.session_token)
        target = sample if sample is not None else f"{place.key}.wio-{self._chance(8).hex()}"
        words, method, query = _TRIALS[permission]
        at = self._clock()
        reply = await self._connection.ask(key, method, f"/{place.bucket}/{target}", query)
        return Answered(f"{words} {place.bucket}/{shown(target)[1:-1]}"[:300], reply.status, at)

    async def end_uploads(self, places: Sequence[Place], *, begun_before: int) -> int:
        """End multipart uploads in these places that began before Unix microsecond ``begun_before``; return how many.

        The server lists those that were begun since it was started. Older ones it lists for an exact key only (measured),
        and ends itself a day after they began (its setting ``api stale_uploads_expiry``).
        """
        ended = 0
        for bucket in sorted({place.bucket for place in places}):
            folders = tuple(place.key for place in places if place.bucket == bucket)
            for upload in await self._s3.uploads(bucket):
                if upload.key.startswith(folders) and upload.begun < begun_before:
                    await self._s3.end_upload(bucket, upload)
                    ended += 1
        return ended

    # -------------------------------------------------------------------------------------------------- index

    def scan(self, root: RootConfig, *, start_after: str = "", prefix: str = "") -> AsyncIterator[list[Entry]]:
        """List a root (or below ``prefix``) in order of the keys' UTF-8 bytes, a page at a time."""
        return self._roots.scan(root, start_after=start_after, prefix=prefix)

    async def ranges(self, root: RootConfig, prefix: str = "") -> list[str]:
        """Return prefixes (in order) that split the root; [""] where there is no good split."""
        return await self._roots.ranges(root, prefix)

    async def look(self, root: RootConfig, key: str) -> Entry | None:
        """Look at one key with the precision that ``scan`` has; None if it is not there."""
        return await self._roots.look(root, key)

    async def read(self, root: RootConfig, key: str, etag: str, start: int, length: int) -> bytes:
        """Read a piece of an object, if it still is the one with this etag. Raises Conflict, NotAllowed."""
        return await self._roots.read(root, key, etag, start, length)

    async def tags(self, root: RootConfig, key: str) -> dict[str, str]:
        """Return an object's tags. Raises NotAllowed."""
        return await self._roots.tags(root, key)

    async def watch(
        self,
        roots: Callable[[], Sequence[RootConfig]],
        hint: Callable[[Hint], None],
        call: Callable[[Call], None],
    ) -> None:
        """Report hints and calls until cancelled; the server is then told to send no more. May lose some.

        Raises StorageUnreachable if the address to listen at is not free, or the server does not answer at the start.
        """
        await self._stream.run(Reader(roots, hint, call, self._naming.holder, self._clock), self._pause)

    # -------------------------------------------------------------------------------------------------- leaving

    async def leave(self) -> list[str]:
        """Remove everything wio made on this server but the agent's own user; return one sentence per thing removed.

        That user is removed with the owner's key (``joining.remove_agent_user``): nobody saws off the branch they sit on.
        """
        removed = []
        if await self._admin.drop_config(self._naming.target):
            removed.append(f"The setting {self._naming.target}: the server sends its audit events here no longer.")
        await self._admin.drop_config(self._naming.probe_target)  # there only if a probe was killed in the middle
        removed += await self._parents.remove_orphans(())
        for bucket in await self._s3.buckets():
            if bucket.name.startswith(self._naming.probe_start):
                await self._clear(bucket.name)
                removed.append(f"The probe bucket {bucket.name}.")
        return removed

    async def remove_orphans(self, keep: Collection[Holder]) -> list[str]:
        """Remove this node's storage users and policies that belong to none of ``keep``; one sentence per thing removed.

        Takes some 150 ms and 64 MiB: for starting and leaving.
        """
        return await self._parents.remove_orphans(keep)

    async def _clear(self, bucket: str) -> None:
        async for page in self._s3.pages(bucket):
            for entry in page:
                await self._s3.delete(bucket, entry.key)
        await self._s3.drop_bucket(bucket)
