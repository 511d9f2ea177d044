"""A MinIO-family server as a StorageNode: live parents, one compiled policy each (4-storage), the audit webhook for changes.

A *person* is a storage user that only the agent can sign in as; people get keys that the server makes from it and whose every
request it checks against the policies of that user. *Shared* access is a policy of its own, attached beside a person's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Final
from urllib.parse import urlencode

import msgspec

from protocol.errors import BadLifetime, Internal, RootMissing, StorageRefused, WioError
from protocol.grants import Grant, Narrowing, Permission
from protocol.messages import RootConfig
from protocol.names import SEPARATOR, Layout, Place, check_bucket, shown
from spoke_agent.storage import policy
from spoke_agent.storage.admin import Admin
from spoke_agent.storage.connection import Connection, refusal
from spoke_agent.storage.listing import joined, order_of
from spoke_agent.storage.node import Answered, Call, Credential, Entry, Hint, Holder, HolderKind, ServerFacts
from spoke_agent.storage.placing import AGENT, Naming, audit_token, parent_key
from spoke_agent.storage.probe import Probe
from spoke_agent.storage.receiver import Reader, Receiver
from spoke_agent.storage.s3 import S3
from spoke_agent.storage.sigv4 import Key

SHORTEST_KEY_S: Final = 900
"""Seconds; the server refuses shorter ones."""
BEAT_S: Final = 15.0
"""How often the audit stream is checked for life while nothing comes."""
ANSWER_S: Final = 5.0
"""How long an audit event of the agent's own may take."""
BORDERS: Final = 64
"""Prefixes that a root is cut into at most."""

_FORM: Final = {"content-type": "application/x-www-form-urlencoded"}
_STS = {
    name: re.compile(rb"<" + name.encode() + rb">([^<]{1,8192})</")
    for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
}
_NO_UPLOAD: Final = "bm8tc3VjaC11cGxvYWQ"
"""The id of an upload that nobody began."""


class Listening(msgspec.Struct, frozen=True):
    """Where the audit webhook reaches the agent. ``url`` is what the server is told, where that is not ``host:port``."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: any free one."""
    url: str = ""


