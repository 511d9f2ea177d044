"""Presigned links to single files."""

from __future__ import annotations

from litestar import Controller, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from hub.web.call import Call
from hub.web.problems import problems
from protocol.api import Link, LinkMade, LinkRevoked, NewLink


class LinkRoutes(Controller):
    """Links, which their nodes sign and this hub cannot read."""

    tags = ("links",)

    @post("/links", operation_id="make_link", responses=problems(202, 400, 401, 403, 404, 409, 413, 429, 502))
    async def make(self, request: Call, data: JSONBody[NewLink]) -> LinkMade:
        """Have a node presign one file, for reading or for uploading it."""
        return await request.services.links.make(request.actor, data)

    @get("/links", operation_id="links", responses=problems(400, 401, 404))
    async def links(self, request: Call, path: FromQuery[str | None] = None) -> list[Link]:
        """List the links that work: one's own, or below a path; there everybody's, for who manages the workspace."""
        return await request.services.links.list(request.actor, path)

    @delete("/links/{id:int}", operation_id="revoke_link", status_code=200, responses=problems(202, 400, 401, 404, 502))
    async def revoke(
        self,
        request: Call,
        id: FromPath[int],  # noqa: A002 - the contract's name
    ) -> LinkRevoked:
        """End a link at once; the receipt says what the node made of it."""
        return await request.services.links.revoke(request.actor, id)
