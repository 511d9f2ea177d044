"""Make, list and show roots; begin a scan and watch it."""

from __future__ import annotations

from litestar import Controller, get, post
from litestar.params import FromPath, JSONBody

from hub.web.call import Call
from hub.web.problems import problems
from protocol.api import NewRoot, Root, ScanStatus


class RootRoutes(Controller):
    """Bucket prefixes inside which wio manages everything."""

    tags = ("roots",)

    @post("/roots", operation_id="create_root", responses=problems(202, 400, 401, 403, 404, 409, 413, 502))
    async def create(self, request: Call, data: JSONBody[NewRoot]) -> Root:
        """Make a root on a node of one's own."""
        return await request.services.roots.create(request.actor, data)

    @get("/roots", operation_id="roots", responses=problems(401))
    async def roots(self, request: Call) -> list[Root]:
        """List the roots this person may know of."""
        return await request.services.roots.list(request.actor)

    @get("/roots/{node:str}/{root:str}", operation_id="root", responses=problems(400, 401, 403, 404))
    async def root(self, request: Call, node: FromPath[str], root: FromPath[str]) -> Root:
        """Show one root."""
        return await request.services.roots.show(request.actor, node, root)

    @post(
        "/roots/{node:str}/{root:str}/scan",
        operation_id="scan",
        status_code=200,
        responses=problems(202, 400, 401, 403, 404, 409, 502),
    )
    async def scan(self, request: Call, node: FromPath[str], root: FromPath[str]) -> ScanStatus:
        """Begin to import or reconcile a root; answers at once."""
        return await request.services.roots.scan(request.actor, node, root)

    @get("/roots/{node:str}/{root:str}/scan", operation_id="scan_status", responses=problems(400, 401, 403, 404))
    async def scan_status(self, request: Call, node: FromPath[str], root: FromPath[str]) -> ScanStatus:
        """Say how far the last scan of a root is."""
        return await request.services.roots.scan_status(request.actor, node, root)
