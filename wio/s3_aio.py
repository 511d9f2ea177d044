"""S3 clients that fetch their own keys, for asynchronous programs: aiobotocore, and what is built on it (aioboto3, s3fs).

The other half of ``wio.s3``. The library may be missing; whoever imports this has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentialResolver, AioRefreshableCredentials
from aiobotocore.session import AioSession

from wio.credentials import Key, Wish
from wio.s3 import METHOD, Metadata, lifetimes, metadata
from wio.session import Session

STYLE = AioConfig(signature_version="s3v4", s3={"addressing_style": "path"})


def aiobotocore_session(
    path: str, *, read_only: bool = False, narrow: bool = False, session: Session | None = None
) -> NodeSession:
    """Return an aiobotocore session whose S3 clients reach the node of ``path`` and refresh their own keys.

    Asks the hub for the first key before it returns. Raises NotSignedIn, and what the hub answers for the path.
    """
    here, wish = session or Session.here(), Wish(read_only=read_only, narrow=narrow)
    return NodeSession(lambda: here.keys.open((path,), wish)[0].key, here.clock)


class NodeCredentials(AioRefreshableCredentials):  # type: ignore[misc]  # aiobotocore publishes no types
    """Credentials of one node that call ``fetch``, in a thread, when less than a third of the life is left."""

    def __init__(self, key: Key, fetch: Callable[[], Key], clock: Callable[[], float]) -> None:
        async def refresh() -> Metadata:
            return metadata(await asyncio.to_thread(fetch))

        token = key.session_token or None
        super().__init__(key.access_key, key.secret_key, token, refresh_using=refresh, method=METHOD, **lifetimes(key, clock))

    def renew(self) -> None:
        """Have the next request fetch a key, however long this one lives."""
        self._expiry_time = datetime.fromtimestamp(0, UTC)


class _Provider:
    """aiobotocore's way of asking where keys come from: here only from the hub, never from the environment."""

    METHOD = METHOD
    CANONICAL_NAME = METHOD

    def __init__(self, credentials: NodeCredentials) -> None:
        self._credentials = credentials

    async def load(self) -> NodeCredentials:
        return self._credentials


class NodeSession(AioSession):  # type: ignore[misc]  # aiobotocore publishes no types
    """An aiobotocore session whose S3 clients go to one node unless told otherwise."""

    def __init__(self, fetch: Callable[[], Key], clock: Callable[[], float]) -> None:
        super().__init__()
        key = fetch()
        self.credentials = NodeCredentials(key, fetch, clock)
        self._node_endpoint = key.endpoint
        self.set_config_variable("region", key.region)
        self.set_default_client_config(STYLE)
        self.register_component("credential_provider", AioCredentialResolver([_Provider(self.credentials)]))

    def create_client(self, service_name: str, *args: Any, **kwargs: Any) -> Any:
        """Make a client; for S3 the endpoint is the node's."""
        positional_endpoint = 5  # region, api version, use_ssl, verify, endpoint_url
        if service_name == "s3" and len(args) < positional_endpoint and not kwargs.get("endpoint_url"):
            kwargs["endpoint_url"] = self._node_endpoint
        return super().create_client(service_name, *args, **kwargs)