class _Held(msgspec.Struct):
    """What this process knows that the server has of a holder. Forgotten whenever a write may or may not have arrived."""

    names: tuple[str, ...]
    """Its own policies, in order."""
    shared: tuple[str, ...] = ()
    """Policies of shared holders attached beside them."""
    opened: tuple[policy.Patterns, ...] = ()
    """What each of its own policies opens; empty where that is not known."""


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
        self._master = master
        self._clock = clock
        self._pause = pause
        self._chance = chance
        self._listening = listening
        self._held: dict[str, _Held] = {}
        self._sharing = asyncio.Lock()
        self._parents: dict[str, Key] = {}
        self._absent = False

    # -------------------------------------------------------------------------------------------------- life

    async def open(self) -> None:
        """Connect. Does not change the server."""
        await self._connection.open()

    async def close(self) -> None:
        """Let go of connections."""
        await self._connection.close()

    async def probe(self) -> ServerFacts:
        """Try on the server what wio needs, with a throwaway bucket and user; leave nothing behind."""
        return await Probe(self, self._connection, self._admin, self._s3, self._naming, self._listening.host, self._chance).run()

    # -------------------------------------------------------------------------------------------------- places

    async def check_root(self, root: RootConfig) -> str:
        """Return the root's identity; raise RootMissing.

        With the prefix layout it is when the bucket was made. With the bucket layout buckets come and go: there it is the
        server's deployment, which is made anew when its disks are.
        """
        if root.layout is Layout.BUCKET:
            return f"deployment {(await self._admin.info()).deployment}"
        for bucket in await self._s3.buckets():
            if bucket.name == root.bucket:
                return f"made {bucket.made}"
        raise RootMissing(f"Bucket {root.bucket} is not there.", todo="Check its name, and that the server's disks are mounted.")

    async def make_bucket(self, bucket: str) -> None:
        """Make a bucket for a workspace (bucket layout); fine if it is there and ours."""
        await self._s3.make_bucket(check_bucket(bucket))

    # -------------------------------------------------------------------------------------------------- access

    async def create(self, holder: Holder, grants: Sequence[Grant], shared: Sequence[Holder]) -> None:
        """Make a new holder with this access.

        Policies first, then the user, then both together: at no instant has the user anything but what the policies say,
        and nobody but the agent knows its secret before ``mint``.
        """
        opened = policy.arrange(policy.patterns(grants))
        names = tuple(self._naming.policy(holder.name, number) for number in range(len(opened)))
        self._held.pop(holder.name, None)
        for name, part in zip(names, opened, strict=True):
            await self._admin.put_policy(name, policy.document(part))
        held = _Held(names, opened=opened)
        if holder.kind is HolderKind.PERSON:
            parent = self._parent(holder)
            await self._admin.put_user(parent.access_key, parent.secret_key)
            async with self._sharing:
                held.shared = await self._shared_names(shared)
                await self._admin.attach(parent.access_key, (*held.names, *held.shared))
        self._held[holder.name] = held

    async def set_access(self, holder: Holder, grants: Sequence[Grant]) -> None:
        """Make the holder's own access exactly this, at once, for every key that is out.

        What a policy opens now and may go on opening stays in it, so nothing moves from one to another; those that lose
        something are written first.
        """
        held = await self._hold(holder)
        opened = policy.arrange(policy.patterns(grants), held.opened)
        names = tuple(self._naming.policy(holder.name, number) for number in range(len(opened)))
        order = sorted(range(len(opened)), key=lambda n: n >= len(held.opened) or held.opened[n] <= opened[n])
        self._held.pop(holder.name, None)
        for number in order:
            await self._admin.put_policy(names[number], policy.document(opened[number]))
        if names != held.names:
            await self._reattach(holder, held, names)
        held.names, held.opened = names, opened
        self._held[holder.name] = held

    async def set_shared(self, holder: Holder, shared: Sequence[Holder]) -> None:
        """Change which shared holders count for a person."""
        held = await self._hold(holder)
        async with self._sharing:
            names = await self._shared_names(shared)
            self._held.pop(holder.name, None)
            await self._admin.attach(self._naming.user(holder.name), (*held.names, *names))
        held.shared = names
        self._held[holder.name] = held

    async def get_access(self, holder: Holder) -> str | None:
        """Return a fingerprint of what the server actually allows the holder; None where the holder is not there.

        Asks the server for everything, and keeps nothing of what this process believed before.
        """
        self._held.pop(holder.name, None)
        strange: list[bytes] = []
        if holder.kind is HolderKind.PERSON:
            user = await self._admin.user(self._naming.user(holder.name))
            if user is None:
                return None
            own = tuple(name for name in user.policies if self._naming.holder(name) == holder.name)
            # A disabled user, or a policy that is not ours, makes it another access than any that wio grants.
            strange = [f"foreign {name}".encode() for name in user.policies if not self._naming.holder(name)]
            strange += [] if user.enabled else [b"disabled"]
        else:
            own = await self._own_policies(holder)
            if not own:
                return None
        documents = [await self._admin.policy(name) or f"missing {name}".encode() for name in own]
        return policy.fingerprint([*documents, *strange])

    def fingerprint(self, grants: Sequence[Grant]) -> str:
        """Return what ``get_access`` returns where the holder's access is exactly ``grants``."""
        return policy.fingerprint(policy.document(part) for part in policy.arrange(policy.patterns(grants)))

    async def remove(self, holder: Holder) -> None:
        """Remove the holder; its keys are dead when this returns. Fine if it is not there."""
        self._held.pop(holder.name, None)
        if holder.kind is HolderKind.PERSON:
            user = self._naming.user(holder.name)
            there = await self._admin.user(user)
            await self._admin.drop_user(user)
            self._parents.pop(holder.name, None)
            names = {self._naming.policy(holder.name, 0), *(await self._own_policies(holder))}
            names |= {name for name in (there.policies if there else ()) if self._naming.holder(name) == holder.name}
        else:
            async with self._sharing:
                names = set(await self._own_policies(holder))
                await self._detach_everywhere(names, ())
        for name in sorted(names):
            await self._admin.drop_policy(name)

    async def mint(self, holder: Holder, *, life_s: int, narrowing: Narrowing | None) -> Credential:
        """Mint a key of this person: one call, signed with the parent's own key. Raises BadLifetime below 900 seconds."""
        if life_s < SHORTEST_KEY_S:
            raise BadLifetime(
                f"A key cannot live {life_s} seconds on this server.", todo=f"Ask for at least {SHORTEST_KEY_S} seconds."
            )
        form = {"Action": "AssumeRole", "Version": "2011-06-15", "DurationSeconds": str(life_s)}
        session = policy.narrowed(narrowing) if narrowing is not None else None
        if session is not None:
            form["Policy"] = session.decode()
        body = urlencode(form).encode()
        reply = await self._connection.ask(self._parent(holder), "POST", "/", (), body, service="sts", headers=_FORM)
        if not reply.ok:
            raise refusal(reply, "mint a key")
        found = {name: match.group(1).decode() for name, pattern in _STS.items() if (match := pattern.search(reply.body))}
        try:
            expires = int(dt.datetime.fromisoformat(found["Expiration"]).timestamp())
            return Credential(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], expires)
        except (KeyError, ValueError):
            raise StorageRefused("The storage server answered to AssumeRole without a key.") from None

    async def attempt(self, credential: Credential, permission: Permission, place: Place, sample: str | None) -> Answered:
        """Try with a key what ``permission`` allows at a place, without changing anything there.

        Reading: HEAD of the sample, or of a key that is not there (404 where reading and listing are allowed). Writing:
        ending an upload that nobody began (204 where allowed). 403 is the refusal of either.
        """
        key = Key(credential.access_key, credential.secret_key, credential.session_token)
        target = sample if sample is not None else f"{place.key}.wio-{self._chance(8).hex()}"
        read = permission is Permission.READ
        method = "HEAD" if read else "DELETE"
        at = self._clock()
        reply = await self._connection.ask(
            key, method, f"/{place.bucket}/{target}", () if read else [("uploadId", _NO_UPLOAD)]
        )
        words = method if read else "ABORT"
        return Answered(f"{words} {place.bucket}/{shown(target)[1:-1]}"[:300], reply.status, at)

    # -------------------------------------------------------------------------------------------------- index

    async def scan(self, root: RootConfig, *, start_after: str = "", prefix: str = "") -> AsyncIterator[list[Entry]]:
        """List a root (or below ``prefix``) in order of the keys' UTF-8 bytes, a page at a time."""
        last = start_after
        async for page in self._pages(root, start_after, prefix):
            for entry in page:
                if entry.key <= last:
                    raise StorageRefused(
                        f"The storage server listed {shown(entry.key)} after {shown(last)}: its listing is out of order.",
                        todo="Check the server, and what stands between it and the agent.",
                    )
                last = entry.key
            yield page

    async def _pages(self, root: RootConfig, start_after: str, prefix: str) -> AsyncIterator[list[Entry]]:
        for bucket, front, behind in await self._parts(root):
            part = joined(front, behind, prefix, start_after)
            if part is None:
                continue
            pages = self._s3.pages(bucket, prefix=part.prefix, start_after=part.start_after)
            try:
                async for page in pages:
                    yield page if not front and not behind else [_renamed(entry, front, len(behind)) for entry in page]
            except RootMissing:
                if root.layout is Layout.PREFIX:
                    raise
                # A workspace's bucket that went away meanwhile is an empty part of its root.
            finally:
                await pages.aclose()

    async def _parts(self, root: RootConfig) -> list[tuple[str, str, str]]:
        """Return the root's buckets in order of its keys: bucket, what keys in the root begin with, what is cut off theirs."""
        if root.layout is Layout.PREFIX:
            return [(root.bucket, "", root.prefix)]
        start = root.bucket + SEPARATOR
        fronts = [bucket.name[len(start) :] for bucket in await self._s3.buckets() if bucket.name.startswith(start)]
        return [(start + front, front + "/", "") for front in sorted(fronts, key=order_of)]

    async def ranges(self, root: RootConfig, prefix: str = "") -> list[str]:
        """Return prefixes (in order) that split the root; [""] where there is no good split. At most a few requests."""
        if root.layout is Layout.BUCKET:
            fronts = [front for _, front, _ in await self._parts(root)]
            return _thinned([front for front in fronts if front.startswith(prefix)])
        top = prefix
        for _ in range(3):
            folders, _ = await self._s3.level(root.bucket, root.prefix + top, 2)
            if len(folders) != 1:
                break
            top = folders[0][len(root.prefix) :]
        return _thinned(sorted(folder[len(root.prefix) :] for folder in folders))

    async def look(self, root: RootConfig, key: str) -> Entry | None:
        """Look at one key with the precision that ``scan`` has; None if it is not there.

        A hit costs one request that is as cheap as a HEAD. A miss costs a listing of its folder, so while keys turn out
        to be gone (a folder being deleted) a HEAD comes first.
        """
        place = _located(root, key)
        if self._absent and not await self._there(root, place):
            return None
        try:
            entry = await self._s3.find(place.bucket, place.key)
        except RootMissing:
            if root.layout is Layout.PREFIX:
                raise
            entry = None
        self._absent = entry is None
        return None if entry is None else Entry(key, entry.size, entry.mtime, entry.etag)

    async def _there(self, root: RootConfig, place: Place) -> bool:
        try:
            return await self._s3.exists(place.bucket, place.key)
        except RootMissing:
            if root.layout is Layout.PREFIX:
                raise
            return False

    async def watch(
        self,
        roots: Callable[[], Sequence[RootConfig]],
        hint: Callable[[Hint], None],
        call: Callable[[Call], None],
    ) -> None:
        """Report hints and calls until cancelled; the server is then told to send no more. May lose some.

        Raises StorageUnreachable if the address to listen at is not free.
        """
        reader = Reader(roots, hint, call, self._naming.holder, self._clock)
        receiver = Receiver(reader, audit_token(self._master))
        port = await receiver.start(self._listening.host, self._listening.port)
        try:
            await self._point_at(port)
            while True:
                await self._pause(BEAT_S)
                await self.check_stream(reader, receiver, port)
        finally:
            with contextlib.suppress(WioError, TimeoutError):
                await asyncio.wait_for(self._admin.drop_config(self._naming.target), ANSWER_S)
            await receiver.stop()

    async def check_stream(self, reader: Reader, receiver: Receiver, port: int) -> bool:
        """Make an audit event and see that it comes; else point the server here again. Say whether all was well.

        A server that was restored or whose settings were reset has forgotten where to send: what it did meanwhile is lost,
        so every root is hinted as a whole.
        """
        came = receiver.expect()
        try:
            await self._s3.buckets()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(came.wait(), ANSWER_S)
                return True
            await self._point_at(port)
        except WioError:
            return False  # it does not answer at all: the next beat asks again
        reader.all_dirty()
        return False

    async def _point_at(self, port: int) -> None:
        host = self._listening.host
        url = self._listening.url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
        await self._admin.set_config(
            f'{self._naming.target} endpoint="{url.rstrip("/")}/audit" auth_token="{audit_token(self._master)}" batch_size=1'
        )

    # -------------------------------------------------------------------------------------------------- leaving

    async def leave(self) -> list[str]:
        """Remove everything wio made on this server but the agent's own user; return one sentence per thing removed.

        That user is removed with the owner's key (``joining.remove_agent_user``): nobody saws off the branch they sit on.
        """
        removed = []
        if await self._admin.drop_config(self._naming.target):
            removed.append(f"The setting {self._naming.target}: the server sends its audit events here no longer.")
        removed += await self.remove_orphans(())
        for bucket in await self._s3.buckets():
            if bucket.name.startswith(self._naming.probe_start):
                await self._clear(bucket.name)
                removed.append(f"The probe bucket {bucket.name}.")
        return removed

    async def remove_orphans(self, keep: Collection[Holder]) -> list[str]:
        """Remove this node's storage users and policies that belong to none of ``keep``; one sentence per thing removed.

        Takes some 150 ms and 64 MiB: for starting and leaving.
        """
        kept = {holder.name for holder in keep} | {AGENT}
        removed = []
        for user in sorted(await self._admin.users()):
            holder = self._naming.holder(user)
            if holder and holder not in kept:
                await self._admin.drop_user(user)
                self._held.pop(holder, None)
                removed.append(f"The storage user {user}.")
        gone = {name for name in await self._admin.policies() if (holder := self._naming.holder(name)) and holder not in kept}
        if gone:
            async with self._sharing:
                left = {name for name in sorted(gone) if not await self._admin.drop_policy(name)}
                await self._detach_everywhere(left, ())
                for name in left:
                    await self._admin.drop_policy(name)
        return removed + [f"The access policy {name}." for name in sorted(gone)]

    async def _clear(self, bucket: str) -> None:
        async for page in self._s3.pages(bucket):
            for entry in page:
                await self._s3.delete(bucket, entry.key)
        await self._s3.drop_bucket(bucket)

    # -------------------------------------------------------------------------------------------------- what is there

    def _parent(self, holder: Holder) -> Key:
        if holder.kind is not HolderKind.PERSON:
            raise Internal("Keys are minted for persons only.")
        kept = self._parents.get(holder.name)
        if kept is None:
            kept = self._parents[holder.name] = parent_key(self._master, self._naming.user(holder.name))
        return kept

    async def _hold(self, holder: Holder) -> _Held:
        """Return what the server has of a holder, from memory or from the server. Raises StorageRefused if it has none."""
        held = self._held.get(holder.name)
        if held is not None:
            return held
        if holder.kind is HolderKind.PERSON:
            user = await self._admin.user(self._naming.user(holder.name))
            attached = user.policies if user is not None else ()
            names = tuple(name for name in attached if self._naming.holder(name) == holder.name)
            shared = tuple(name for name in attached if self._naming.holder(name) not in {"", holder.name})
            there = user is not None
        else:
            names, shared = await self._own_policies(holder), ()
            there = bool(names)
        if not there:
            raise StorageRefused(f"The storage server does not know holder {holder.name}.", todo="It has to be made again.")
        return _Held(names, shared)

    async def _own_policies(self, holder: Holder) -> tuple[str, ...]:
        names = []
        for number in range(policy.MAX_POLICIES):
            name = self._naming.policy(holder.name, number)
            if await self._admin.policy(name) is None:
                break
            names.append(name)
        return tuple(names)

    async def _shared_names(self, shared: Sequence[Holder]) -> tuple[str, ...]:
        return tuple([name for one in shared for name in (await self._hold(one)).names])

    async def _reattach(self, holder: Holder, held: _Held, names: tuple[str, ...]) -> None:
        """Attach the policies a holder has now, and delete those it has no longer."""
        surplus = set(held.names) - set(names)
        if holder.kind is HolderKind.PERSON:
            await self._admin.attach(self._naming.user(holder.name), (*names, *held.shared))
        else:
            async with self._sharing:
                await self._detach_everywhere(set(held.names), names)
        for name in sorted(surplus):
            await self._admin.drop_policy(name)

    async def _detach_everywhere(self, old: set[str], new: tuple[str, ...]) -> None:
        """Give everybody who has any of the ``old`` policies the ``new`` ones in their place. Slow, and rare."""
        if not old:
            return
        for name, user in (await self._admin.users()).items():
            if not old.isdisjoint(user.policies):
                rest = tuple(one for one in user.policies if one not in old and one not in new)
                await self._admin.attach(name, (*rest, *new))
                self._held.pop(self._naming.holder(name), None)


def _located(root: RootConfig, key: str) -> Place:
    if root.layout is Layout.PREFIX:
        return Place(root.bucket, root.prefix + key)
    front, _, rest = key.partition("/")
    return Place(root.bucket + SEPARATOR + front, rest)


def _renamed(entry: Entry, front: str, cut: int) -> Entry:
    return Entry(front + entry.key[cut:], entry.size, entry.mtime, entry.etag)


def _thinned(prefixes: list[str]) -> list[str]:
    """Return at most ``BORDERS`` of them, evenly chosen; [""] where fewer than two would split nothing."""
    if len(prefixes) < 2:  # noqa: PLR2004 - one prefix splits nothing
        return [""]
    step = -(-len(prefixes) // BORDERS)
    return prefixes[::step]
