"""Where agents connect: ``/agent/v1``. The application's state holds the ``gateway``."""

from __future__ import annotations

from typing import Any, Final

from litestar import WebSocket, websocket
from litestar.handlers import WebsocketRouteHandler

from hub.gateway.gateway import Gateway

PATH: Final = "/agent/v1"


def agent_route() -> WebsocketRouteHandler:
    """Return the handler; it needs no token: an agent proves its key inside the connection."""

    @websocket(PATH)
    async def agent(socket: WebSocket[Any, Any, Any]) -> None:
        gateway: Gateway = socket.app.state.gateway
        await gateway.serve(socket)

    return agent
