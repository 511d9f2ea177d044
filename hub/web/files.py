"""List folders, search: everything answered from what the hub itself knows."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, get
from litestar.params import FromQuery, QueryParameter

from hub.web.call import Call
from hub.web.problems import problems
from protocol.api import Changes, FileDetails, Listing, SearchPage, Unreadable
from search.engine import Sort

Limit = Annotated[int, QueryParameter(ge=1, le=1000)]
Wait = Annotated[int, QueryParameter(ge=0, le=25)]


class FileRoutes(Controller):
    """The catalogue and the search index."""

    tags = ("files",)

    @get("/files", operation_id="files", responses=problems(400, 401, 403, 404))
    async def files(
        self, request: Call, path: FromQuery[str], after: FromQuery[str | None] = None, limit: Limit = 200
    ) -> Listing:
        """List one level of a workspace: its folders and files."""
        return await request.services.searching.files(request.actor, path, after, limit)

    @get("/file", operation_id="file", responses=problems(400, 401, 403, 404))
    async def file(self, request: Call, path: FromQuery[str]) -> FileDetails:
        """Show one file, with what was read out of it."""
        return await request.services.details.file(request.actor, path)

    @get("/changes", operation_id="changes", responses=problems(400, 401, 403, 404, 429))
    async def changes(
        self,
        request: Call,
        path: FromQuery[str | None] = None,
        after: FromQuery[str | None] = None,
        limit: Limit = 200,
        wait: Wait = 25,
    ) -> Changes:
        """Say what changed after a position, or wait so many seconds for it. Without a position: which one is now."""
        return await request.services.watching.changes(request.actor, path, after, limit, wait)

    @get("/unreadable", operation_id="unreadable", responses=problems(400, 401, 403, 404))
    async def unreadable(
        self, request: Call, node: FromQuery[str], root: FromQuery[str], after: FromQuery[str] = "", limit: Limit = 200
    ) -> list[Unreadable]:
        """List files of a root that could not be read, and why; for whoever may change the root."""
        return await request.services.details.unreadable(request.actor, node, root, after, limit)

    @get("/search", operation_id="search", responses=problems(400, 401))
    async def search(
        self,
        request: Call,
        *,
        q: FromQuery[str] = "",
        sort: FromQuery[Sort] = Sort.RELEVANCE,
        limit: Limit = 50,
        cursor: FromQuery[str | None] = None,
        facets: FromQuery[str] = "",
    ) -> SearchPage:
        """Search everything this person may read. ``facets`` is a list with commas of what to count by."""
        wanted = tuple(part for part in facets.split(",") if part)
        page = await request.services.searching.search(request.actor, q=q, sort=sort, limit=limit, cursor=cursor, facets=wanted)
        request.services.metrics.searched(page.took_ms / 1000)
        return page
