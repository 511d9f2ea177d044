"""A plain directory as a StorageNode: a gateway that serves it over S3, and the file system itself to look at it.

People come through the gateway, with accounts and policies that are made here. The agent looks at the tree directly: no
listing over S3 is as fast. Nothing in the tree is changed but by what people write.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from protocol.errors import StorageRefused, StorageUnreachable
from protocol.grants import Grant, Narrowing, Permission
from protocol.messages import RootConfig
from protocol.names import Layout, Place, check_bucket, shown
from spoke_agent.storage.connection import Connection
from spoke_agent.storage.node import Answered, Call, Credential, Entry, Hint, Holder, ServerFacts, Weight
from spoke_agent.storage.posix import gateway as gateways
from spoke_agent.storage.posix import policies
from spoke_agent.storage.posix.accounts import Accounts
from spoke_agent.storage.posix.events import Events
from spoke_agent.storage.posix.exports import Export, Exports
from spoke_agent.storage.posix.gateway import Gateway
from spoke_agent.storage.posix.gateway_admin import GatewayAdmin
from spoke_agent.storage.posix.probe import Probe
from spoke_agent.storage.posix.records import Records
from spoke_agent.storage.posix.serving import Serving
from spoke_agent.storage.posix.sidecar import Sidecar
from spoke_agent.storage.posix.tree import Tree
from spoke_agent.storage.posix.watch import Watch
from spoke_agent.storage.s3 import S3
from spoke_agent.storage.sigv4 import Key

FOLDER: Final = "gateway"
"""The gateway's folder in the state directory."""
_NO_UPLOAD: Final = "no-such-upload-7f2c"
_READING: Final = ("HEAD", "HEAD", ())
_ADDING: Final = ("PUT", "PUT", (("partNumber", "1"), ("uploadId", _NO_UPLOAD)))
_TRIALS: Final[dict[Permission, tuple[str, str, tuple[tuple[str, str], ...]]]] = {
    Permission.READ: _READING,
    Permission.TIDY: ("ABORT", "DELETE", (("uploadId", _NO_UPLOAD),)),
    Permission.DROP: _ADDING,
    Permission.WRITE: _ADDING,
    Permission.MANAGE: _ADDING,
}
"""How each permission is tried: in words, and as a request. None of them changes anything."""
_LAYOUT: Final = "Give the root the prefix layout: workspaces are folders then, and names are kept apart here."
_EVENTS_TAG: Final = b"wio gateway events v1\0"


