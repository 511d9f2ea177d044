"""S3 clients that fetch their own keys: for boto3, botocore and whatever is built on them.

A client or session is for the node on which the given path lies: it knows the endpoint, signs path-style with SigV4, and
asks for a new key before the old one ends, for as long as the program runs. ``wio.s3_aio`` has the asynchronous half.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypedDict

import botocore.session
from botocore.config import Config as ClientConfig
from botocore.credentials import CredentialProvider, CredentialResolver, RefreshableCredentials

from protocol.errors import BadSetting
from wio.credentials import Key, Place, Wish
from wio.session import Session

if TYPE_CHECKING:
    import aioboto3
    import boto3

METHOD: Final = "wio"
STYLE: Final = ClientConfig(signature_version="s3v4", s3={"addressing_style": "path"})


def locate(path: str, *, session: Session | None = None) -> Place:
    """Return where a path lies: node, endpoint, bucket, key. Raises what the hub answers, e.g. UnknownWorkspace."""
    return (session or Session.here()).keys.open((path,))[0].place


def botocore_session(
    path: str, *, read_only: bool = False, narrow: bool = False, session: Session | None = None
) -> botocore.session.Session:
    """Return a botocore session whose S3 clients reach the node of ``path`` and refresh their own keys.

    ``narrow``: the keys reach only ``path``. Raises NotSignedIn, and what the hub answers for the path.
    """
    found = credentials(path, read_only=read_only, narrow=narrow, session=session)
    made = _NodeSession(found.key)
    made.register_component("credential_provider", CredentialResolver([_Provider(found)]))
    return made


def boto3_session(path: str, *, read_only: bool = False, session: Session | None = None) -> boto3.session.Session:
    """Return a boto3 session for the node of ``path``; raises BadSetting where boto3 is not installed."""
    return _boto3().session.Session(botocore_session=botocore_session(path, read_only=read_only, session=session))


def boto3_client(path: str, *, read_only: bool = False, session: Session | None = None) -> Any:
    """Return a boto3 S3 client for the node of ``path``; raises BadSetting where boto3 is not installed."""
    return boto3_session(path, read_only=read_only, session=session).client("s3")


def aioboto3_session(path: str, *, read_only: bool = False, session: Session | None = None) -> aioboto3.Session:
    """Return an aioboto3 session for the node of ``path``; raises BadSetting where aioboto3 is not installed.

    Asks the hub for the first key before it returns; later keys are asked for in a thread of their own.
    """
    try:
        import aioboto3  # noqa: PLC0415  - not a dependency: only whoever asks for it has it

        from wio.s3_aio import aiobotocore_session  # noqa: PLC0415
    except ImportError as error:
        raise BadSetting("aioboto3 is not installed.", todo="pip install aioboto3") from error
    return aioboto3.Session(botocore_session=aiobotocore_session(path, read_only=read_only, session=session))


def credentials(path: str, *, read_only: bool = False, narrow: bool = False, session: Session | None = None) -> NodeCredentials:
    """Return botocore credentials for the node of ``path`` that refresh themselves.

    For boto3 and whatever else takes such an object; ``.key`` says of which node they are. Raises what the hub answers.
    """
    here, wish = session or Session.here(), Wish(read_only=read_only, narrow=narrow)
    return NodeCredentials(lambda: here.keys.open((path,), wish)[0].key, here.clock)


class _NodeSession(botocore.session.Session):
    """A botocore session whose S3 clients go to one node unless told otherwise."""

    def __init__(self, key: Key) -> None:
        super().__init__()
        self._node_endpoint = key.endpoint
        self.set_config_variable("region", key.region)
        self.set_default_client_config(STYLE)

    def create_client(self, service_name: str, *args: Any, **kwargs: Any) -> Any:
        """Make a client; for S3 the endpoint is the node's."""
        positional_endpoint = 5  # region, api version, use_ssl, verify, endpoint_url
        if service_name == "s3" and len(args) < positional_endpoint and not kwargs.get("endpoint_url"):
            kwargs["endpoint_url"] = self._node_endpoint
        return super().create_client(service_name, *args, **kwargs)


class _Provider(CredentialProvider):
    """botocore's way of asking where keys come from: here only from the hub, never from the environment."""

    METHOD = METHOD
    CANONICAL_NAME = METHOD

    def __init__(self, found: NodeCredentials) -> None:
        super().__init__()
        self._found = found

    def load(self) -> RefreshableCredentials:
        return self._found


class Metadata(TypedDict):
    """A key as botocore wants it from whoever refreshes."""

    access_key: str
    secret_key: str
    token: str | None
    expiry_time: str


def metadata(key: Key) -> Metadata:
    """Return a key as botocore wants it."""
    return Metadata(
        access_key=key.access_key,
        secret_key=key.secret_key,
        token=key.session_token or None,
        expiry_time=datetime.fromtimestamp(key.expires, UTC).isoformat(),
    )


def lifetimes(key: Key, clock: Callable[[], float]) -> dict[str, Any]:
    """Return when botocore is to refresh: with a third of the life left, and with a twelfth it waits for the new key."""
    third = max(1, (key.expires - key.fetched) // 3)
    return {
        "expiry_time": datetime.fromtimestamp(key.expires, UTC),
        "time_fetcher": lambda: datetime.fromtimestamp(clock(), UTC),
        "advisory_timeout": third,
        "mandatory_timeout": max(1, third // 4),
    }


class NodeCredentials(RefreshableCredentials):
    """Credentials of one node that call ``fetch`` for a new key when less than a third of the life is left.

    ``key`` is the one they began with.
    """

    def __init__(self, fetch: Callable[[], Key], clock: Callable[[], float]) -> None:
        self.key = key = fetch()
        super().__init__(
            key.access_key,
            key.secret_key,
            key.session_token or None,  # type: ignore[arg-type]  # botocore itself keeps None where there is none
            refresh_using=lambda: metadata(fetch()),
            method=METHOD,
            **lifetimes(key, clock),
        )


def _boto3() -> Any:
    try:
        import boto3  # noqa: PLC0415  - not a dependency: only whoever asks for it has it
    except ImportError as error:
        raise BadSetting("boto3 is not installed.", todo="pip install boto3, or use wio.botocore_session.") from error
    return boto3
