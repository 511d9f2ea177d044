"""One session over one WebSocket: connect, handshake, then messages in and out. Moves bytes and nothing else."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidProxy, InvalidStatus, WebSocketException

from protocol.errors import BadMessage, BadSetting, HubUnreachable, LinkBroken, WioError, error_of
from protocol.messages import MAX_FRAME, AgentMessage, Welcome, Wishes
from protocol.names import shown
from protocol.session import AgentSession, Event, Opened, RefusedByHub
from protocol.wire import CLOSE_CODE, close_reason, closed_because

PATH: Final = "/agent/v1"
HANDSHAKE_S: Final = 10.0
"""For everything from the first packet to the Welcome."""
PING_S: Final = 10.0
CLOSE_S: Final = 1.0
UNSENT: Final = 64 * 1024


def address_of(hub_url: str, *, insecure: bool = False) -> str:
    """Return the WebSocket address of a hub. Raises BadSetting where it would be plain text over a network."""
    try:
        parts = urlsplit(hub_url)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None or parts.scheme not in {"http", "https"}:
        raise BadSetting(f"{shown(hub_url)} is not the http or https address of a hub.")
    if parts.scheme == "http" and not (insecure or _is_loopback(host)):
        raise BadSetting(
            f"The hub's address {hub_url} is not encrypted, and it is not on this machine.",
            todo="Use its https address. In a network you trust: --insecure. Frames are signed, but everybody could read them.",
        )
    scheme = "wss" if parts.scheme == "https" else "ws"
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}{PATH}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Connect(connect):
    """Follows no redirect: the address that was checked is the one that is used."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Line:
    """An open session. One at a time may send, and one receive."""

    def __init__(self, connection: ClientConnection, session: AgentSession, welcome: Welcome) -> None:
        self._connection = connection
        self._session = session
        self.welcome = welcome

    async def send(self, message: AgentMessage) -> None:
        """Sign a message and hand it to the network. Raises BadMessage (it fits no frame), HubUnreachable, LinkBroken."""
        frame = self._session.send(message)
        try:
            await self._connection.send(frame)
        except ConnectionClosed as error:
            raise _ended(error) from error

    async def receive(self) -> list[Event]:
        """Wait for the next message. Raises HubUnreachable, or a child of LinkBroken; then the session is over."""
        return self._session.receive(await _bytes(self._connection))


@asynccontextmanager
async def open_line(
    address: str,
    *,
    node_key: Ed25519PrivateKey,
    hub_key: bytes,
    nonce: bytes,
    join: tuple[Ed25519PrivateKey, Wishes] | None = None,
    handshake_s: float = HANDSHAKE_S,
) -> AsyncIterator[Line]:
    """Connect to ``address`` and shake hands; the connection is closed on the way out.

    Raises HubUnreachable, a child of LinkBroken, or the error for which the hub refused.
    """
    session = AgentSession(node_key=node_key, hub_key=hub_key, nonce=nonce, join=join)
    try:
        async with asyncio.timeout(handshake_s) as deadline:
            connection = await _connected(address)
            try:
                welcome = await _welcomed(connection, session)
            except BaseException as error:
                await _close(connection, error)
                raise
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise HubUnreachable(f"The hub at {address} did not answer within {handshake_s:g} s.") from error
    try:
        yield Line(connection, session, welcome)
    except BaseException as error:
        await _close(connection, error)
        raise
    await _close(connection, None)


async def _connected(address: str) -> ClientConnection:
    local = _is_loopback(urlsplit(address).hostname or "")
    try:
        connection = await _Connect(
            address,
            compression=None,
            max_size=MAX_FRAME,
            open_timeout=None,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            close_timeout=CLOSE_S,
            proxy=None if local else True,
        )
        _keep_queue_short(connection)
    except ssl.SSLCertVerificationError as error:
        raise HubUnreachable(
            f"The certificate of {address} is not one this machine trusts: {error.verify_message}.",
            todo="Check the address; for a certificate of your own, set SSL_CERT_FILE.",
        ) from error
    except InvalidStatus as error:
        raise HubUnreachable(
            f"{address} answers with HTTP status {error.response.status_code} instead of opening a connection.",
            todo="Check that the address is a wio hub's, and that whatever stands in front of it lets WebSockets through.",
        ) from error
    except (InvalidProxy, ImportError) as error:
        raise BadSetting(f"The proxy set in the environment cannot be used: {error}.") from error
    except (OSError, WebSocketException, EOFError) as error:
        raise HubUnreachable(f"The hub at {address} cannot be reached: {str(error)[:200] or type(error).__name__}.") from error
    return connection


def _keep_queue_short(connection: ClientConnection) -> None:
    """Let the kernel hold no more than UNSENT bytes that have not gone out: an answer would have to wait behind them."""
    raw = connection.transport.get_extra_info("socket")
    if raw is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)


async def _welcomed(connection: ClientConnection, session: AgentSession) -> Welcome:
    try:
        await connection.send(session.start())
        while True:
            for event in session.receive(await _bytes(connection)):
                if isinstance(event, RefusedByHub):
                    raise error_of(event.problem)
                if isinstance(event, Opened):
                    return event.welcome
            for data in session.data_to_send():
                await connection.send(data)
    except ConnectionClosed as error:
        raise _ended(error) from error


async def _bytes(connection: ClientConnection) -> bytes:
    try:
        data = await connection.recv()
    except ConnectionClosed as error:
        raise _ended(error) from error
    if isinstance(data, str):
        raise BadMessage("The hub sent text where only bytes are expected.")
    return data


def _ended(error: ConnectionClosed) -> WioError:
    """Return why the other side, or the network, ended the connection."""
    if error.rcvd is not None:
        problem = closed_because(error.rcvd.code, error.rcvd.reason)
        if problem is not None:
            return error_of(problem)
    if error.sent is not None and not error.rcvd_then_sent:
        return LinkBroken(f"The connection to the hub was broken off: {error.sent.reason or error.sent.code}.")
    return HubUnreachable("The hub ended the connection." if error.rcvd is not None else "The connection to the hub was lost.")


async def _close(connection: ClientConnection, error: BaseException | None) -> None:
    """Close, with the reason where it is the hub's to know. Takes no longer than CLOSE_S."""
    if isinstance(error, LinkBroken):
        await connection.close(CLOSE_CODE, close_reason(error.problem))
    else:
        await connection.close()
