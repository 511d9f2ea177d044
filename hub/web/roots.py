"""Make, list, show, change and retire roots; begin a scan and watch it."""

from __future__ import annotations

from litestar import Controller, delete, get, patch, post
from litestar.params import FromPath, JSONBody

from hub.web.call import Call
from hub.web.problems import problems
from protocol.api import NewRoot, Root, RootChange, RootRetired, ScanStatus


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

    @patch(
        "/roots/{node:str}/{root:str}", operation_id="change_root", responses=problems(202, 400, 401, 403, 404, 409, 413, 502)
    )
    async def change(self, request: Call, node: FromPath[str], root: FromPath[str], data: JSONBody[RootChange]) -> Root:
        """Change how a root is indexed, who may make workspaces in it, and who may change it."""
        return await request.services.root_changes.change(request.actor, node, root, data)

    @delete(
        "/roots/{node:str}/{root:str}",
        operation_id="retire_root",
        status_code=200,
        responses=problems(202, 400, 401, 403, 404, 502),
    )
    async def retire(self, request: Call, node: FromPath[str], root: FromPath[str]) -> RootRetired:
        """Take a root and its workspaces out of wio; every file stays where it lies."""
        return await request.services.root_changes.retire(request.actor, node, root)

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
