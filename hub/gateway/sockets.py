"""Whole messages in and out of a WebSocket, and its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from litestar import WebSocket
from litestar.exceptions import WebSocketDisconnect

from protocol.errors import BadMessage, Evicted, Problem
from protocol.wire import CLOSE_CODE, close_reason

CLOSE_S: Final = 2.0
"""How long the last frames and the reason may take on their way out."""
GONE: Final = (WebSocketDisconnect, ConnectionError)
"""What is raised when the peer is not there any more."""

_LOG: Final = logging.getLogger("wio.hub.gateway")


async def read(socket: WebSocket[Any, Any, Any]) -> bytes:
    """Wait for the next message. Raises BadMessage for a text, WebSocketDisconnect at the end."""
    message: Any = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(detail="The agent is gone.", code=message.get("code", 1005))
    data = message.get("bytes")
    if data is None:
        raise BadMessage("A text message came where only binary ones are allowed.")
    return bytes(data)


async def send(socket: WebSocket[Any, Any, Any], messages: Sequence[bytes]) -> None:
    """Send messages, one after the other."""
    for data in messages:
        await socket.send({"type": "websocket.send", "bytes": data, "text": None})


async def hear_out(socket: WebSocket[Any, Any, Any]) -> None:
    """Wait until the peer closes: it has something to carry out first, and must not lose the order to a broken pipe."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


async def close(socket: WebSocket[Any, Any, Any], last: Sequence[bytes], problem: Problem | None) -> None:
    """Send what is left and close, with the reason. Never waits long, and never raises for a peer that is gone."""
    try:
        async with asyncio.timeout(CLOSE_S):
            if socket.connection_state != "disconnect":
                await send(socket, last)
            if problem is not None and problem.code == Evicted.code:
                await hear_out(socket)
            if problem is None:
                await socket.close()
            else:
                await socket.close(CLOSE_CODE, close_reason(problem))
    except (TimeoutError, RuntimeError, *GONE):
        pass  # it is gone, or does not read
    except Exception as error:  # noqa: BLE001 - every server has its own class for a client that is gone
        _LOG.debug("A connection could not be closed in order: %s", type(error).__name__)
