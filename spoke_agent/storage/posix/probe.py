"""What a directory node can do, tried on its gateway: the probe table. Nothing of it happens in the owner's tree.

The trying is done in a bucket of its own, a folder in the state directory, with throwaway people. What the owner's tree holds
that is dangerous or odd to serve is looked for and listed.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

from protocol.errors import WioError
from protocol.grants import Grant, Narrowing, Permission
from protocol.messages import Finding, ProbeLine
from spoke_agent.storage.connection import Connection, Query
from spoke_agent.storage.node import Credential, Holder, HolderKind, ServerFacts
from spoke_agent.storage.posix import oddities
from spoke_agent.storage.posix.accounts import Accounts
from spoke_agent.storage.posix.events import Events
from spoke_agent.storage.posix.exports import Export, Exports
from spoke_agent.storage.posix.serving import Serving
from spoke_agent.storage.sigv4 import Key

EVENT_S: Final = 5.0
LOOKED_AT: Final = 200_000
"""Entries of each directory that are looked at for oddities: a second's work. Joining looks at all of them."""
_OK: Final = 200
_FORBIDDEN: Final = 403
_OPEN: Final = "open/"
_SHUT: Final = "shut/"

Found = tuple[Finding, str]


class Probe:
    """One run of all probes. ``folder`` is for its bucket; ``serve`` and ``unserve`` have the gateway serve one."""

    def __init__(
        self,
        accounts: Accounts,
        connection: Connection,
        events: Events,
        exports: Exports,
        serving: Serving,
        *,
        folder: Path,
        version: str,
        serve: Callable[[Export], Awaitable[None]],
        unserve: Callable[[str], Awaitable[None]],
        chance: Callable[[int], bytes],
    ) -> None:
        self._accounts = accounts
        self._connection = connection
        self._events = events
        self._served = tuple(exports)
        self._serving = serving
        self._bucket = f"wio-probe-{chance(6).hex()}"
        self._folder = folder / self._bucket
        self._version = version
        self._serve = serve
        self._unserve = unserve
        self._holder = Holder(HolderKind.PERSON, f"probe_{chance(8).hex()}")
        self._key: Credential | None = None

    async def run(self) -> ServerFacts:
        """Try everything. Raises StorageUnreachable where the gateway does not answer."""
        async with self._bench():
            lines = [
                _line("server-version", (Finding.YES, f"The gateway is versitygw {self._version}.")),
                _line("throwaway-accounts", await self._tried(self._throwaway())),
                _line(
                    "session-tokens",
                    (Finding.NO, "Keys have two parts and no session token: each is an account that the agent ends in time."),
                ),
                _line("narrowed-keys", await self._tried(self._narrowed())),
                _line("isolates-names", isolates := await self._tried(self._isolates_names())),
                _line("denies-admin-calls", await self._tried(self._admin_calls())),
                _line("denies-own-files", await self._tried(self._own_files())),
                _line("live-policies", await self._tried(self._live_policies())),
                _line("write-events", await self._tried(self._write_events())),
                _line("read-events", (Finding.NO, "The gateway does not report who reads what in a way that keeps secrets.")),
                _line("owner-of-files", await self._tried(self._owner_of_files())),
            ]
        lines += [_line("directory", await self._directory(export)) for export in self._served]
        return ServerFacts(f"versitygw {self._version}", isolates[0], tuple(lines))

    # -------------------------------------------------------------------------------------------------- the bench

    @contextlib.asynccontextmanager
    async def _bench(self) -> AsyncIterator[None]:
        try:
            for folder in (_OPEN, _SHUT):
                (self._folder / folder).mkdir(parents=True)
            for name in (f"{_OPEN}a.txt", f"{_SHUT}b.txt"):
                (self._folder / name).write_bytes(b"wio probe")
            await self._serve(Export(self._bucket, str(self._folder)))
            await self._accounts.create(self._holder, [Grant(0, self._bucket, _OPEN, Permission.WRITE)], ())
            self._key = await self._minted()
            yield
        finally:
            for step in (self._accounts.remove(self._holder), self._unserve(self._bucket)):
                with contextlib.suppress(WioError):
                    await step
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _minted(self, narrowing: Narrowing | None = None) -> Credential:
        return await self._accounts.mint(self._holder, life_s=900, narrowing=narrowing)

    async def _status(
        self, method: str, path: str, query: Query = (), *, body: bytes = b"", headers: dict[str, str] | None = None,
        key: Credential | None = None,
    ) -> int:  # fmt: skip
        found = key or self._key
        if found is None:  # pragma: no cover - the bench makes it
            return 0
        signing = Key(found.access_key, found.secret_key)
        where = f"/{self._bucket}{'/' if path else ''}{path}"
        return (await self._connection.ask(signing, method, where, query, body, headers=headers)).status

    async def _tried(self, probing: Awaitable[Found]) -> Found:
        try:
            return await probing
        except (WioError, OSError) as error:
            said = error.message if isinstance(error, WioError) else str(error)
            return Finding.UNKNOWN, f"It could not be tried: {said}"

    # -------------------------------------------------------------------------------------------------- the probes

    async def _throwaway(self) -> Found:
        if await self._status("GET", f"{_OPEN}a.txt") != _OK:
            return Finding.NO, "A key does not open what its person may read."
        if await self._status("GET", f"{_SHUT}b.txt") != _FORBIDDEN:
            return Finding.NO, "A key opens what its person may not read. Do not use this gateway."
        return Finding.YES, "Keys open what their person may read and nothing else."

    async def _narrowed(self) -> Found:
        narrow = await self._minted(Narrowing(read_only=True))
        reads = await self._status("GET", f"{_OPEN}a.txt", key=narrow) == _OK
        writes = await self._status("PUT", f"{_OPEN}c.txt", body=b"x", key=narrow) == _OK
        if reads and not writes:
            return Finding.YES, "A key can be made to do less than its person may."
        return Finding.NO, "A key narrowed to reading is not what it should be; narrowed keys are not offered here."

    async def _isolates_names(self) -> Found:
        asked = ("list-type", "2"), ("prefix", _SHUT)
        forged = [
            await self._status("GET", "", asked, headers={"prefix": _OPEN}),
            await self._status("GET", "", [*asked, ("Prefix", _OPEN)]),
            await self._status("GET", "", asked),
            await self._status("GET", "", [("list-type", "2"), ("prefix", f"{_OPEN}../{_SHUT}")]),
        ]
        if _OK in forged[:3]:
            return Finding.NO, "Whoever may list one folder can list names in all of the bucket. Contents stay closed."
        return Finding.YES, "Names are hidden from whoever may list another folder of the same bucket."

    async def _admin_calls(self) -> Found:
        key = self._key
        if key is None:  # pragma: no cover - the bench makes it
            return Finding.UNKNOWN, "There was no key."
        reply = await self._connection.ask(Key(key.access_key, key.secret_key), "PATCH", "/list-users")
        if reply.ok:
            return Finding.NO, "A key may manage accounts. Do not use this gateway."
        return Finding.YES, "A key cannot make itself a permanent one: accounts are managed on a socket of the agent's own."

    async def _own_files(self) -> Found:
        wide = Holder(HolderKind.PERSON, f"{self._holder.name}_wide")
        await self._accounts.create(wide, [Grant(0, self._bucket, "", Permission.WRITE)], ())
        try:
            key = await self._accounts.mint(wide, life_s=900, narrowing=None)
            names = ("meta/acl", "meta/policy", ".sgwtmp/x", f"{_OPEN}../meta/acl", f"{_OPEN}meta/etag")
            answers = [await self._status("PUT", name, body=b"x", key=key) for name in names]
        finally:
            await self._accounts.remove(wide)
        if all(400 <= answer < 500 for answer in answers):  # noqa: PLR2004 - a refusal
            return Finding.YES, "Nobody can write over what the gateway keeps of its own."
        return Finding.NO, "Whoever may write to a whole directory can write over the gateway's own files. Share folders only."

    async def _live_policies(self) -> Found:
        before = self._connection.clock()
        await self._accounts.set_access(self._holder, [])
        status = await self._status("GET", f"{_OPEN}a.txt")
        took = (self._connection.clock() - before) / 1000
        await self._accounts.set_access(self._holder, [Grant(0, self._bucket, _OPEN, Permission.WRITE)])
        if status == _FORBIDDEN:
            return Finding.YES, f"Keys that are out obey a change at once: refused after {took:.1f} ms."
        return Finding.NO, "Keys that are out do not obey a change. Revoking would wait for them to expire."

    async def _write_events(self) -> Found:
        before, begun = self._events.received, self._connection.clock()
        if await self._status("PUT", f"{_OPEN}d.txt", body=b"x") != _OK:
            return Finding.UNKNOWN, "It could not be tried: a file could not be written."
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EVENT_S):
                while self._events.received == before:  # noqa: ASYNC110 - what is waited for happens in the gateway
                    await asyncio.sleep(0.002)
            took = (self._connection.clock() - begun) / 1000
            return Finding.YES, f"The gateway reports who writes what, the first after {took:.1f} ms."
        return Finding.NO, "The gateway's events do not arrive: it is not known who wrote what."

    async def _owner_of_files(self) -> Found:
        owner = self._serving.owner
        if await self._status("PUT", f"{_OPEN}e.txt", body=b"x") != _OK:
            if owner is not None:
                return Finding.NO, f"Files cannot be given to {owner.uid}:{owner.gid}: that needs root, or CAP_CHOWN."
            return Finding.UNKNOWN, "It could not be tried: a file could not be written."
        found = (self._folder / _OPEN / "e.txt").stat()
        said = f"Files that people upload belong to {found.st_uid}:{found.st_gid} with mode {found.st_mode & 0o7777:04o}."
        if owner is not None and (found.st_uid, found.st_gid) != (owner.uid, owner.gid):
            return Finding.NO, f"{said} They were to belong to {owner.uid}:{owner.gid}."
        return Finding.YES, said

    async def _directory(self, export: Export) -> Found:
        try:
            found = await asyncio.to_thread(oddities.find, Path(export.directory), LOOKED_AT)
        except (OSError, NotImplementedError) as error:
            return Finding.UNKNOWN, f"{export.directory} could not be looked at: {error}"
        what = "; ".join(f"{one.count} {one.what} ({', '.join(one.samples[:2])})" for one in found.found)
        end = "" if found.whole else f" among the first {found.looked_at} entries"
        refused = any(one.refused for one in found.found)
        said = f"{export.directory} is bucket {export.bucket}. "
        if not what:
            return Finding.YES, f"{said}Nothing odd in it{end}."
        return (Finding.NO if refused else Finding.YES), f"{said}In it{end}: {what}."


def _line(capability: str, found: Found) -> ProbeLine:
    return ProbeLine(capability, found[0], found[1][:500])
