"""A storage server in memory that evaluates grants for every request, can fail or be restored, and an agent's access on it."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.errors import RootMissing, StorageRefused, UnknownRoot
from protocol.grants import Grant, GrantSet, Narrowing, Permission, SignedGrantSet, Subject, SubjectKind, sign_set
from protocol.identity import new_key, public_bytes, to_text
from protocol.messages import GrantsApplied, GrantsRefused, IndexLevel, Mint, RootConfig, SetGrants
from protocol.names import Layout, Place
from protocol.sealing import ClearCredential, Context, client_key, open_sealed
from spoke_agent.access.access import Access
from spoke_agent.access.reach import missing
from spoke_agent.access.state import NodeSettings, Secrets, StateDirectory, StorageSettings
from spoke_agent.storage.node import Answered, Credential, Holder, Weight

NODE = 77
HUB = new_key(bytes(range(32)))
ALICE = Subject(SubjectKind.PERSON, 1, "alice")
BOB = Subject(SubjectKind.PERSON, 2, "bob")
STAFF = Subject(SubjectKind.GROUP, 31, "staff")
EVERYONE = Subject(SubjectKind.EVERYONE, 0, "everyone")
START = 1_800_000_000
DAY = 86_400
WHOLE = Narrowing()


class Killed(BaseException):
    """The process ends here."""


class MemoryStorage:
    """Holders, keys, and requests that are judged by what the holder may do at that very moment."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.now = now
        self.access: dict[str, tuple[Grant, ...]] = {}
        self.shared: dict[str, tuple[str, ...]] = {}
        self.keys: dict[str, tuple[str, int, Narrowing]] = {}
        self.buckets = {"lab", "open"}
        self.numbers = itertools.count(1)
        self.fault: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None
        self.calls: list[str] = []

    def _call(self, what: str) -> None:
        self.calls.append(what)
        self.fault(what)

    def copied(self) -> object:
        return copy.deepcopy((self.access, self.shared))

    def restore(self, backup: object) -> None:
        self.access, self.shared = copy.deepcopy(backup)  # type: ignore[misc]  # what ``copied`` gave

    # ------------------------------------------------------------------------------- StorageNode, its access part

    async def remove_orphans(self, keep: Collection[Holder]) -> list[str]:
        self._call("remove_orphans")
        orphans = self.access.keys() - {holder.name for holder in keep}
        for name in orphans:
            del self.access[name]
        return [f"Holder {name}." for name in orphans]

    async def create(self, holder: Holder, grants: Sequence[Grant], shared: Sequence[Holder]) -> None:
        self._call("create")
        assert holder.name not in self.access, "a name is never used twice"
        self.access[holder.name] = tuple(grants)
        self.shared[holder.name] = tuple(one.name for one in shared)
        self.after("create")

    async def set_access(self, holder: Holder, grants: Sequence[Grant]) -> None:
        self._call("set_access")
        if holder.name not in self.access:
            raise StorageRefused("There is no such holder.")
        self.access[holder.name] = tuple(grants)
        self.after("set_access")

    async def set_shared(self, holder: Holder, shared: Sequence[Holder]) -> None:
        self._call("set_shared")
        self.shared[holder.name] = tuple(one.name for one in shared)
        self.after("set_shared")

    async def get_access(self, holder: Holder) -> str | None:
        self._call("get_access")
        found = self.access.get(holder.name)
        return self.fingerprint(found) if found is not None else None

    def fingerprint(self, grants: Sequence[Grant]) -> str:
        return hashlib.sha256(repr(sorted(map(repr, grants))).encode()).hexdigest()

    def weigh(self, grants: Sequence[Grant]) -> Weight:
        return Weight(len(grants), 1 + len(grants) // 150)

    async def end_uploads(self, places: Sequence[Place], *, begun_before: int) -> int:
        self._call("end_uploads")
        assert begun_before < self.now() * 1_000_000
        return len(places)

    async def remove(self, holder: Holder) -> None:
        self._call("remove")
        self.access.pop(holder.name, None)
        self.after("remove")

    async def mint(self, holder: Holder, *, life_s: int, narrowing: Narrowing | None) -> Credential:
        self._call("mint")
        if holder.name not in self.access:
            raise StorageRefused("There is no such holder.")
        name = f"KEY{next(self.numbers)}"
        self.keys[name] = (holder.name, self.now() + life_s, narrowing or Narrowing())
        self.after("mint")
        return Credential(name, f"secret-of-{name}", "token", self.now() + life_s)

    async def attempt(self, credential: Credential, permission: Permission, place: Place, sample: str | None) -> Answered:
        self._call("attempt")
        status = 200 if self.opens(credential.access_key, place.bucket, sample or place.key, permission) else 403
        return Answered(f"{permission} {place.bucket}/{place.key}", status, self.now() * 1_000_000)

    async def started(self) -> int | None:
        self._call("started")
        return (START - 100) * 1_000_000

    async def check_root(self, root: RootConfig) -> str:
        if root.bucket not in self.buckets:
            raise RootMissing(f"Bucket {root.bucket} is not there.")
        return root.bucket

    async def make_bucket(self, bucket: str) -> None:
        self.buckets.add(bucket)

    # ------------------------------------------------------------------------------- what a holder of a key sees

    def opens(self, access_key: str, bucket: str, key: str, permission: Permission = Permission.READ) -> bool:
        holder, expires, narrowing = self.keys[access_key]
        if expires <= self.now() or holder not in self.access:
            return False
        if narrowing.places and not any(bucket == b and key.startswith(p) for b, p in narrowing.places):
            return False
        if narrowing.read_only and permission is not Permission.READ:
            return False
        grants = [g for name in (holder, *self.shared[holder]) for g in self.access.get(name, ())]
        folder = key[: key.rfind("/") + 1]
        return not missing([Grant(0, bucket, folder, permission)], grants)


def grant(prefix: str, permission: Permission = Permission.READ, *, bucket: str = "lab", expires: int | None = None) -> Grant:
    return Grant(abs(hash((bucket, prefix))) % 1000 + 1, bucket, prefix, permission, expires)


async def minting(access: Access, node_key: Ed25519PrivateKey, request: Mint) -> ClearCredential:
    """Do what a client, a hub and an agent do for one key; the client's own key is made here."""
    private = X25519PrivateKey.generate()
    request = msgspec.structs.replace(request, client_key=client_key(private))
    minted = await access.mint(request)
    context = Context(NODE, request.subject.id, request.request, request.client_key)
    return open_sealed(private, public_bytes(node_key), context, minted.credential)


class Bench:
    """One agent's access; ``restart`` is what a SIGKILL leaves behind: the state directory and the server."""

    def __init__(self, path: Path) -> None:
        self.time = START
        self.storage = MemoryStorage(lambda: self.time)
        self.state = StateDirectory(path)
        self.state.prepare()
        storage = StorageSettings("minio", "http://127.0.0.1:9000", "wio-agent", ("http://127.0.0.1:9000",), "lab3")
        self.settings = NodeSettings("http://hub", to_text(public_bytes(HUB)), "lab3", storage, NODE)
        self.state.keep_settings(self.settings)
        self.state.keep_secrets(Secrets(bytes(32), bytes(32), "storage-secret"))
        self.requests = itertools.count(1)
        self.random = itertools.count(1)
        self.roots: dict[int, RootConfig] = {5: RootConfig(5, "data", "lab", "", Layout.PREFIX, IndexLevel.NAMES)}

    def root(self, number: int) -> RootConfig:
        if number not in self.roots:
            raise UnknownRoot("There is no such root.")
        return self.roots[number]

    async def start(self, *, verify: bool = True) -> None:
        self.access = Access(
            self.state,
            self.storage,  # type: ignore[arg-type]  # the part that access uses
            self.root,
            clock=lambda: self.time * 1_000_000,
            chance=lambda size: next(self.random).to_bytes(size, "big"),
            pause=_no_pause,
        )
        await self.access.open()
        if verify:
            await self.access.verify_once()

    async def stop(self) -> None:
        await self.access.close()

    async def restart(self, *, verify: bool = True) -> None:
        await self.stop()
        await self.start(verify=verify)

    def signed(
        self,
        subject: Subject,
        epoch: int,
        *grants: Grant,
        lease: int = START + 30 * DAY,
        node: int = NODE,
        groups: tuple[int, ...] = (),
    ) -> SignedGrantSet:
        return sign_set(HUB, GrantSet(node, subject, epoch, grants, lease, groups))

    async def set(self, subject: Subject, epoch: int, *grants: Grant, **changes: Any) -> GrantsApplied | GrantsRefused:
        signed = self.signed(subject, epoch, *grants, **changes)
        return await self.access.set_grants(SetGrants(next(self.requests), 5000, signed))

    async def key(self, subject: Subject, epoch: int, life_s: int = 3600, narrowing: Narrowing = WHOLE) -> ClearCredential:
        request = Mint(next(self.requests), 5000, subject, epoch, bytes(32), life_s, narrowing)
        return await minting(self.access, new_key(bytes(32)), request)

    def opens(self, key: ClearCredential, where: str, permission: Permission = Permission.READ) -> bool:
        bucket, _, rest = where.partition("/")
        return self.storage.opens(key.access_key, bucket, rest, permission)


async def _no_pause(seconds: float) -> None:
    del seconds
