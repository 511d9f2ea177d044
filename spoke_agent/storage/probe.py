"""What a server can do, tried on it rather than read off its version: the probe table.

Works in a throwaway bucket and with a throwaway person, both of which are gone afterwards. Each finding is a line for the
owner: a stable word, yes or no, and a sentence. What could not be tried is ``unknown``, with the reason.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Protocol

from protocol.errors import WioError
from protocol.grants import Grant, Narrowing, Permission
from protocol.messages import Finding, ProbeLine
from spoke_agent.storage.admin import Admin, Info
from spoke_agent.storage.connection import Connection
from spoke_agent.storage.node import Credential, Holder, HolderKind, ServerFacts
from spoke_agent.storage.placing import Naming
from spoke_agent.storage.receiver import Reader, Receiver
from spoke_agent.storage.s3 import FORBIDDEN, S3
from spoke_agent.storage.sigv4 import Key

MAX_VERSIONED: Final = 1000
"""Buckets asked whether they keep versions."""
AT_ONCE: Final = 16
EVENT_S: Final = 5.0
"""How long an audit event may take to arrive."""
_OK: Final = 200
_OPEN: Final = "open/"
_SHUT: Final = "shut/"

Found = tuple[Finding, str]


class Access(Protocol):
    """The part of the node that is tried."""

    async def create(self, holder: Holder, grants: Sequence[Grant], shared: Sequence[Holder]) -> None:
        """As in StorageNode."""

    async def set_access(self, holder: Holder, grants: Sequence[Grant]) -> None:
        """As in StorageNode."""

    async def remove(self, holder: Holder) -> None:
        """As in StorageNode."""

    async def mint(self, holder: Holder, *, life_s: int, narrowing: Narrowing | None) -> Credential:
        """As in StorageNode."""


class Probe:
    """One run of all probes. ``chance`` gives that many random bytes; ``host`` is where to listen for an audit event."""

    def __init__(
        self,
        access: Access,
        connection: Connection,
        naming: Naming,
        *,
        admin: Admin,
        s3: S3,
        host: str,
        chance: Callable[[int], bytes],
    ) -> None:
        self._access = access
        self._connection = connection
        self._admin = admin
        self._s3 = s3
        self._naming = naming
        self._host = host
        self._chance = chance
        self._bucket = naming.probe_start + chance(6).hex()
        self._holder = Holder(HolderKind.PERSON, f"probe_{chance(8).hex()}")
        self._key: Credential | None = None

    async def run(self) -> ServerFacts:
        """Try everything. Raises StorageUnreachable or StorageRefused only where not even the bucket can be made."""
        info = await self._info()
        async with self._bench():
            lines = [
                _line("server-version", await self._tried(self._version(info))),
                _line("assume-role", await self._tried(self._assume_role())),
                _line("narrowed-keys", await self._tried(self._narrowed())),
                _line("isolates-names", isolates := await self._tried(self._isolates_names())),
                _line("denies-service-accounts", await self._tried(self._service_accounts())),
                _line("contains-force-delete", await self._tried(self._force_delete())),
                _line("contains-delete", await self._tried(self._delete_many())),
                _line("live-policies", await self._tried(self._live_policies())),
                _line("audit-webhook", await self._tried(self._audit())),
                _line("versioned-buckets", await self._tried(self._versioned())),
            ]
        version = info.version if info is not None else ""
        return ServerFacts(f"MinIO {version}".strip(), isolates[0], tuple(lines))

    # -------------------------------------------------------------------------------------------------- the bench

    @contextlib.asynccontextmanager
    async def _bench(self) -> AsyncIterator[None]:
        """Make a bucket with a person who may use one folder of it; take both away again whatever happens."""
        await self._s3.make_bucket(self._bucket)
        try:
            for key in (f"{_OPEN}a.txt", f"{_SHUT}b.txt"):
                await self._s3.put(self._bucket, key, b"wio probe")
            await self._access.create(self._holder, [self._grant(_OPEN)], ())
            yield
        finally:
            for step in (self._access.remove(self._holder), self._empty()):
                with contextlib.suppress(WioError):
                    await step

    async def _empty(self) -> None:
        async for page in self._s3.pages(self._bucket):
            for entry in page:
                await self._s3.delete(self._bucket, entry.key)
        await self._s3.drop_bucket(self._bucket)

    def _grant(self, prefix: str) -> Grant:
        return Grant(0, self._bucket, prefix, Permission.WRITE)

    async def _minted(self, narrowing: Narrowing | None = None) -> Credential:
        return await self._access.mint(self._holder, life_s=900, narrowing=narrowing)

    async def _as_person(self) -> tuple[Key, S3]:
        if self._key is None:
            self._key = await self._minted()
        key = Key(self._key.access_key, self._key.secret_key, self._key.session_token)
        return key, S3(self._connection, key)

    async def _tried(self, probing: Awaitable[Found]) -> Found:
        try:
            return await probing
        except WioError as error:
            return Finding.UNKNOWN, f"It could not be tried: {error.message}"

    async def _info(self) -> Info | None:
        with contextlib.suppress(WioError):
            return await self._admin.info()
        return None

    # -------------------------------------------------------------------------------------------------- the probes

    async def _version(self, info: Info | None) -> Found:
        if info is None:
            return Finding.UNKNOWN, "The server does not say what it is."
        return Finding.YES, f"The server calls itself {info.version}, deployment {info.deployment}."

    async def _assume_role(self) -> Found:
        _, person = await self._as_person()
        if await person.status("GET", f"/{self._bucket}/{_OPEN}a.txt") != _OK:
            return Finding.NO, "A short-lived key does not open what its person may read."
        if await person.status("GET", f"/{self._bucket}/{_SHUT}b.txt") != FORBIDDEN:
            return Finding.NO, "A short-lived key opens what its person may not read. Do not use this server."
        return Finding.YES, "Short-lived keys open what their person may read and nothing else."

    async def _narrowed(self) -> Found:
        minted = await self._minted(Narrowing(read_only=True))
        narrow = S3(self._connection, Key(minted.access_key, minted.secret_key, minted.session_token))
        reads = await narrow.status("GET", f"/{self._bucket}/{_OPEN}a.txt") == _OK
        writes = await narrow.status("PUT", f"/{self._bucket}/{_OPEN}c.txt", body=b"x") == _OK
        if reads and not writes:
            return Finding.YES, "A key can be made to do less than its person may."
        return Finding.NO, "A key narrowed to reading is not what it should be; narrowed keys are not offered here."

    async def _isolates_names(self) -> Found:
        _, person = await self._as_person()
        asked = ("list-type", "2"), ("prefix", _SHUT)
        forged = [
            await person.status("GET", f"/{self._bucket}", asked, {"prefix": _OPEN}),
            await person.status("GET", f"/{self._bucket}", [*asked, ("Prefix", _OPEN)]),
            await person.status("GET", f"/{self._bucket}", [("prefix", _OPEN), *asked]),
        ]
        if await person.status("GET", f"/{self._bucket}", asked) != FORBIDDEN:
            return Finding.NO, "Whoever may list one folder of a bucket may list all of it. Contents stay closed."
        if _OK in forged:
            return Finding.NO, (
                "Whoever may list one folder of a bucket can list names in all of it, with a forged request. Contents stay "
                "closed. A bucket for each workspace hides names too."
            )
        return Finding.YES, "Names are hidden from whoever may list another folder of the same bucket."

    async def _service_accounts(self) -> Found:
        key, _ = await self._as_person()
        body = b'{"name":"wio-probe"}'
        if await Admin(self._connection, key).try_service_account(body) == FORBIDDEN:
            return Finding.YES, "A key cannot make itself a permanent one."
        return Finding.NO, "A key may be able to make itself a permanent one. Do not use this server."

    async def _force_delete(self) -> Found:
        _, person = await self._as_person()
        await self._s3.put(self._bucket, f"{_OPEN}deep/x.txt", b"x")
        outside = await person.status("DELETE", f"/{self._bucket}/{_SHUT}", (), {"x-minio-force-delete": "true"})
        kept = await self._s3.find(self._bucket, f"{_SHUT}b.txt") is not None
        if outside != FORBIDDEN or not kept:
            return Finding.NO, "A DELETE of a whole folder reaches outside what its person may write. Do not use this server."
        await person.status("DELETE", f"/{self._bucket}/{_OPEN}deep/", (), {"x-minio-force-delete": "true"})
        purged = await self._s3.find(self._bucket, f"{_OPEN}deep/x.txt") is None
        if purged:
            return Finding.YES, (
                "Whoever may write in a folder can purge it with one call, old versions with it; it stops at the folder. "
                "Buckets with object lock refuse it."
            )
        return Finding.YES, "A DELETE of a whole folder does nothing."

    async def _delete_many(self) -> Found:
        _, person = await self._as_person()
        body = f"<Delete><Object><Key>{_OPEN}../{_SHUT}b.txt</Key></Object></Delete>".encode()
        digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        await person.status("POST", f"/{self._bucket}", [("delete", "")], {"content-md5": digest}, body)
        if await self._s3.find(self._bucket, f"{_SHUT}b.txt") is None:
            return Finding.NO, "Deleting many files at once reaches outside what its person may write. Do not use this server."
        return (
            Finding.YES,
            "Deleting many files at once ends at what its person may write, also by way of a name with .. in it.",
        )

    async def _live_policies(self) -> Found:
        _, person = await self._as_person()
        before = self._connection.clock()
        await self._access.set_access(self._holder, [])
        status = await person.status("GET", f"/{self._bucket}/{_OPEN}a.txt")
        took = (self._connection.clock() - before) / 1000
        if status == FORBIDDEN:
            return Finding.YES, f"Keys that are out obey a change at once: refused after {took:.1f} ms."
        return Finding.NO, "Keys that are out do not obey a change. Revoking would wait for them to expire."

    async def _audit(self) -> Found:
        token = self._chance(16).hex()
        reader = Reader(tuple, lambda _: None, lambda _: None, lambda _: "", self._connection.clock)
        receiver = Receiver(reader, token)
        port = await receiver.start(self._host, 0)
        target = self._naming.probe_target
        try:
            came = receiver.expect()
            await self._admin.set_config(
                f'{target} endpoint="http://{self._host}:{port}/audit" auth_token="{token}" batch_size=1'
            )
            begun = self._connection.clock()
            await self._s3.buckets()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(came.wait(), EVENT_S)
                took = (self._connection.clock() - begun) / 1000
                return Finding.YES, f"The server reports its calls without a restart, the first after {took:.1f} ms."
            return Finding.NO, "The server's audit events do not arrive: changes are found by scanning only."
        finally:
            with contextlib.suppress(WioError):
                await self._admin.drop_config(target)
            await receiver.stop()

    async def _versioned(self) -> Found:
        names = [bucket.name for bucket in await self._s3.buckets()]
        looked = names[:MAX_VERSIONED]
        kept = []
        for at in range(0, len(looked), AT_ONCE):
            some = looked[at : at + AT_ONCE]
            answers = await asyncio.gather(*(self._s3.versioned(name) for name in some))
            kept += [name for name, versioned in zip(some, answers, strict=True) if versioned]
        if not kept and len(looked) < len(names):
            return Finding.UNKNOWN, f"None of the first {MAX_VERSIONED} buckets keeps old versions; the others were not asked."
        if not kept:
            return Finding.NO, "No bucket keeps old versions: what is overwritten or deleted is gone."
        shown = ", ".join(kept[:5]) + (" …" if len(kept) > 5 else "")  # noqa: PLR2004 - as many as fit a line
        return Finding.YES, (
            f"Old versions are kept in {shown}. Whoever may write there can rewrite an old version, or purge a folder with "
            "all versions, unless the bucket has object lock."
        )


def _line(capability: str, found: Found) -> ProbeLine:
    return ProbeLine(capability, found[0], found[1][:500])
