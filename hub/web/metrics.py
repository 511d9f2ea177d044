"""``GET /metrics``: the hub's figures, for a Prometheus that shows the token; shut where none is set."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from hub.metrics import CONTENT_TYPE
from protocol.errors import NotSignedIn, UnknownPath


def metrics_route(token: str | None, text: Callable[[Any], Awaitable[bytes]]) -> HTTPRouteHandler:
    """Return the handler; ``text`` makes the answer from the application's state."""

    @get("/metrics", include_in_schema=False)
    async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        if token is None:
            raise UnknownPath("This hub tells no metrics.", todo="Set WIO_METRICS_TOKEN.")
        shown = request.headers.get("authorization", "").encode(errors="replace")
        if not hmac.compare_digest(shown, f"Bearer {token}".encode()):
            raise NotSignedIn("Metrics need the token of WIO_METRICS_TOKEN in Authorization: Bearer.")
        return Response(await text(request.app.state), media_type=CONTENT_TYPE)

    return metrics
