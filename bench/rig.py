"""What every benchmark runs on: a hub, one MinIO with its agent, alice who owns it and bob who does not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bench.postgres import postgres
from deploy.federation import Agent, Federation, Person
from deploy.running import Minio
from protocol.api import NewCredentials, NewRoot, NodeCredential, RootKind, Workspace
from protocol.grants import Permission
from protocol.identity import from_text, to_text
from protocol.messages import SealedCredential
from protocol.sealing import ClearCredential, Context, client_key, open_sealed
from wio.client import Client

NODE = "lab3"
OBJECTS: Final = 100_000
"""The scale of figures that have one, where no other is asked for."""


class Rig:
    """One federation, ready to be measured. ``alice`` and ``bob`` are clients with open connections.

    ``objects`` is the scale asked for, where a figure has one; ``database`` the URL of the hub's, where it is not SQLite.
    """

    def __init__(self, federation: Federation, *, objects: int = OBJECTS, database: str | None = None) -> None:
        self.federation = federation
        self.objects = objects
        self.database = database
        self.owner: Person = federation.person("alice")
        self.agent: Agent = federation.node(NODE, self.owner)
        self.server: Minio = federation.servers[NODE]
        self.alice = Client(federation.hub.url, self.owner.token)
        self.bob = Client(federation.hub.url, federation.person("bob").token)
        self.alice.create_root(NewRoot(NODE, "homes", RootKind.PRIVATE, "homes"))

    def shared(self, count: int, permission: Permission = Permission.READ) -> list[Workspace]:
        """Make so many workspaces of alice's and share each with bob."""
        made = [self.alice.create_workspace(f"shared{number:03}") for number in range(count)]
        for one in made:
            self.alice.share(one.name, "bob", permission)
        return made

    @property
    def kept_in(self) -> str:
        """What the hub keeps its catalogue in, in words."""
        return "SQLite" if self.database is None else "PostgreSQL"

    def close(self) -> None:
        """Close the clients."""
        self.alice.close()
        self.bob.close()

    def root_client(self, **config: Any) -> Any:
        """Return S3 as the server's owner."""
        return s3(ClearCredential(self.server.user, self.server.password, "", 0, self.server.url, "us-east-1"), **config)


@contextmanager
def rig(*, objects: int = OBJECTS, on_postgres: bool = False) -> Iterator[Rig]:
    """Set one up in a temporary folder; everything is stopped and removed afterwards."""
    with ExitStack() as stack:
        database = stack.enter_context(postgres()) if on_postgres else None
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wio-bench-"))
        environment = {} if database is None else {"WIO_DATABASE_URL": database}
        federation = stack.enter_context(Federation(Path(folder), hub_environment=environment))
        made = Rig(federation, objects=objects, database=database)
        try:
            yield made
        finally:
            made.close()


def s3(key: ClearCredential, **config: Any) -> Any:
    """Return boto3's S3 client for a key."""
    return boto3.client(
        "s3",
        endpoint_url=key.endpoint,
        region_name=key.region,
        aws_access_key_id=key.access_key,
        aws_secret_access_key=key.secret_key,
        aws_session_token=key.session_token or None,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1}, **config),
    )


def fetch_key(client: Client, path: str, *, life_s: int = 3600) -> tuple[ClearCredential, NodeCredential]:
    """Ask the hub for one key and open it, as any client does: new client key, one request, unseal, check its origin."""
    private = X25519PrivateKey.generate()
    public = client_key(private)
    [one] = client.credentials(NewCredentials(to_text(public), (path,), life_s)).keys
    context = Context(one.node_id, one.subject, one.request, public)
    sealed = SealedCredential(from_text(one.sealed), from_text(one.signature), one.expires_at)
    return open_sealed(private, from_text(one.node_key), context, sealed), one
