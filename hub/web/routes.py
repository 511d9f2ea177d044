"""Every route of the people's side, behind one guard and one map of errors."""

from __future__ import annotations

from typing import Any, Final

from litestar import MediaType, Response, Router, get
from litestar.types import ControllerRouterHandler

from hub.web.about import AboutRoutes
from hub.web.accounts import AccountRoutes
from hub.web.audit import AuditRoutes, WhyRoutes
from hub.web.call import OPEN, Call, signed_in
from hub.web.files import FileRoutes
from hub.web.groups import GroupRoutes
from hub.web.keys import KeyRoutes
from hub.web.links import LinkRoutes
from hub.web.nodes import NodeRoutes
from hub.web.openapi import BASE, document
from hub.web.proofs import ProofRoutes
from hub.web.quotas import QuotaRoutes
from hub.web.requests import RequestRoutes
from hub.web.roots import RootRoutes
from hub.web.workspaces import ShareRoutes, WorkspaceRoutes

MAX_BODY: Final = 256 * 1024
"""Bytes of a request: many times the largest one of this API."""


@get("/openapi.json", opt={OPEN: True}, include_in_schema=False)
async def openapi(request: Call) -> Response[bytes]:
    """Return the description of this API."""
    state: Any = request.app.state
    if "openapi" not in state:
        state.openapi = document(request.app, version=request.services.info.version)
    return Response(state.openapi, media_type=MediaType.JSON)


def people_routes() -> Router:
    """Return everything below ``/api/v1``."""
    handlers: list[ControllerRouterHandler] = [
        AboutRoutes,
        AccountRoutes,
        NodeRoutes,
        RootRoutes,
        ProofRoutes,
        WorkspaceRoutes,
        ShareRoutes,
        GroupRoutes,
        RequestRoutes,
        KeyRoutes,
        LinkRoutes,
        FileRoutes,
        AuditRoutes,
        WhyRoutes,
        QuotaRoutes,
        openapi,
    ]
    return Router(BASE, route_handlers=handlers, guards=[signed_in], request_class=Call, request_max_body_size=MAX_BODY)