class PosixNode:
    """Directories of one owner, served by one gateway.

    ``folder`` is the gateway's own in the state directory; ``key`` is the one it takes admin calls with; ``master`` is the
    node's master key. Without the agent the gateway ends after ``outlive_s`` seconds. ``clock`` gives Unix microseconds,
    ``pause`` waits seconds, ``chance`` gives that many random bytes.
    """

    kind = "directory"

    def __init__(
        self,
        folder: Path,
        exports: Sequence[Export],
        serving: Serving,
        *,
        outlive_s: float,
        key: Key,
        master: bytes,
        clock: Callable[[], int],
        pause: Callable[[float], Awaitable[None]],
        chance: Callable[[int], bytes],
        polling: bool | None = None,
    ) -> None:
        self.exports = Exports(exports)
        self._key = key
        self._clock = clock
        self._pause = pause
        self._chance = chance
        self._version = ""
        self.gateway = Gateway(
            folder,
            serving,
            outlive_s=outlive_s,
            key=key,
            program=self._program,
            answers=self._answers,
            clock=clock,
            pause=pause,
        )
        self._connection = Connection(address(serving), region=serving.region, clock=clock, trust=trust(serving))
        self._local = Connection("http://gateway", region=serving.region, clock=clock, socket=self.gateway.admin)
        self._s3 = S3(self._connection, key)
        self.sidecar = Sidecar(self.gateway.sidecar)
        self._accounts = Accounts(
            Records(folder / "gateway.sqlite"),
            GatewayAdmin(self._local, key, serving.owner),
            self.exports,
            sidecar=self.gateway.sidecar,
            iam=self.gateway.accounts,
            owner=serving.owner,
            master=master,
            clock=clock,
            chance=chance,
            pause=pause,
        )
        token = hmac.digest(master, _EVENTS_TAG, "sha256").hex()
        self._events = Events(token, holder=self._accounts.holder, clock=clock)
        self._tree = Tree(self.exports, self.sidecar, spaces=self._accounts.granted, writable=self._accounts.writable)
        self._tree.on_refused = self._refuse
        self._watch = Watch(self.exports, pause=pause, polling=polling)
        self._watch.on_warning = lambda bucket, sentence: self.on_warning(f"changes in {bucket}", sentence)
        self._tree.on_tend_failed = self._untended
        self.on_warning: Callable[[str, str | None], None] = lambda _part, _sentence: None
        self._ending: asyncio.Task[None] | None = None
        self._refusing: asyncio.Task[None] | None = None

    # -------------------------------------------------------------------------------------------------- life

    async def open(self) -> None:
        """Read what is on disk and start the gateway. Does not raise where that cannot start yet: it is tried again.

        Raises BadSetting or DiskFull for a state directory that cannot be used.
        """
        self.gateway.prepare()
        await self._accounts.open()
        for export in self.exports:
            self._tree.remember(export.bucket, self._accounts.refused(export.bucket))
        await self._connection.open()
        await self._local.open()
        self.gateway.events = await self._events.start()
        self.gateway.before = self._before
        self._ending = asyncio.create_task(self._accounts.expire())
        await self.gateway.start()

    async def close(self) -> None:
        """End the gateway and let go."""
        ending, self._ending = self._ending, None
        if ending is not None:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        await self.gateway.stop()
        await self._events.stop()
        await self._local.close()
        await self._connection.close()
        await self._tree.close()
        if self._refusing is not None:
            await asyncio.gather(self._refusing, return_exceptions=True)
        await self._accounts.close()

    async def probe(self) -> ServerFacts:
        """Try what the gateway can do, in a folder of the state directory; look for what is odd in the tree."""
        self.gateway.check()
        probe = Probe(
            self._accounts,
            self._connection,
            self._events,
            self.exports,
            self.gateway.serving,
            folder=self.gateway.folder / "probe",
            version=self._version,
            serve=self.serve,
            unserve=self.unserve,
            chance=self._chance,
        )
        return await probe.run()

    async def started(self) -> int | None:
        """Return when the gateway was last started, in Unix microseconds."""
        self.gateway.check()
        return self.gateway.started

    # -------------------------------------------------------------------------------------------------- places

    async def check_root(self, root: RootConfig) -> str:
        """Return the root's identity; raise RootMissing, and StorageRefused for the bucket layout."""
        if root.layout is not Layout.PREFIX:
            raise StorageRefused(
                f"Root {root.name} has the bucket layout, and a directory node makes no buckets.", todo=_LAYOUT
            )
        return await self._tree.check_root(root)

    async def make_bucket(self, bucket: str) -> None:
        """Refuse: which directories are served, and as what, is the owner's to say."""
        check_bucket(bucket)
        raise StorageRefused(
            f"A directory node makes no buckets, and {bucket} would be one.",
            todo=_LAYOUT,
        )

    async def serve(self, export: Export) -> None:
        """Serve one more directory. Its policy lets nobody in yet."""
        check_bucket(export.bucket)
        self.exports.add(export)
        await asyncio.to_thread(self._link, export)
        await self._accounts.rewrite([export.bucket])

    async def unserve(self, bucket: str) -> None:
        """Serve a directory no longer, and forget what was kept of it; the directory stays as it is."""
        self.exports.remove(bucket)
        with contextlib.suppress(FileNotFoundError):
            (self.gateway.buckets / bucket).unlink()
        await asyncio.to_thread(self.sidecar.forget, bucket)

    # -------------------------------------------------------------------------------------------------- access

    async def create(self, holder: Holder, grants: Sequence[Grant], shared: Sequence[Holder]) -> None:
        """Make a new holder with this access."""
        self.gateway.check()
        fresh = await self._regrant(grants)
        await self._accounts.create(holder, grants, shared)
        self._tend(fresh)

    async def set_access(self, holder: Holder, grants: Sequence[Grant]) -> None:
        """Make the holder's own access exactly this, at once, for every key that is out.

        Also while the gateway does not run: it reads what was written then when it does.
        """
        fresh = await self._regrant(grants)
        await self._accounts.set_access(holder, grants)
        self._tend(fresh)

    async def set_shared(self, holder: Holder, shared: Sequence[Holder]) -> None:
        """Change which shared holders count for a person."""
        await self._accounts.set_shared(holder, shared)

    async def get_access(self, holder: Holder) -> str | None:
        """Return a fingerprint of what the gateway's policies allow the holder; None where it is not there."""
        return await self._accounts.get_access(holder)

    def fingerprint(self, grants: Sequence[Grant]) -> str:
        """Return what ``get_access`` returns where the holder's access is exactly ``grants``."""
        return policies.fingerprint(grants)

    def weigh(self, grants: Sequence[Grant]) -> Weight:
        """Return what a holder with exactly these grants costs: they all stand in one policy per directory."""
        return Weight(policies.check_number(grants), 1)

    async def remove(self, holder: Holder) -> None:
        """Remove the holder; its keys are dead when this returns. Fine if it is not there."""
        await self._accounts.remove(holder)

    async def mint(self, holder: Holder, *, life_s: int, narrowing: Narrowing | None) -> Credential:
        """Make a key of this person: an account that the agent ends when its life is over. Raises BadLifetime below 900 s."""
        self.gateway.check()
        return await self._accounts.mint(holder, life_s=life_s, narrowing=narrowing)

    async def attempt(self, credential: Credential, permission: Permission, place: Place, sample: str | None) -> Answered:
        """Try with a key what ``permission`` allows at a place, without changing anything there.

        Reading: HEAD of the sample, or of a key that is not there. Adding: a part, without a byte, of an upload that nobody
        began. Tidying: ending such an upload. 404 where it is allowed, 403 where not.
        """
        self.gateway.check()
        key = Key(credential.access_key, credential.secret_key)
        target = sample if sample is not None else f"{place.key}.wio-{self._chance(8).hex()}"
        words, method, query = _TRIALS[permission]
        at = self._clock()
        reply = await self._connection.ask(key, method, f"/{place.bucket}/{target}", query)
        return Answered(f"{words} {place.bucket}/{shown(target)[1:-1]}"[:300], reply.status, at)

    async def end_uploads(self, places: Sequence[Place], *, begun_before: int) -> int:
        """End multipart uploads in these places that began before Unix microsecond ``begun_before``; return how many."""
        self.gateway.check()
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
        return self._tree.scan(root, start_after=start_after, prefix=prefix)

    async def ranges(self, root: RootConfig, prefix: str = "") -> list[str]:
        """Return prefixes (in order) that split the root; [""] where there is no good split."""
        return await self._tree.ranges(root, prefix)

    async def look(self, root: RootConfig, key: str) -> Entry | None:
        """Look at one key with the precision that ``scan`` has; None if it is not there."""
        return await self._tree.look(root, key)

    async def read(self, root: RootConfig, key: str, etag: str, start: int, length: int) -> bytes:
        """Read a piece of a file, if it still is the one with this etag. Raises Conflict, NotAllowed."""
        return await self._tree.read(root, key, etag, start, length)

    async def tags(self, root: RootConfig, key: str) -> dict[str, str]:
        """Return the tags that were given to a file through the gateway."""
        return await self._tree.tags(root, key)

    async def watch(
        self,
        roots: Callable[[], Sequence[RootConfig]],
        hint: Callable[[Hint], None],
        call: Callable[[Call], None],
    ) -> None:
        """Report hints until cancelled: from the file system, and from the gateway who wrote. Reads are not reported."""
        heard = self._events.watch(roots, hint, call)
        try:
            await self._watch.run(roots, hint)
        finally:
            self._events.unwatch(heard)

    # -------------------------------------------------------------------------------------------------- leaving

    async def remove_orphans(self, keep: Collection[Holder]) -> list[str]:
        """Remove holders that are none of ``keep`` and accounts that are nobody's; one sentence per thing removed."""
        self.gateway.check()
        return await self._accounts.remove_orphans(keep)

    async def leave(self) -> list[str]:
        """End the gateway and remove everything it kept, here and in the tree; one sentence per thing removed.

        The node is of no use afterwards but to be closed.
        """
        ending, self._ending = self._ending, None
        if ending is not None:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        await self.gateway.stop()
        await self._accounts.close()
        removed = []
        for export in list(self.exports):
            directory = Path(export.directory)
            removed += await asyncio.to_thread(self.sidecar.clean, export.bucket, directory)
        if self.gateway.folder.exists():
            await asyncio.to_thread(shutil.rmtree, self.gateway.folder)
            removed.append(f"{self.gateway.folder}: the gateway's accounts, policies and notes.")
        return removed

    # -------------------------------------------------------------------------------------------------- the gateway

    def _untended(self, error: Exception | None) -> None:
        said = None if error is None else f"What the gateway says of files changed on disk is not kept right: {error}"
        self.on_warning("etags", said)

    async def _regrant(self, grants: Sequence[Grant]) -> list[Place]:
        """Refuse links that lead out of what is to be granted, before it is: they were fine for whoever had both.

        Returns the folders that nobody could write to so far.
        """
        fresh = []
        for bucket in sorted({grant.bucket for grant in grants}):
            here = [grant for grant in grants if grant.bucket == bucket]
            writable = tuple(self._accounts.writable(bucket))
            adding = {grant.prefix for grant in here if grant.permission is Permission.DROP or grant.permission.writes}
            fresh += [Place(bucket, prefix) for prefix in sorted(adding) if not (writable and prefix.startswith(writable))]
            with contextlib.suppress(StorageRefused, StorageUnreachable):  # a directory that is gone is given to nobody
                await self._tree.regrant(bucket, {grant.prefix for grant in here})
        if self._refusing is not None:
            await asyncio.gather(self._refusing, return_exceptions=True)
        return fresh

    def _tend(self, places: Sequence[Place]) -> None:
        """Give files etags that somebody may write over from now on."""
        for place in places:
            self._tree.tend(place.bucket, place.key)

    def _refuse(self, bucket: str, keys: frozenset[str]) -> None:
        """Have the gateway serve these to nobody: links that lead elsewhere, FIFOs, devices, sockets."""
        before = self._refusing

        async def work() -> None:
            if before is not None:
                await asyncio.gather(before, return_exceptions=True)
            await self._accounts.refuse(bucket, keys)

        self._refusing = asyncio.create_task(work())

    def _program(self) -> str:
        program = gateways.find(os.environ)
        self._version = gateways.check_version(program)
        return program

    async def _answers(self) -> None:
        """Ask the gateway something with the agent's own key, on both its ways: no other one can answer that."""
        await self._s3.buckets()
        reply = await self._local.ask(self._key, "PATCH", "/list-buckets")
        if not reply.ok:
            raise StorageUnreachable("Another gateway than this node's answers.")

    async def _before(self) -> None:
        """Make what the gateway reads at its start: links, access lists, policies, accounts."""
        await asyncio.to_thread(self._relink)
        await self._accounts.restore()

    def _relink(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            Path(self.gateway.admin).unlink()
        served = {export.bucket for export in self.exports}
        for found in self.gateway.buckets.iterdir():
            if found.is_symlink() and found.name not in served:
                found.unlink()
                self.sidecar.forget(found.name)
        for export in self.exports:
            self._link(export)

    def _link(self, export: Export) -> None:
        """Seed a bucket and make its link: the access list is there before it is served."""
        self.sidecar.seed(export.bucket)
        link = self.gateway.buckets / export.bucket
        if link.is_symlink() and str(link.readlink()) == export.directory:
            return
        beside = self.gateway.buckets / f".{export.bucket}.new"
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        beside.symlink_to(export.directory, target_is_directory=True)
        beside.replace(link)


def address(serving: Serving) -> str:
    """Return the address at which the agent itself reaches the gateway."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(serving.host, serving.host)  # noqa: S104 - read
    return f"{'https' if serving.certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{serving.port}"


def trust(serving: Serving) -> ssl.SSLContext | None:
    """Trust exactly the gateway's own certificate, whatever name it was made for: the agent knows where it goes."""
    if not serving.certificate:
        return None
    context = ssl.create_default_context(cafile=serving.certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
