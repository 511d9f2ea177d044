"""MinIO's admin calls (v3) that wio uses: users, policies, one setting. The fast ones are plain JSON; see 4-storage.

``users`` is answered Argon2id-encrypted (150 ms, 64 MiB): for starting and leaving, never on the way of a share.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final, TypeVar

import msgspec

from protocol.errors import StorageRefused
from spoke_agent.storage.admin_cipher import decrypt, encrypt
from spoke_agent.storage.connection import Connection, Query, Reply, refusal
from spoke_agent.storage.sigv4 import Key

T = TypeVar("T")

BASE: Final = "/minio/admin/v3/"

NO_USER: Final = "XMinioAdminNoSuchUser"
NO_POLICY: Final = "XMinioAdminNoSuchPolicy"
POLICY_IN_USE: Final = "XMinioIAMPolicyInUse"
NO_CONFIG: Final = "XMinioConfigNotFoundError"


class User(msgspec.Struct, frozen=True, rename="camel"):
    """A storage user as the server has it."""

    status: str = ""
    policy_name: str = ""

    @property
    def enabled(self) -> bool:
        """Whether its keys work."""
        return self.status == "enabled"

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of the policies attached, sorted."""
        return tuple(sorted(name for name in self.policy_name.split(",") if name))


class _Server(msgspec.Struct, frozen=True):
    version: str = ""
    commit: str = msgspec.field(default="", name="commitID")
    uptime: int = 0
    state: str = ""


class Info(msgspec.Struct, frozen=True):
    """What the server says it is. ``deployment`` is made when its disks are formatted and stays with them."""

    deployment: str = msgspec.field(name="deploymentID")
    servers: tuple[_Server, ...] = ()

    @property
    def uptime_s(self) -> int:
        """For how many seconds the youngest of its servers has run; 0 where none says (in its first second, or at all)."""
        return min((server.uptime for server in self.servers if server.state == "online"), default=0)

    @property
    def version(self) -> str:
        """The version in its own words."""
        return self.servers[0].version or self.servers[0].commit if self.servers else ""


class Admin:
    """The admin calls as one key may make them."""

    def __init__(self, connection: Connection, key: Key) -> None:
        self._connection = connection
        self._key = key

    async def info(self) -> Info:
        """Return what the server is."""
        return _read(await self._done("look at itself", "GET", "info"), Info)

    # -------------------------------------------------------------------------------------------------- policies

    async def put_policy(self, name: str, document: bytes) -> None:
        """Make or rewrite a policy: it counts for the next request of every key that it is attached to."""
        await self._done("write an access policy", "PUT", "add-canned-policy", [("name", name)], document)

    async def policy(self, name: str) -> bytes | None:
        """Return a policy's document as the server has it; None if there is none of that name."""
        reply = await self._ask("GET", "info-canned-policy", [("name", name)])
        if reply.code == NO_POLICY:
            return None
        return _ok(reply, "show an access policy").body

    async def policies(self) -> dict[str, bytes]:
        """Return all policies of the server."""
        raw = _read(await self._done("list its access policies", "GET", "list-canned-policies"), dict[str, msgspec.Raw])
        return {name: bytes(document) for name, document in raw.items()}

    async def drop_policy(self, name: str) -> bool:
        """Delete a policy, fine if it is not there; False where it cannot be because somebody still has it."""
        reply = await self._ask("DELETE", "remove-canned-policy", [("name", name)])
        if reply.code == POLICY_IN_USE:
            return False
        if reply.code != NO_POLICY:
            _ok(reply, "delete an access policy")
        return True

    # -------------------------------------------------------------------------------------------------- users

    async def put_user(self, name: str, secret: str) -> None:
        """Make a user without any rights, or give one that is there another secret."""
        body = encrypt(self._key.secret_key, json.dumps({"secretKey": secret, "status": "enabled"}).encode())
        _ok(await self._ask("PUT", "add-user", [("accessKey", name)], body), "make a storage user", secret=True)

    async def user(self, name: str) -> User | None:
        """Return what the server has of a user; None if it does not know it."""
        reply = await self._ask("GET", "user-info", [("accessKey", name)])
        return None if reply.code == NO_USER else _read(_ok(reply, "show a storage user"), User)

    async def users(self) -> dict[str, User]:
        """Return all users. Slow: the answer is encrypted."""
        reply = await self._done("list its users", "GET", "list-users")
        plain = await asyncio.to_thread(decrypt, self._key.secret_key, reply.body)
        return _read(Reply(reply.status, reply.headers, plain), dict[str, User])

    async def attach(self, user: str, policies: tuple[str, ...]) -> None:
        """Make these the user's policies, in place of all it had, at once."""
        query = [("policyName", ",".join(policies)), ("userOrGroup", user), ("isGroup", "false")]
        await self._done("attach access policies", "PUT", "set-user-or-group-policy", query)

    async def drop_user(self, name: str) -> None:
        """Delete a user: its keys are dead when this returns. Fine if it is not there."""
        reply = await self._ask("DELETE", "remove-user", [("accessKey", name)])
        if reply.code != NO_USER:
            _ok(reply, "delete a storage user")

    async def forget_keys(self, user: str) -> bool:
        """Have the server forget all short-lived keys of a user; False where it cannot: older ones lack this call."""
        query = [("user", user), ("fullRevoke", "true")]
        return (await self._ask("POST", "revoke-tokens/builtin", query)).ok

    # -------------------------------------------------------------------------------------------------- settings

    async def set_config(self, line: str) -> None:
        """Change one setting, without a restart. ``line`` may hold a secret."""
        body = encrypt(self._key.secret_key, line.encode())
        _ok(await self._ask("PUT", "set-config-kv", (), body), "change a setting", secret=True)

    async def drop_config(self, name: str) -> bool:
        """Remove one setting; False if it was not there."""
        reply = await self._ask("DELETE", "del-config-kv", (), encrypt(self._key.secret_key, name.encode()))
        if reply.code == NO_CONFIG:
            return False
        _ok(reply, "remove a setting")
        return True

    # -------------------------------------------------------------------------------------------------- asking

    async def try_service_account(self, body: bytes) -> int:
        """Try to make this key a permanent one; return what the server answers. For probes: 403 is the good answer."""
        return (await self._ask("PUT", "add-service-account", (), encrypt(self._key.secret_key, body))).status

    async def status(self, method: str, call: str, query: Query = ()) -> int:
        """Return what the server answers to any admin call of this key: for probes."""
        return (await self._ask(method, call, query)).status

    async def _ask(self, method: str, call: str, query: Query = (), body: bytes = b"") -> Reply:
        return await self._connection.ask(self._key, method, BASE + call, query, body)

    async def _done(self, what: str, method: str, call: str, query: Query = (), body: bytes = b"") -> Reply:
        return _ok(await self._ask(method, call, query, body), what)


def _ok(reply: Reply, what: str, *, secret: bool = False) -> Reply:
    if not reply.ok:
        raise refusal(reply, what, secret=secret)
    return reply


def _read(reply: Reply, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except msgspec.MsgspecError as error:
        raise StorageRefused("The storage server's answer to an admin call cannot be read.") from error
