"""What ``join`` and ``leave`` do with the owner's own admin key: make and remove the agent's storage user.

The owner's key is used for these calls and then forgotten; the agent lives with its own. What that one may do is listed
here. Said plainly: whoever may make users and policies can give itself more, and the one action that sets the audit webhook
also reads and changes every other setting of the server. The list keeps the agent from doing by mistake what it has no
business with (stopping the server, healing, tracing, exporting, writing to or deleting from anybody's bucket), and shows the
owner what it is for; it is no wall against an agent that was taken over.
"""

from __future__ import annotations

import json
import secrets
import ssl
from collections.abc import Callable
from typing import Final

from protocol.errors import AlreadyJoined, NotAllowed, StorageRefused
from protocol.names import SEPARATOR, check_name
from spoke_agent.storage.admin import Admin
from spoke_agent.storage.connection import Connection
from spoke_agent.storage.placing import AGENT, PROBE_BUCKETS, Naming, is_agent
from spoke_agent.storage.sigv4 import Key

ADMIN_ACTIONS: Final = (
    "admin:ServerInfo",  # version, and the deployment that tells one server from another
    "admin:CreateUser",
    "admin:DeleteUser",
    "admin:GetUser",
    "admin:ListUsers",
    "admin:CreatePolicy",
    "admin:DeletePolicy",
    "admin:GetPolicy",
    "admin:ListUserPolicies",
    "admin:AttachUserOrGroupPolicy",
    "admin:ConfigUpdate",  # the audit webhook; these servers know no action for one setting alone
)
LOOK_ACTIONS: Final = (
    "s3:ListAllMyBuckets",
    "s3:ListBucket",
    "s3:GetBucketLocation",
    "s3:GetBucketVersioning",
    "s3:GetObject",  # HEAD; the bytes of objects in roots at index level metadata or content, and of no others
    "s3:GetObjectTagging",  # in the same roots
    "s3:CreateBucket",
    "s3:ListBucketMultipartUploads",
)
TIDY_ACTIONS: Final = ("s3:AbortMultipartUpload",)
"""What it may end in anybody's bucket: uploads that nobody can complete, because a quota is exceeded."""
PROBE_ACTIONS: Final = ("s3:PutObject", "s3:DeleteObject", "s3:DeleteBucket")


def agent_policy() -> bytes:
    """Return the policy of the agent's own user. Writing is for buckets of its own probes alone."""
    own = [f"arn:aws:s3:::{PROBE_BUCKETS}*", f"arn:aws:s3:::{PROBE_BUCKETS}*/*"]
    statements = [
        {"Effect": "Allow", "Action": list(ADMIN_ACTIONS)},
        {"Effect": "Allow", "Action": [*LOOK_ACTIONS, *TIDY_ACTIONS], "Resource": ["arn:aws:s3:::*"]},
        {"Effect": "Allow", "Action": list(PROBE_ACTIONS), "Resource": own},
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":")).encode()


async def make_agent_user(
    url: str,
    owner: Key,
    node: str,
    *,
    region: str,
    clock: Callable[[], int],
    replace: bool = False,
    trust: ssl.SSLContext | None = None,
) -> Key:
    """Make the agent's user on a server and return its key.

    Raises AlreadyJoined if this server has an agent of that node's name (unless ``replace``: it then gets a new secret),
    NotAllowed if the owner's key is no admin key, StorageUnreachable, StorageRefused.
    """
    name = Naming(check_name(node, "node")).user(AGENT)
    connection = Connection(url, region=region, clock=clock, trust=trust)
    await connection.open()
    try:
        admin = Admin(connection, owner)
        try:
            there = await admin.user(name)
        except StorageRefused as error:
            raise NotAllowed(
                f"The key {owner.access_key} may not manage users of the storage server at {connection.url}.",
                todo="Give an admin key of it, such as its root user's.",
            ) from error
        if there is not None and not replace:
            raise AlreadyJoined(
                f"The storage server at {connection.url} already has an agent of a node named {node}.",
                todo="If that one is gone for good, join again with --replace.",
            )
        key = Key(name, secrets.token_urlsafe(30))
        await admin.put_policy(name, agent_policy())
        await admin.put_user(key.access_key, key.secret_key)
        await admin.attach(name, (name,))
    finally:
        await connection.close()
    return key


