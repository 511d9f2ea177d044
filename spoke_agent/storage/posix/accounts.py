"""Who has access on a directory node: holders, the throwaway accounts that carry it, and the policies that say what they open.

A key is an account of the gateway with a random name, used once. The policy of a bucket names the accounts that live; it is a
file that the gateway reads at every request, replaced whole, so a change acts on every key that is out, also while the gateway
is not there to be told. Policies and the gateway's list of accounts are made from the records at every start.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from protocol.errors import BadLifetime, DiskFull, StorageRefused, WioError
from protocol.grants import Grant, Narrowing, Permission
from spoke_agent.storage.node import Credential, Holder, HolderKind
from spoke_agent.storage.policy import Patterns
from spoke_agent.storage.posix import policies
from spoke_agent.storage.posix.exports import Exports
from spoke_agent.storage.posix.gateway_admin import GatewayAdmin
from spoke_agent.storage.posix.records import AccountRecord, HolderRecord, Records
from spoke_agent.storage.posix.serving import Owner

SHORTEST_KEY_S: Final = 900
"""As on the other kind of node: tools fetch keys that live shorter at every request (4-storage)."""
LONGEST_WAIT_S: Final = 30.0
"""How long it is slept at most before the clock is looked at again: it may have jumped."""
RETRY_S: Final = 2.0
_SECRET_TAG: Final = b"wio gateway account v1\0"
_US: Final = 1_000_000


class _Held(msgspec.Struct):
    """A holder as this process knows it."""

    holder: Holder
    grants: tuple[Grant, ...]
    shared: tuple[str, ...]
    accounts: dict[str, AccountRecord] = {}
    cached: dict[Narrowing | None, Patterns] = {}
    """What its keys open, by how they are narrowed; emptied when it changes."""


class Accounts:
    """Holders and accounts of one gateway. ``sidecar`` is its folder, in which policies lie; ``iam`` that of its accounts."""

    def __init__(
        self,
        records: Records,
        admin: GatewayAdmin,
        exports: Exports,
        *,
        sidecar: Path,
        iam: Path,
        owner: Owner | None,
        master: bytes,
        clock: Callable[[], int],
        chance: Callable[[int], bytes],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._records = records
        self._admin = admin
        self._exports = exports
        self._sidecar = sidecar
        self._iam = iam
        self._owner = owner
        self._master = master
        self._clock = clock
        self._chance = chance
        self._pause = pause
        self._held: dict[str, _Held] = {}
        self._by_key: dict[str, str] = {}
        self._dirty: set[str] = set()
        self._refused: dict[str, tuple[str, ...]] = {}
        self._writing = asyncio.Lock()
        self._sooner = asyncio.Event()

    # -------------------------------------------------------------------------------------------------- life

    async def open(self) -> None:
        """Read the records. Raises BadSetting, DiskFull."""
        loaded = await self._records.open()
        self._held = {one.holder.name: _Held(one.holder, one.grants, one.shared) for one in loaded.holders}
        now, over = self._now, []
        for account in loaded.accounts:
            held = self._held.get(account.holder)
            if held is None or account.expires <= now:
                over.append(account.access_key)
            else:
                held.accounts[account.access_key] = account
        self._by_key = {key: held.holder.name for held in self._held.values() for key in held.accounts}
        self._refused = dict(loaded.refused)
        await self._records.drop_accounts(over)

    async def close(self) -> None:
        """Close the records."""
        await self._records.close()

    async def restore(self) -> None:
        """Write policies and the list of accounts anew, from the records. Only while the gateway does not run."""
        owner = self._owner or Owner(0, 0)
        numbers = {"userID": owner.uid, "groupID": owner.gid, "projectID": 0}
        users = {key: {"access": key, "secret": self.secret(key), "role": "user", **numbers} for key in self._by_key}
        await asyncio.to_thread(_replace, self._iam / "users.json", json.dumps({"accessAccounts": users}).encode())
        with contextlib.suppress(FileNotFoundError):
            (self._iam / "users.json.backup").unlink()
        await self.rewrite([export.bucket for export in self._exports])

    async def expire(self) -> None:
        """End accounts when their time is over, until cancelled."""
        while True:
            self._sooner.clear()
            try:
                wait = await self.expire_once()
            except WioError:
                wait = RETRY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._sooner.wait()

    async def expire_once(self) -> float:
        """End the accounts whose time is over; return in how many seconds to come again."""
        now = self._now
        over = [key for held in self._held.values() for key, account in held.accounts.items() if account.expires <= now]
        if over:
            await self._end(over)
        ends = [account.expires for held in self._held.values() for account in held.accounts.values()]
        left = min(ends, default=now + LONGEST_WAIT_S) - self._clock() / _US
        return min(max(left, 0.0), LONGEST_WAIT_S)

    # -------------------------------------------------------------------------------------------------- holders

    async def create(self, holder: Holder, grants: Sequence[Grant], shared: Sequence[Holder]) -> None:
        """Make a new holder with this access. It has no account before its first key."""
        policies.check_number(grants)
        held = _Held(holder, tuple(grants), tuple(one.name for one in shared))
        await self._records.keep_holder(HolderRecord(holder, held.grants, held.shared))
        self._held[holder.name] = held

    async def set_access(self, holder: Holder, grants: Sequence[Grant]) -> None:
        """Make the holder's own access exactly this, at once, for every key that is out."""
        held = self._known(holder)
        policies.check_number(grants)
        await self._change(held, tuple(grants), held.shared)

    async def set_shared(self, holder: Holder, shared: Sequence[Holder]) -> None:
        """Change which shared holders count for a person."""
        held = self._known(holder)
        await self._change(held, held.grants, tuple(one.name for one in shared))

    async def remove(self, holder: Holder) -> None:
        """Remove the holder; its keys are dead when this returns. Fine if it is not there."""
        held = self._held.pop(holder.name, None)
        await self._records.drop_holder(holder.name)
        if held is None:
            return
        if holder.kind is HolderKind.SHARED:
            self._forget_cached()
        await self.rewrite(_buckets(held.grants) if holder.kind is HolderKind.SHARED else self._touched(held))
        for key in held.accounts:
            self._by_key.pop(key, None)
        await self._delete(held.accounts)

    async def get_access(self, holder: Holder) -> str | None:
        """Return a fingerprint of what the gateway's policies allow the holder; None where it is not known here.

        Policies are made for all holders together: one that is not as it was made is another access for everybody in it.
        """
        held = self._held.get(holder.name)
        if held is None:
            return None
        strange = []
        await self.rewrite(self._dirty)
        async with self._writing:
            for bucket in [export.bucket for export in self._exports]:
                actual = await asyncio.to_thread(_read, self._policy(bucket))
                if bucket not in self._dirty and actual != self._document(bucket):
                    self._dirty.add(bucket)
                    strange.append(bucket)
        return policies.fingerprint(held.grants, strange=strange)

    async def remove_orphans(self, keep: Collection[Holder]) -> list[str]:
        """Remove holders that are none of ``keep``, and accounts that are nobody's; one sentence per thing removed."""
        names = {holder.name for holder in keep}
        removed = []
        for held in [held for held in self._held.values() if held.holder.name not in names]:
            await self.remove(held.holder)
            removed.append(f"The access of {held.holder.name}, with {len(held.accounts)} keys.")
        for key in await self._admin.names():
            if key not in self._by_key:
                await self._admin.delete(key)
                removed.append(f"The account {key} of the gateway.")
        return removed

    def holder(self, access_key: str) -> str:
        """Return the name of the holder behind a key that is out; empty if it is none."""
        return self._by_key.get(access_key, "")

    # -------------------------------------------------------------------------------------------------- keys

    async def mint(self, holder: Holder, *, life_s: int, narrowing: Narrowing | None) -> Credential:
        """Make a key: an account that lives ``life_s`` seconds. Raises BadLifetime below 900."""
        if life_s < SHORTEST_KEY_S:
            raise BadLifetime(
                f"A key cannot live {life_s} seconds on this node.", todo=f"Ask for at least {SHORTEST_KEY_S} seconds."
            )
        held = self._known(holder)
        self._opened(held, narrowing)  # refuses what cannot be
        key = "WIO" + base64.b32encode(self._chance(12)).decode().rstrip("=")
        account = AccountRecord(key, holder.name, self._now + life_s, narrowing)
        await self._records.keep_account(account)
        try:
            await self._admin.create(key, self.secret(key))
        except WioError:
            with contextlib.suppress(WioError):
                await self._admin.delete(key)
            await self._records.drop_accounts([key])
            raise
        held.accounts[key] = account
        self._by_key[key] = holder.name
        if self._held.get(holder.name) is not held:
            held.accounts.pop(key)
            self._by_key.pop(key)
            await self._delete([key])
            self._known(holder)
        await self.rewrite({one.bucket for one in self._opened(held, narrowing)})
        self._sooner.set()
        return Credential(key, self.secret(key), "", account.expires)

    def secret(self, access_key: str) -> str:
        """Derive the secret of an account from the node's master key: 240 bits, letters, digits, ``-`` and ``_``."""
        return base64.urlsafe_b64encode(hmac.digest(self._master, _SECRET_TAG + access_key.encode(), "sha256")).decode()[:40]

    async def _end(self, keys: Sequence[str]) -> None:
        """End accounts: first no policy names them, then the gateway forgets them, then the records."""
        buckets: set[str] = set()
        gone: list[tuple[_Held, AccountRecord]] = []
        for key in keys:
            held = self._held.get(self._by_key.get(key, ""))
            if held is not None and key in held.accounts:
                buckets |= {one.bucket for one in self._opened(held, held.accounts[key].narrowing)}
                gone.append((held, held.accounts.pop(key)))
        try:
            await self.rewrite(buckets)
        except WioError:
            for held, account in gone:
                held.accounts.setdefault(account.access_key, account)
            raise
        await self._delete(keys)
        for key in keys:
            self._by_key.pop(key, None)

    async def _delete(self, keys: Iterable[str]) -> None:
        """Have the gateway forget accounts that no policy names. Those it does not forget now open nothing; its start does."""
        for key in list(keys):
            with contextlib.suppress(WioError):
                await self._admin.delete(key)
        await self._records.drop_accounts(list(keys))

    # -------------------------------------------------------------------------------------------------- policies

    async def rewrite(self, buckets: Iterable[str]) -> None:
        """Make the policies of these buckets say what is known now. Those that came meanwhile are done with them."""
        wanted = set(buckets) & {export.bucket for export in self._exports}
        self._dirty = (self._dirty | wanted) & {export.bucket for export in self._exports}
        async with self._writing:
            for bucket in sorted(wanted):
                if bucket in self._dirty:
                    self._dirty.discard(bucket)
                    try:
                        await asyncio.to_thread(_replace, self._policy(bucket), self._document(bucket))
                    except OSError as error:
                        self._dirty.add(bucket)
                        raise DiskFull(
                            f"The policy of bucket {bucket} could not be written: {error.strerror}.",
                            todo="Make room on the disk with the agent's state directory.",
                        ) from error

    async def refuse(self, bucket: str, keys: Collection[str]) -> None:
        """Let nobody get at these keys of a bucket, whatever they may else do there."""
        wanted = tuple(sorted(keys))
        if wanted != self._refused.get(bucket, ()):
            self._refused[bucket] = wanted
            await self.rewrite([bucket])
            await self._records.keep_refused(bucket, wanted)

    def refused(self, bucket: str) -> tuple[str, ...]:
        """Return the keys of a bucket that nobody gets at."""
        return self._refused.get(bucket, ())

    def granted(self, bucket: str) -> list[str]:
        """Return the folders of a bucket that are granted to anybody."""
        return sorted({grant.prefix for held in self._held.values() for grant in held.grants if grant.bucket == bucket})

    def writable(self, bucket: str) -> list[str]:
        """Return the folders of a bucket that somebody may write to."""
        grants = (grant for held in self._held.values() for grant in held.grants if grant.bucket == bucket)
        return sorted({grant.prefix for grant in grants if grant.permission is Permission.DROP or grant.permission.writes})

    async def _change(self, held: _Held, grants: tuple[Grant, ...], shared: tuple[str, ...]) -> None:
        """Change what a holder has. Buckets in which something is taken away come first."""
        await self._records.keep_holder(HolderRecord(held.holder, grants, shared))
        had = self._opened(held, None)
        held.grants, held.shared = grants, shared
        held.cached.clear()
        if held.holder.kind is HolderKind.SHARED:
            self._forget_cached()
        has = self._opened(held, None)
        self._dirty |= {one.bucket for one in had ^ has}
        await self.rewrite({one.bucket for one in had - has})
        await self.rewrite(self._dirty)

    def _touched(self, held: _Held) -> set[str]:
        return {one.bucket for one in self._opened(held, None)}

    def _document(self, bucket: str) -> bytes:
        accounts: dict[str, Patterns] = {}
        for held in self._held.values():
            for key, account in held.accounts.items():
                accounts[key] = self._opened(held, account.narrowing)
        return policies.document(bucket, accounts, self._refused.get(bucket, ()))

    def _opened(self, held: _Held, narrowing: Narrowing | None) -> Patterns:
        """Return what a key of a holder opens: its own grants and those of the shared holders that count for it."""
        found = held.cached.get(narrowing)
        if found is None:
            shared = [self._held[name] for name in held.shared if name in self._held]
            grants = [*held.grants, *(grant for one in shared for grant in one.grants)]
            found = held.cached[narrowing] = policies.opened(grants, narrowing)
        return found

    def _forget_cached(self) -> None:
        for held in self._held.values():
            held.cached.clear()

    def _policy(self, bucket: str) -> Path:
        return self._sidecar / bucket / "meta" / "policy"

    def _known(self, holder: Holder) -> _Held:
        try:
            return self._held[holder.name]
        except KeyError:
            raise StorageRefused(f"The gateway does not know holder {holder.name}.") from None

    @property
    def _now(self) -> int:
        return self._clock() // _US


def _buckets(grants: Iterable[Grant]) -> set[str]:
    return {grant.bucket for grant in grants}


def _replace(path: Path, body: bytes) -> None:
    """Replace a file as a whole: who reads it sees the old one or the new one."""
    beside = path.with_name(f".{path.name}.wio")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(body)
    beside.replace(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