async def renew_policy(
    url: str, owner: Key, node: str, *, region: str, clock: Callable[[], int], trust: ssl.SSLContext | None = None
) -> None:
    """Let the agent's user do what this version of wio needs, where an older one made it. Raises NotAllowed."""
    connection = Connection(url, region=region, clock=clock, trust=trust)
    await connection.open()
    try:
        await Admin(connection, owner).put_policy(Naming(check_name(node, "node")).user(AGENT), agent_policy())
    except StorageRefused as error:
        raise NotAllowed(
            f"The key {owner.access_key} may not manage users of the storage server at {connection.url}.",
            todo="Give an admin key of it, such as its root user's.",
        ) from error
    finally:
        await connection.close()


async def check_owner(
    url: str, owner: Key, node: str, *, region: str, clock: Callable[[], int], trust: ssl.SSLContext | None = None
) -> None:
    """Raise NotAllowed unless this key may remove what an agent made: asked before anything is, so nothing is half done.

    Tried on a user and a policy that nobody has; StorageUnreachable where the server does not answer.
    """
    connection = Connection(url, region=region, clock=clock, trust=trust)
    await connection.open()
    try:
        admin, nobody = Admin(connection, owner), Naming(check_name(node, "node")).user(f"nobody_{secrets.token_hex(8)}")
        await admin.user(nobody)
        await admin.drop_user(nobody)
        await admin.drop_policy(nobody)
    except StorageRefused as error:
        raise NotAllowed(
            f"The key {owner.access_key} may not remove users of the storage server at {connection.url}; nothing was changed.",
            todo="Give an admin key of it, such as its root user's.",
        ) from error
    finally:
        await connection.close()


async def forget_keys(
    url: str, owner: Key, node: str, *, region: str, clock: Callable[[], int], trust: ssl.SSLContext | None = None
) -> int:
    """Have the server forget the short-lived keys of a node's people; return of how many. To be done before they are removed.

    The server keeps a record of each such key until it would have expired, also when its user is gone and it opens nothing.
    """
    naming = Naming(check_name(node, "node"))
    connection = Connection(url, region=region, clock=clock, trust=trust)
    await connection.open()
    try:
        admin = Admin(connection, owner)
        own = [name for name in await admin.users() if naming.holder(name) not in {"", AGENT}]
        return sum([await admin.forget_keys(name) for name in own])
    finally:
        await connection.close()


async def neighbours(
    url: str, owner: Key, node: str, *, region: str, clock: Callable[[], int], trust: ssl.SSLContext | None = None
) -> list[str]:
    """Return what other nodes of wio on the same server are named after (all where ``node`` is empty), in order.

    Takes some 150 ms. Raises StorageUnreachable, StorageRefused.
    """
    own = Naming(check_name(node, "node")).user(AGENT) if node else ""
    connection = Connection(url, region=region, clock=clock, trust=trust)
    await connection.open()
    try:
        agents = [name for name in await Admin(connection, owner).users() if is_agent(name) and name != own]
    finally:
        await connection.close()
    return sorted(name.split(SEPARATOR)[1] for name in agents)


async def remove_agent_user(
    url: str, owner: Key, node: str, *, region: str, clock: Callable[[], int], trust: ssl.SSLContext | None = None
) -> list[str]:
    """Remove the agent's user and its policy; fine if they are gone. Return one sentence per thing removed."""
    name = Naming(check_name(node, "node")).user(AGENT)
    connection = Connection(url, region=region, clock=clock, trust=trust)
    await connection.open()
    try:
        admin = Admin(connection, owner)
        if await admin.user(name) is None:
            return []
        await admin.drop_user(name)
        await admin.drop_policy(name)
    finally:
        await connection.close()
    return [f"The agent's own storage user {name} and its policy."]
